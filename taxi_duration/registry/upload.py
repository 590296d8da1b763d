"""A model directory copied to a bucket: whole, its manifest last, then pointed to."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import ClientError
from prefect_aws import S3Bucket

from taxi_duration.data.bucket import make_key, named_errors, read_chunks, read_status
from taxi_duration.data.transfer import Transfer
from taxi_duration.errors import ModelError, TransientSourceError
from taxi_duration.files import stage
from taxi_duration.model.directory import FILES, MANIFEST_FILE, verify_model
from taxi_duration.settings import TransferSettings, read_settings

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""


def upload_model(bucket: S3Bucket, prefix: str, directory: Path) -> str:
    """Upload a model directory, then point `latest.json` beside it there.

    As on the disk, the first to write stays: a model that is whole in the bucket, even if it
    differs in its last digits, is only pointed to. Otherwise the manifest is put after the other
    files, so that an interrupted upload is no model, and the pointer after the manifest. Each
    file is sent with its sha256, which S3 compares with the bytes that arrived.

    Args:
        directory: as `save_model` returned it, `.../<cab>/<month>-<id>`.

    Returns:
        `s3://<bucket>/<prefix>/<cab>/<month>-<id>`.

    Raises:
        ModelError: the directory is not whole.
        TransientSourceError, SourceError: as `locate_month`; also when the server's checksum of
            what arrived is another.
    """
    verify_model(directory)
    cab, name = directory.parent.name, directory.name
    folder = make_key(bucket, prefix, cab)
    location = f"s3://{bucket.bucket_name}/{folder}/{name}"
    with named_errors(location):
        client = bucket.credentials.get_s3_client()
        above = _Folder(client, bucket.bucket_name, folder)
        place = _Folder(client, bucket.bucket_name, f"{folder}/{name}")
        manifest = _read_whole_manifest(place, directory)
        if manifest is None:
            for file in FILES:
                place.put(file, (directory / file).read_bytes())
            manifest = (directory / MANIFEST_FILE).read_bytes()
            place.put(MANIFEST_FILE, manifest)
        pointer = {"model": name, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
        above.put(POINTER_FILE, json.dumps(pointer, indent=2).encode() + b"\n")
    return location


def _read_whole_manifest(place: _Folder, directory: Path) -> bytes | None:
    """Return the manifest in the bucket, if all files that it names are there and agree."""
    with stage(directory.parent, directory.name) as copy:
        for file in (MANIFEST_FILE, *FILES):
            if not place.get(file, copy / file):
                return None
        try:
            verify_model(copy)
        except ModelError:
            return None
        return (copy / MANIFEST_FILE).read_bytes()


@dataclass(frozen=True)
class _Folder:
    """Exact keys below `prefix` in a bucket."""

    client: Any
    bucket: str
    prefix: str

    def put(self, file: str, content: bytes) -> None:
        """Put a file, its sha256 with it."""
        sha256 = base64.b64encode(hashlib.sha256(content).digest()).decode()
        answer = self.client.put_object(
            **self._locate(file), Body=content, ChecksumAlgorithm="SHA256", ChecksumSHA256=sha256
        )
        # Some servers, such as rclone's, ignore checksums and answer none.
        if answer.get("ChecksumSHA256", sha256) != sha256:
            raise TransientSourceError(
                f"s3://{self.bucket}/{self.prefix}/{file} did not arrive as it was sent",
                "try again",
            )

    def get(self, file: str, target: Path) -> bool:
        """Download a file; return False if it is missing."""
        place, begun = f"s3://{self.bucket}/{self.prefix}", time.monotonic()
        # Named here: `stage` would take the server's errors for the disk's.
        with named_errors(place):
            try:
                found = self.client.get_object(**self._locate(file))
            except ClientError as error:
                if read_status(error) != httpx.codes.NOT_FOUND:
                    raise
                return False
            transfer = Transfer(f"{place}/{file}", read_settings(TransferSettings), begun)
            with closing(found["Body"]) as body:
                transfer.receive(read_chunks(body), found.get("ContentLength"), target)
        return True

    def _locate(self, file: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{file}"}
