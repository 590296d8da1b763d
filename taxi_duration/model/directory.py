"""Model directories: written whole, manifest last; loaded only when every hash agrees.

models/<cab>/<last training month>-<id>/
    model.skops      feature set, alpha and the fitted scikit-learn pipeline; no pickle
    report.json      the training run's report
    report.html      the report as a page, the run card
    README.md        the model card
    manifest.json    the sha256 of each; a directory without it is not a model
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from taxi_duration.errors import ModelError, describe
from taxi_duration.files import flush_to_disk, stage, sweep
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.model import DurationModel

MODEL_FILE, REPORT_FILE, MANIFEST_FILE = "model.skops", "report.json", "manifest.json"
PAGE_FILE, CARD_FILE = "report.html", "README.md"
NEEDED = (MODEL_FILE, REPORT_FILE)
"""What a model is used from; the others are for people."""
FILES = (*NEEDED, PAGE_FILE, CARD_FILE)
"""What a manifest names; any other file in the directory is never read."""
MODEL_FORMAT = 4

RESTORE = "restore it, or train the model again"


def dump_model(model: DurationModel) -> bytes:
    """Return a model's file, which has the same bytes whenever and wherever the model is written.

    skops numbers what it finds, and names its files, by addresses in memory; and it dates them.
    """
    import skops.io  # here, since it takes most of a second

    numbers, names = count(1), dict[str, str]()

    def renumber(node: dict[str, Any]) -> dict[str, Any]:
        if "__id__" in node:
            # Each its own: whether equal strings are one object differs between processes.
            node["__id__"] = next(numbers)
            if "file" in node:
                suffix = Path(node["file"]).suffix
                node["file"] = names.setdefault(node["file"], f"{len(names)}{suffix}")
        return node

    stable = io.BytesIO()
    with (
        ZipFile(io.BytesIO(skops.io.dumps(_to_state(model)))) as dumped,
        ZipFile(stable, "w") as written,
    ):
        schema = json.loads(dumped.read("schema.json"), object_hook=renumber)
        contents = {new: dumped.read(old) for old, new in names.items()}
        contents["schema.json"] = json.dumps(schema).encode()
        for name, content in contents.items():
            written.writestr(ZipInfo(name), content, ZIP_DEFLATED)  # dated 1980
    return stable.getvalue()


def read_model(content: bytes) -> DurationModel:
    """Return the model of such a file, of which nothing is run: it holds known types alone."""
    import skops.io

    return _from_state(skops.io.loads(content, trusted=[]))


def _to_state(model: DurationModel) -> dict[str, Any]:
    features = model.features
    return {
        "features": {
            "name": features.name,
            "terms": list(features.terms),
            "alphas": list(features.alphas),
            "bounds": list(features.bounds) if features.bounds else None,
        },
        "alpha": model.alpha,
        "pipeline": model.pipeline,
    }


def _from_state(state: dict[str, Any]) -> DurationModel:
    features = state["features"]
    bounds = features["bounds"]
    feature_set = FeatureSet(
        features["name"],
        tuple(features["terms"]),
        tuple(features["alphas"]),
        (bounds[0], bounds[1]) if bounds else None,
    )
    return DurationModel.from_pipeline(feature_set, state["alpha"], state["pipeline"])


def save_model(
    models_directory: Path, model_id: str, model: DurationModel, files: Mapping[str, bytes]
) -> Path:
    """Write a model and what is said of it to their directory, or find them there already.

    The first model to be written stays: what is there whole came of the same training, even if its
    figures differ in their last digits. What is said of the very same bytes may change, such as
    when a validation month was published anew, and what is said now takes its place.

    Args:
        model_id: `<cab>/<last training month>-<id>`, from `identify_training`.
        files: the contents of report.json, report.html and README.md.

    Returns:
        `models_directory/<model_id>`.

    Raises:
        StorageError: the disk did not take the directory.
    """
    final = models_directory / model_id
    contents = {MODEL_FILE: dump_model(model), **files}
    if _is_settled(final, contents):
        sweep(final.parent)
        return final
    with stage(final.parent, final.name) as scratch:
        written = Path(scratch, final.name)
        written.mkdir()
        for name in FILES:
            (written / name).write_bytes(contents[name])
        hashes = {name: hashlib.sha256(contents[name]).hexdigest() for name in FILES}
        manifest = {"format": MODEL_FORMAT, "sha256": hashes}
        (written / MANIFEST_FILE).write_bytes(dump_json(manifest))
        for file in [*written.iterdir(), written]:
            flush_to_disk(file)
        if not _is_settled(final, contents):
            with suppress(FileNotFoundError):
                replaced = final.rename(Path(scratch, "replaced"))
                for other in [*replaced.iterdir()]:  # files of somebody's own
                    if other.name not in (*FILES, MANIFEST_FILE):
                        other.rename(written / other.name)
        try:
            written.rename(final)
        except OSError:
            # Another process saved the same run meanwhile.
            if not is_whole(final):
                raise
        flush_to_disk(final.parent)
    return final


def _is_settled(directory: Path, contents: Mapping[str, bytes]) -> bool:
    """Return whether there is a whole model that these contents do not replace."""
    try:
        saved = _read_verified(directory, FILES)
    except ModelError:
        return False
    return saved == contents or saved[MODEL_FILE] != contents[MODEL_FILE]


def load_model(directory: str | Path) -> DurationModel:
    """Load a model that `save_model` wrote.

    Nothing in the directory is executed: the file holds numbers, names and scikit-learn types.

    Raises:
        ModelError: the directory or a file of it is missing, altered, or of another format.
    """
    content = _read_verified(Path(directory), NEEDED)[MODEL_FILE]
    try:
        return read_model(content)
    except Exception as error:  # skops raises many kinds; each means the same to the caller
        raise ModelError(
            f"{Path(directory, MODEL_FILE)} cannot be loaded ({describe(error)}), and nothing of "
            "it was run",
            RESTORE,
        ) from error


def read_file(directory: str | Path, name: str) -> bytes:
    """Return the bytes of a file of a model directory, verified against the manifest.

    Raises:
        ModelError: as `load_model`.
    """
    return _read_verified(Path(directory), list(dict.fromkeys([*NEEDED, name])))[name]


def verify_model(directory: Path) -> None:
    """Check every file of a model directory against its manifest.

    Raises:
        ModelError: the manifest is missing, of another format, or names other files than a
            model has; or a file does not match it, or is a link that leads elsewhere.
    """
    _read_verified(directory, FILES)


def _read_verified(directory: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the files' bytes, the very ones that were hashed: what changes later is not seen."""
    hashes = _read_manifest(directory)
    contents = {}
    for name in names:
        try:
            contents[name] = _read_inside(directory, name)
        except OSError as error:
            raise ModelError(
                f"{directory / name} is missing or cannot be read ({describe(error)})", RESTORE
            ) from error
        if hashlib.sha256(contents[name]).hexdigest() != hashes[name]:
            raise ModelError(
                f"{directory / name} is not what was written, since its sha256 is not the "
                "manifest's",
                RESTORE,
            )
    return contents


def _read_manifest(directory: Path) -> dict[str, str]:
    path = directory / MANIFEST_FILE
    try:
        manifest = json.loads(_read_inside(directory, MANIFEST_FILE))
        layout, hashes = manifest["format"], manifest["sha256"]
        named = sorted(hashes)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{directory} is not a model directory ({MANIFEST_FILE}: {describe(error)})",
            "give one that a training run wrote, such as models/green/2023-01-0123abcd",
        ) from error
    if layout != MODEL_FORMAT:
        raise ModelError(
            f"{path} has format {layout!r}, and this version reads {MODEL_FORMAT}",
            "train the model again",
        )
    if not isinstance(hashes, dict) or named != sorted(FILES):
        raise ModelError(
            f"{path} names {', '.join(map(str, named)) or 'nothing'} where a model has "
            f"{', '.join(FILES)}, which is not what was written",
            RESTORE,
        )
    return hashes


def _read_inside(directory: Path, name: str) -> bytes:
    path = directory / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} is no file")
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ModelError(
            f"{path} is a link to {path.resolve()}, outside the model directory",
            "put the file itself there, or train the model again",
        )
    return path.read_bytes()


def is_whole(directory: Path) -> bool:
    """Return whether there is a model that `verify_model` finds nothing wrong with."""
    try:
        verify_model(directory)
    except ModelError:
        return False
    return True


def dump_json(content: object) -> bytes:
    """Return JSON as people read it; NaN is refused, since no reader of JSON need accept it."""
    return f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode()
