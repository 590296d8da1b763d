"""A model directory copied to a bucket: whole, its manifest last, then pointed to."""

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

from taxi_duration.data.bucket import make_key, named_errors, read_status
from taxi_duration.data.transfer import Transfer, read_as_it_comes
from taxi_duration.errors import ModelError, TransientSourceError
from taxi_duration.files import stage
from taxi_duration.model.directory import FILES, MANIFEST_FILE, verify_model
from taxi_duration.settings import TransferSettings, read_settings

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""


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
