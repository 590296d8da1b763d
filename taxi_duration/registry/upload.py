"""A model directory copied to a bucket: whole, its manifest last, then pointed to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from taxi_duration.data.bucket import Folder, named_errors
from taxi_duration.errors import ModelError
from taxi_duration.files import stage
from taxi_duration.model.directory import FILES, MANIFEST_FILE, verify_model

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""


def upload_model(folder: Folder, directory: Path) -> str:
    """Upload a model directory, then point `latest.json` beside it there.

    As on the disk, the first to write stays: a model that is whole in the bucket, even if it
    differs in its last digits, is only pointed to. Otherwise the manifest is put after the other
    files, so that an interrupted upload is no model, and the pointer after the manifest. Each
    file is sent with its sha256, which S3 compares with the bytes that arrived.

    Args:
        folder: where models are uploaded to.
        directory: as `save_model` returned it, `.../<cab>/<month>-<id>`.

    Returns:
        `s3://<bucket>/<folder>/<cab>/<month>-<id>`.

    Raises:
        ModelError: the directory is not whole.
        TransientSourceError, SourceError: as `locate_month`; also when the server's checksum of
            what arrived is another.
    """
    verify_model(directory)
    above = folder.below(directory.parent.name)
    place = above.below(directory.name)
    with named_errors(place.address):
        manifest = _read_whole_manifest(place, directory)
        if manifest is None:
            for file in FILES:
                place.put(file, (directory / file).read_bytes())
            manifest = (directory / MANIFEST_FILE).read_bytes()
            place.put(MANIFEST_FILE, manifest)
        pointer = {"model": directory.name, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
        above.put(POINTER_FILE, json.dumps(pointer, indent=2).encode() + b"\n")
    return place.address


def _read_whole_manifest(place: Folder, directory: Path) -> bytes | None:
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
