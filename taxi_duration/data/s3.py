"""Months and models behind an `S3Bucket` block: exact keys, fetched again when they changed.

The block's client is used with keys built here, not the block's folder methods: those write
outside their target for some keys and succeed on a missing prefix (prefect-aws 0.7.12).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import ClientError
from prefect_aws import S3Bucket

from taxi_duration.data.cache import Delivery, Sidecar, obtain_month
from taxi_duration.data.contract import Cab
from taxi_duration.data.month import Month
from taxi_duration.data.month_file import MonthFile
from taxi_duration.data.s3_block import load_bucket
from taxi_duration.data.s3_errors import named_errors, read_status
from taxi_duration.data.transfer import Progress, Transfer, read_as_it_comes
from taxi_duration.errors import ModelError, TransientSourceError
from taxi_duration.files import stage
from taxi_duration.flows.options import check_key_prefix
from taxi_duration.model.store import FILES, MANIFEST_FILE, verify_model
from taxi_duration.settings import TransferSettings, read_settings

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""


@dataclass(frozen=True)
class BucketMonths:
    """Months in a bucket, kept locally once fetched; see `locate_month`.

    It bears the block's name, not its secrets: another process loads the block itself.
    """

    block: str
    prefix: str
    cab: Cab
    directory: Path
    fresh: bool = False

    def __call__(self, month: Month, report: Progress | None = None) -> MonthFile:
        bucket = load_bucket(self.block)
        return locate_month(
            bucket, self.prefix, self.cab, month, self.directory, report, fresh=self.fresh
        )


def locate_month(
    bucket: S3Bucket,
    prefix: str,
    cab: Cab,
    month: Month,
    directory: Path,
    report: Progress | None = None,
    *,
    fresh: bool = False,
) -> MonthFile:
    """Have a month in `directory`: a file of the user's, or the bucket's as it is now.

    Args:
        fresh: as in `obtain_month`.

    Raises:
        DataError: the object is missing, or is no month of this cab type.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused.
        StorageError: the disk did not take it.
    """
    key = make_key(bucket, prefix, month.file_name(cab.name))
    source = BucketObject(bucket, key, read_settings(TransferSettings), report)
    return obtain_month(directory, cab, month, source, fresh=fresh)


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
    folder = make_key(bucket, prefix, cab)
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


def make_key(bucket: S3Bucket, *parts: str) -> str:
    """The exact key below the folder that the block may have.

    Raises:
        InputError: the folder could lead elsewhere.
    """
    folder = bucket.bucket_folder.strip("/")
    return "/".join([check_key_prefix(folder, "bucket_folder"), *parts] if folder else parts)
