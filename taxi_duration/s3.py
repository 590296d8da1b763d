"""Months and models behind an `S3Bucket` block: exact keys, fetched again when they changed.

The block's client is used with keys built here, not the block's folder methods: those write
outside their target for some keys and succeed on a missing prefix (prefect-aws 0.7.12).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from botocore.exceptions import ClientError
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from taxi_duration.cache import Delivery, Sidecar, obtain_month
from taxi_duration.contract import Cab
from taxi_duration.disk import stage
from taxi_duration.errors import InputError, ModelError, TransientSourceError, hide_credentials
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.options import check_key_prefix
from taxi_duration.s3_errors import named_errors, read_status
from taxi_duration.settings import TransferSettings, read_settings
from taxi_duration.store import FILES, MANIFEST_FILE, verify_model
from taxi_duration.transfer import Progress, Transfer, read_as_it_comes

CREATE_BLOCKS = "python -m taxi_duration create-s3-blocks"
DEFAULT_BLOCK = "s3-bucket-block"
BUCKET_VARIABLE = "TAXI_DURATION_S3_BUCKET"

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""


ENDPOINT = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/\S*)?")
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3's rules for a new bucket, all but its reserved words."""

CLIENT_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
"""boto3's own minutes and five attempts would multiply with the task's retries."""


def check_block(environment: Mapping[str, str], name: str) -> None:
    """Refuse what no block can be made of, before any server is asked.

    Raises:
        InputError: a required variable is not set, a variable's value cannot be one, or the name
            is no block's name.
    """
    required = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", BUCKET_VARIABLE)
    absent = [variable for variable in required if not environment.get(variable)]
    if absent:
        raise InputError(f"{', '.join(absent)} not set: export it and run {CREATE_BLOCKS} again.")
    bucket, endpoint = environment[BUCKET_VARIABLE], environment.get("AWS_ENDPOINT_URL")
    if not BUCKET_NAME.fullmatch(bucket):
        raise InputError(
            f"{BUCKET_VARIABLE} is {bucket!r}, which is no bucket's name: give 3 to 63 lowercase "
            "letters, digits, dots and dashes, the first and the last a letter or a digit."
        )
    if endpoint and not ENDPOINT.fullmatch(endpoint):
        raise InputError(
            f"AWS_ENDPOINT_URL is {hide_credentials(endpoint)!r}: give http:// or https:// and a "
            "host, such as https://s3.example.org, or unset it for AWS."
        )
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
        with named_errors(self.address):
            client = self.bucket.credentials.get_s3_client()
            try:
                found = client.get_object(**place, **unless)
            except ClientError as error:
                if known is not None and read_status(error) == httpx.codes.NOT_MODIFIED:
                    return None
                raise
            with closing(found["Body"]) as body:
                etag = found.get("ETag", "")
                if unless and known and etag == known.etag:
                    return None  # a server that knows no conditions
                transfer = Transfer(self.address, self.settings, begun, self.report)
                promised = found.get("ContentLength")
                sha256 = transfer.receive(read_as_it_comes(body), promised, target)
        modified = found["LastModified"].isoformat() if "LastModified" in found else ""
        return Delivery(etag, modified, target.stat().st_size, sha256)


def upload_model(bucket: S3Bucket, prefix: str, directory: Path) -> str:
    """Upload a model directory and read it back; then point `latest.json` beside it there.

    As on the disk, the first to write stays: a model that is whole in the bucket, even if it
    differs in its last digits, is only pointed to. Else the manifest is put last, so that a model
    cut off in uploading is none, and the pointer after all were found to be as they are here.

    Args:
        directory: as `save_model` returned it, `.../<cab>/<month>-<id>`.

    Returns:
        `s3://<bucket>/<prefix>/<cab>/<month>-<id>`.

    Raises:
        ModelError: the directory is not whole.
        TransientSourceError, SourceError: as `locate_month`; also when what was uploaded does not
            read back the same.
    """
    verify_model(directory)
    settings = read_settings(TransferSettings)
    cab, name = directory.parent.name, directory.name
    folder = _make_key(bucket, prefix, cab)
    location = f"s3://{bucket.bucket_name}/{folder}/{name}"
    with named_errors(location):
        client = bucket.credentials.get_s3_client()
        above = _Folder(client, bucket.bucket_name, folder, settings)
        place = _Folder(client, bucket.bucket_name, f"{folder}/{name}", settings)
        manifest = _read_whole_manifest(place, directory)
        if manifest is None:
            contents = {file: (directory / file).read_bytes() for file in (*FILES, MANIFEST_FILE)}
            place.put(contents)
            manifest = contents[MANIFEST_FILE]
        pointer = {"model": name, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
        above.put({POINTER_FILE: json.dumps(pointer, indent=2).encode() + b"\n"})
    return location


def _read_whole_manifest(place: _Folder, directory: Path) -> bytes | None:
    """The manifest in the bucket, if all that it names is there with it and agrees."""
    found: dict[str, bytes] = {}
    for file in (MANIFEST_FILE, *FILES):
        content = place.get(file)
        if content is None:
            return None
        found[file] = content
    with stage(directory.parent, directory.name) as copy:
        for file, content in found.items():
            (copy / file).write_bytes(content)
        try:
            verify_model(copy)
        except ModelError:
            return None
    return found[MANIFEST_FILE]


@dataclass(frozen=True)
class _Folder:
    """Exact keys below `prefix` in a bucket."""

    client: Any
    bucket: str
    prefix: str
    settings: TransferSettings

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Put files one after another; then read all of them back."""
        for file, content in contents.items():
            self.client.put_object(**self._locate(file), Body=content)
        for file, content in contents.items():
            if self.get(file) != content:
                raise TransientSourceError(
                    f"s3://{self.bucket}/{self.prefix}/{file} does not read back as it was "
                    "uploaded: another run is writing there, or the server loses bytes; try again."
                )

    def get(self, file: str) -> bytes | None:
        address, begun = f"s3://{self.bucket}/{self.prefix}/{file}", time.monotonic()
        try:
            found = self.client.get_object(**self._locate(file))
        except ClientError as error:
            if read_status(error) != httpx.codes.NOT_FOUND:
                raise
            return None
        with closing(found["Body"]) as body:
            transfer = Transfer(address, self.settings, begun)
            return b"".join(transfer.watch(read_as_it_comes(body)))

    def _locate(self, file: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{file}"}


def _make_key(bucket: S3Bucket, *parts: str) -> str:
    """The exact key below the folder that the block may have.

    Raises:
        InputError: the folder could lead elsewhere.
    """
    folder = bucket.bucket_folder.strip("/")
    return "/".join([check_key_prefix(folder, "bucket_folder"), *parts] if folder else parts)
