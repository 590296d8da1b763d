"""Months and models behind an `S3Bucket` block: exact keys, fetched again when they changed.

The block's client is used with keys built here, not the block's folder methods: those write
outside their target for some keys and succeed on a missing prefix (prefect-aws 0.7.12).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
)
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from taxi_duration.cache import place_month, read_sidecar, verify_month
from taxi_duration.errors import DataError, InputError, SourceError, TransientSourceError
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.store import MANIFEST_FILE
from taxi_duration.trips import Cab

CREATE_BLOCKS = "python -m taxi_duration create-s3-blocks"
DEFAULT_BLOCK = "s3-bucket-block"
BUCKET_VARIABLE = "TAXI_DURATION_S3_BUCKET"


def create_blocks(environment: Mapping[str, str], name: str) -> str:
    """Save a credentials block and an `S3Bucket` block from the environment, over any before.

    Args:
        environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket under
            `BUCKET_VARIABLE`; optionally AWS_SESSION_TOKEN, AWS_DEFAULT_REGION, and
            AWS_ENDPOINT_URL for a server other than AWS.
        name: of the bucket block; the credentials block is `<name>-credentials`.

    Returns:
        The bucket's name.

    Raises:
        InputError: a variable is not set, or the name is no block's name.
    """
    required = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", BUCKET_VARIABLE)
    absent = [variable for variable in required if not environment.get(variable)]
    if absent:
        raise InputError(f"{', '.join(absent)} not set: export it and run {CREATE_BLOCKS} again.")
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise InputError(
            f"block name {name!r} is not one Prefect takes: use lowercase letters, digits and "
            "dashes."
        )
    token = environment.get("AWS_SESSION_TOKEN")
    credentials = AwsCredentials(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(environment["AWS_SECRET_ACCESS_KEY"]),
        aws_session_token=token or None,
        region_name=environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        aws_client_parameters=AwsClientParameters(
            endpoint_url=environment.get("AWS_ENDPOINT_URL") or None
        ),
    )
    credentials.save(f"{name}-credentials", overwrite=True)
    bucket = S3Bucket(bucket_name=environment[BUCKET_VARIABLE], credentials=credentials)
    bucket.save(name, overwrite=True)
    return bucket.bucket_name


def load_bucket(name: str) -> S3Bucket:
    """Load the saved `S3Bucket` block of that name.

    Raises:
        InputError: there is none; Prefect looks blocks up by type and name.
    """
    try:
        return cast(S3Bucket, S3Bucket.load(name))
    except (ValueError, ObjectNotFound) as error:
        raise InputError(
            f"S3Bucket block {name!r} is not saved on this server (a block of another type by that "
            f"name does not count): save one with {CREATE_BLOCKS} --name {name}."
        ) from error


def fetch_month(
    bucket: S3Bucket, prefix: str, cab: Cab, month: Month, directory: Path
) -> MonthFile:
    """Bring a month to `directory`, unless what is there is what the bucket holds.

    The bucket's object and the local copy are the same while source, ETag and size agree.

    Raises:
        DataError: the object is missing, or is no month of this cab type.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused.
    """
    key = _full_key(bucket, f"{prefix}/{month.file_name(cab.name)}")
    source = f"s3://{bucket.bucket_name}/{key}"
    path = directory / month.file_name(cab.name)
    with _named_errors(source):
        client = bucket.credentials.get_s3_client()
        try:
            head = client.head_object(Bucket=bucket.bucket_name, Key=key)
        except ClientError as error:
            if _read_status(error) == 404:
                # S3 answers the same for a missing bucket; this raises if that is the matter.
                client.head_bucket(Bucket=bucket.bucket_name)
            raise
        etag, size = head["ETag"], head["ContentLength"]
        kept = read_sidecar(path) if path.is_file() else None
        if kept is None or (kept.source, kept.etag, kept.size) != (source, etag, size):

            def write(target: Path) -> None:
                client.download_file(bucket.bucket_name, key, str(target))
                if target.stat().st_size != size:
                    raise TransientSourceError(
                        f"{source} sent {target.stat().st_size:,} bytes where {size:,} were "
                        "listed; try again."
                    )

            place_month(path, cab, source, etag, write)
    return verify_month(path, cab, month)


def upload_model(bucket: S3Bucket, prefix: str, directory: Path) -> str:
    """Upload a model directory's files, the manifest last.

    Args:
        directory: as `save_model` returned it, `.../<cab>/<month>-<id>`.

    Returns:
        `s3://<bucket>/<prefix>/<cab>/<month>-<id>`.

    Raises:
        TransientSourceError, SourceError: as `fetch_month`.
    """
    folder = _full_key(bucket, f"{prefix}/{directory.parent.name}/{directory.name}")
    location = f"s3://{bucket.bucket_name}/{folder}"
    with _named_errors(location):
        client = bucket.credentials.get_s3_client()
        for path in sorted(directory.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
            with path.open("rb") as file:
                key = f"{folder}/{path.name}"
                client.put_object(Bucket=bucket.bucket_name, Key=key, Body=file)
    return location


def _full_key(bucket: S3Bucket, key: str) -> str:
    folder = bucket.bucket_folder.strip("/")
    return f"{folder}/{key}" if folder else key


@contextmanager
def _named_errors(location: str) -> Iterator[None]:
    """Turn what boto raises into this package's errors, each with its remedy."""
    try:
        yield
    except ClientError as error:
        raise _name_client_error(location, error) from error
    except (HTTPClientError, EndpointConnectionError) as error:
        raise TransientSourceError(
            f"{location} could not be reached ({error}): check the block's endpoint and network."
        ) from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"{location} cannot be asked for ({reason}): check the block's bucket, endpoint and "
            "credentials."
        ) from error


def _name_client_error(location: str, error: ClientError) -> Exception:
    response: Mapping[str, Any] = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    status = _read_status(error)
    if code == "NoSuchBucket" or (status == 404 and error.operation_name == "HeadBucket"):
        return SourceError(f"{location}: the bucket does not exist; correct the block.")
    if status == 404:
        return DataError(f"{location} does not exist: upload it, or correct the prefix.")
    if status == 403:
        return SourceError(
            f"{location}: access denied ({code}); check the block's key, secret and policy."
        )
    if status in (408, 429) or status >= 500:
        return TransientSourceError(f"{location}: the server answered {status} ({code}).")
    return SourceError(f"{location}: the server answered {status} ({error}).")


def _read_status(error: ClientError) -> int:
    response: Mapping[str, Any] = error.response
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
