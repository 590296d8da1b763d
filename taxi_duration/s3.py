"""Months and models behind an `S3Bucket` block: exact keys, fetched again when they changed.

The block's client is used with keys built here, not the block's folder methods: those write
outside their target for some keys and succeed on a missing prefix (prefect-aws 0.7.12).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from taxi_duration.cache import Delivery, Sidecar, obtain_month
from taxi_duration.contract import Cab
from taxi_duration.disk import hash_file
from taxi_duration.errors import DataError, InputError, SourceError, TransientSourceError
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.options import check_key_prefix
from taxi_duration.settings import TransferSettings, read_settings
from taxi_duration.store import MANIFEST_FILE
from taxi_duration.transfer import Progress, Transfer

CREATE_BLOCKS = "python -m taxi_duration create-s3-blocks"
DEFAULT_BLOCK = "s3-bucket-block"
BUCKET_VARIABLE = "TAXI_DURATION_S3_BUCKET"

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""

CHUNK_BYTES = 1 << 16
TRANSIENT_CODES = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout"})

CLIENT_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
"""boto3's own minutes and five attempts would multiply with the task's retries."""


def check_block(environment: Mapping[str, str], name: str) -> None:
    """Refuse what no block can be made of, before any server is asked.

    Raises:
        InputError: a required variable is not set, or the name is no block's name.
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
        InputError: as `check_block`.
    """
    check_block(environment, name)
    token = environment.get("AWS_SESSION_TOKEN")
    credentials = AwsCredentials(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(environment["AWS_SECRET_ACCESS_KEY"]),
        aws_session_token=token or None,
        region_name=environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        aws_client_parameters=AwsClientParameters(
            endpoint_url=environment.get("AWS_ENDPOINT_URL") or None, config=CLIENT_CONFIG
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


def locate_month(
    bucket: S3Bucket,
    prefix: str,
    cab: Cab,
    month: Month,
    directory: Path,
    report: Progress | None = None,
) -> MonthFile:
    """Have a month in `directory`: a file of the user's, or the bucket's as it is now.

    Raises:
        DataError: the object is missing, or is no month of this cab type.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused.
        StorageError: the disk did not take it.
    """
    key = _make_key(bucket, prefix, month.file_name(cab.name))
    source = BucketObject(bucket, key, read_settings(TransferSettings), report)
    return obtain_month(directory, cab, month, source)


@dataclass(frozen=True)
class BucketObject:
    """A month's file in a bucket, under its exact key."""

    bucket: S3Bucket
    key: str
    settings: TransferSettings
    report: Progress | None = None

    @property
    def address(self) -> str:
        return f"s3://{self.bucket.bucket_name}/{self.key}"

    def fetch(self, known: Sidecar | None, target: Path) -> Delivery | None:
        """Download the object to `target`, unless its ETag is still the known one.

        Raises:
            DataError: the object is missing.
            TransientSourceError, SourceError: the server failed or refused.
        """
        begun = time.monotonic()
        place = {"Bucket": self.bucket.bucket_name, "Key": self.key}
        unless = {"IfNoneMatch": known.etag} if known and known.etag else {}
        with _named_errors(self.address):
            client = self.bucket.credentials.get_s3_client()
            try:
                found = client.get_object(**place, **unless)
            except ClientError as error:
                if known is not None and _read_status(error) == httpx.codes.NOT_MODIFIED:
                    return None
                raise
            with closing(found["Body"]) as body:
                etag = found.get("ETag", "")
                if unless and known and etag == known.etag:
                    return None  # a server that knows no conditions
                transfer = Transfer(self.address, self.settings, begun, self.report)
                promised = found.get("ContentLength")
                sha256 = transfer.receive(body.iter_chunks(CHUNK_BYTES), promised, target)
        modified = found["LastModified"].isoformat() if "LastModified" in found else ""
        return Delivery(etag, modified, target.stat().st_size, sha256)


def upload_model(bucket: S3Bucket, prefix: str, directory: Path) -> str:
    """Upload a model directory and read it back; then point `latest.json` beside it there.

    The manifest is the last of the directory's files, so that a model cut off in uploading is
    none; the pointer comes after all of them were found in the bucket as they are here.

    Args:
        directory: as `save_model` returned it, `.../<cab>/<month>-<id>`.

    Returns:
        `s3://<bucket>/<prefix>/<cab>/<month>-<id>`.

    Raises:
        TransientSourceError, SourceError: as `locate_month`; also when what was uploaded does not
            read back the same.
    """
    cab, name = directory.parent.name, directory.name
    folder = _make_key(bucket, prefix, cab)
    location = f"s3://{bucket.bucket_name}/{folder}/{name}"
    with _named_errors(location):
        client = bucket.credentials.get_s3_client()
        paths = sorted(directory.iterdir())
        for path in sorted(paths, key=lambda path: path.name == MANIFEST_FILE):
            _put(client, bucket.bucket_name, f"{folder}/{name}/{path.name}", path.read_bytes())
        pointer = {"model": name, "manifest_sha256": hash_file(directory / MANIFEST_FILE)}
        content = json.dumps(pointer, indent=2).encode() + b"\n"
        _put(client, bucket.bucket_name, f"{folder}/{POINTER_FILE}", content)
    return location


def _put(client: Any, bucket: str, key: str, content: bytes) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=content)
    try:
        with closing(client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            found = body.read()
    except ClientError as error:
        if _read_status(error) != httpx.codes.NOT_FOUND:
            raise
        found = None
    if found != content:
        raise TransientSourceError(
            f"s3://{bucket}/{key} does not read back as it was uploaded: another run is "
            "writing there, or the server loses bytes; try again."
        )


def _make_key(bucket: S3Bucket, *parts: str) -> str:
    """The exact key below the folder that the block may have.

    Raises:
        InputError: the folder could lead elsewhere.
    """
    folder = bucket.bucket_folder.strip("/")
    return "/".join([check_key_prefix(folder, "bucket_folder"), *parts] if folder else parts)


@contextmanager
def _named_errors(location: str) -> Iterator[None]:
    """Turn what boto raises into this package's errors, each with its remedy."""
    try:
        yield
    except ClientError as error:
        raise _name_client_error(location, error) from error
    except (
        HTTPClientError, EndpointConnectionError, IncompleteReadError, FlexibleChecksumError,
    ) as error:  # fmt: skip
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
    if code == "NoSuchBucket":
        return SourceError(f"{location}: the bucket does not exist; correct the block.")
    if status == 404:
        return DataError(f"{location} does not exist: upload it, or correct the prefix.")
    if status == 403:
        return SourceError(
            f"{location}: access denied ({code}); check the block's key, secret and policy. (S3 "
            "denies what is missing, too, to those who may not list the bucket.)"
        )
    if status in (408, 429) or status >= 500 or code in TRANSIENT_CODES:
        return TransientSourceError(
            f"{location}: the server answered {status} ({code}): it is busy or failing; try again "
            "later."
        )
    return SourceError(f"{location}: the server answered {status} ({error}).")


def _read_status(error: ClientError) -> int:
    response: Mapping[str, Any] = error.response
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
