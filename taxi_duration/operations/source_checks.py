"""Where months come from: the S3 block, its credentials and bucket, and the TLC."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from prefect_aws import S3Bucket

from taxi_duration.cli.cli import find_program
from taxi_duration.data.bucket import (
    BUCKET_VARIABLE,
    load_bucket,
    make_key,
    named_errors,
    read_status,
)
from taxi_duration.data.cache import find_month
from taxi_duration.data.month import Month, newest_published
from taxi_duration.data.schema import Cab
from taxi_duration.data.tlc import Tlc
from taxi_duration.errors import DataError, InputError, SourceError, TransientSourceError
from taxi_duration.operations.examination import CheckError, split_remedy
from taxi_duration.operations.prefect_checks import name_server_faults
from taxi_duration.settings import TlcSettings, TransferSettings, read_settings

IMPATIENCE = {"connect_timeout": 4, "read_timeout": 4, "retries": {"total_max_attempts": 1}}

REFUSED_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""What S3 and its kin answer to a key or secret that is none; AccessDenied is about rights."""


def check_block(name: str, prefix: str, cab: Cab) -> str:
    """That the block is saved, and its server does not refuse its key and secret."""
    bucket = _load(name)
    fix = f"export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., and then: {_save(name)}"
    found = f"S3Bucket block {name}, bucket {bucket.bucket_name} at {_name_endpoint(bucket)}"
    try:
        _list_names(bucket, prefix, cab)
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound):
        raise CheckError(f"S3Bucket block {name} has no key and secret", fix) from None
    except ClientError as error:
        code = _read_code(error)
        if code in REFUSED_CREDENTIALS:
            raise CheckError(
                f"S3Bucket block {name}: {_name_endpoint(bucket)} refuses its key and secret "
                f"({code})",
                fix,
            ) from None
    except (BotoCoreError, ValueError):
        return f"{found}, which could not be tried"
    return found


def check_bucket(name: str, prefix: str, cab: Cab) -> str:
    """That the bucket answers, may be listed, and holds months."""
    bucket = _load(name)
    place = f"s3://{bucket.bucket_name}/{make_key(bucket, prefix)}"
    with _name_bucket_faults(bucket, name, place):
        names = _list_names(bucket, prefix, cab)
    months = sorted(re.findall(rf"{cab.name}_tripdata_(\d{{4}}-\d{{2}})\.parquet", " ".join(names)))
    if not months:
        example = newest_published(date.today()).file_name(cab.name)
        raise CheckError(
            f"{place} holds no {cab.name} month", f"upload {example} and others to {place}/"
        )
    return f"{place}, {len(months)} {cab.name} months, the newest {months[-1]}"


@contextmanager
def _name_bucket_faults(bucket: S3Bucket, name: str, place: str) -> Iterator[None]:
    try:
        with named_errors(place):
            yield
    except (DataError, SourceError) as error:
        cause = error.__cause__
        code = _read_code(cause) if isinstance(cause, ClientError) else ""
        status = read_status(cause) if isinstance(cause, ClientError) else 0
        endpoint = _name_endpoint(bucket)
        if status == httpx.codes.NOT_FOUND:
            raise CheckError(
                f"{endpoint} has no bucket {bucket.bucket_name}",
                f"make the bucket, or export {BUCKET_VARIABLE}=..., and then: {_save(name)}",
            ) from None
        if status == httpx.codes.FORBIDDEN:
            raise CheckError(
                f"bucket {bucket.bucket_name} may not be listed ({code})",
                f"allow the block's user s3:ListBucket on arn:aws:s3:::{bucket.bucket_name}",
            ) from None
        if not status and isinstance(error, TransientSourceError):
            raise CheckError(
                f"{endpoint} could not be reached ({type(cause).__name__})",
                f"start the S3 server, or export AWS_ENDPOINT_URL=..., and then: {_save(name)}",
            ) from None
        raise


def _load(name: str) -> S3Bucket:
    with name_server_faults():
        try:
            bucket = load_bucket(name)
        except InputError:
            raise CheckError(
                f"S3Bucket block {name} is not saved",
                "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... "
                f"{BUCKET_VARIABLE}=..., and then: {_save(name)}",
            ) from None
    parameters = bucket.credentials.aws_client_parameters
    parameters.config = {**(parameters.config or {}), **IMPATIENCE}
    return bucket


def _list_names(bucket: S3Bucket, prefix: str, cab: Cab) -> list[str]:
    """The keys of the first thousand objects that are called as the cab type's months are."""
    client: Any = bucket.credentials.get_s3_client()
    listed = client.list_objects_v2(
        Bucket=bucket.bucket_name, Prefix=make_key(bucket, prefix, f"{cab.name}_tripdata_")
    )
    return [str(each["Key"]) for each in listed.get("Contents", [])]


def _name_endpoint(bucket: S3Bucket) -> str:
    return bucket.credentials.aws_client_parameters.endpoint_url or "AWS"


def _read_code(error: ClientError) -> str:
    response: dict[str, Any] = error.response
    return str(response.get("Error", {}).get("Code", ""))


def _save(name: str) -> str:
    return f"{find_program('python')} -m taxi_duration create-s3-blocks --name {shlex.quote(name)}"


def check_newest_month(cab: Cab, directory: Path, offline: bool) -> str:
    """That the newest month the calendar expects is published; offline, that it is here."""
    newest = newest_published(date.today())
    needed = (newest.shift(-1), newest)
    absent = [
        month.file_name(cab.name) for month in needed if find_month(directory, cab, month) is None
    ]
    here = "here" if newest.file_name(cab.name) not in absent else "not here yet"
    where = f"{cab.name} {newest} is {here} in {directory}"
    if offline:
        if absent:
            raise CheckError(where, f"place {' and '.join(absent)} in {directory}")
        return where
    limits = read_settings(TransferSettings).model_copy(
        update={"connect_seconds": 4.0, "read_seconds": 4.0, "deadline_seconds": 8.0}
    )
    settings = read_settings(TlcSettings)
    try:
        size = Tlc(cab, newest, settings, limits).ask_size()
    except InputError:
        raise
    except TransientSourceError as error:
        found, _ = split_remedy(error)
        raise CheckError(f"{found}; {where}", _go_offline(cab, directory, absent)) from None
    except SourceError as error:
        found, _ = split_remedy(error)
        raise CheckError(f"{found}; {where}", _take_earlier(cab, directory, newest)) from None
    shown = "" if size is None else f" ({size / 1e6:.1f} MB)"
    return f"{cab.name} {newest} is published{shown} and {here} in {directory}"


def _go_offline(cab: Cab, directory: Path, absent: list[str]) -> str:
    command = f"{_run(cab, directory)} --offline"
    if not absent:
        return f"check the network, or: {command}"
    return (
        f"check the network, or place {' and '.join(absent)} in {directory} and run offline: "
        f"{command}"
    )


def _take_earlier(cab: Cab, directory: Path, newest: Month) -> str:
    earlier = newest.shift(-2)
    return f"{_run(cab, directory)} --year {earlier.year} --month {earlier.month}"


def _run(cab: Cab, directory: Path) -> str:
    command = f"{find_program('python')} orchestrate.py"
    if cab.name != "green":
        command += f" --cab {cab.name}"
    if directory != Path("data"):
        command += f" --data-dir {shlex.quote(str(directory))}"
    return command
