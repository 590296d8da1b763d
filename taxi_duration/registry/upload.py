"""A model directory copied to a bucket: whole, its manifest last, then pointed to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from taxi_duration.data.bucket import Folder, named_errors
from taxi_duration.errors import ModelError
from taxi_duration.files import stage
from taxi_duration.model.directory import FILES, MANIFEST_FILE, MODEL_FILE, dump_json, verify_model

POINTER_FILE = "latest.json"
"""Names the model of a cab type that was uploaded last, and its manifest's sha256."""


def upload_model(folder: Folder, directory: Path) -> str:
    """Upload a model directory, then point `latest.json` beside it there.

    As on the disk, the first model to be written stays: another one that is whole in the bucket,
    even if it differs only in its last digits, is only pointed to. Of the very same model.skops
    what is said of it here takes the place of what is said there. The manifest is put after the
    other files, so that an interrupted upload is no model, and the pointer after the manifest.
    Each file is sent with its sha256, which S3 compares with the bytes that arrived.

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
        ours = (directory / MANIFEST_FILE).read_bytes()
        manifest = _read_whole_manifest(place, directory)
        here, there = (json.loads(each)["sha256"] if each else {} for each in (ours, manifest))
        if manifest is None or here[MODEL_FILE] == there[MODEL_FILE]:
            changed = [file for file in FILES if here[file] != there.get(file)]
            for file in changed:
                place.put(file, (directory / file).read_bytes())
            if changed:
                place.put(MANIFEST_FILE, ours)
            manifest = ours
        pointer = {"model": directory.name, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
        above.put(POINTER_FILE, dump_json(pointer))
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
