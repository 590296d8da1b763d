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

from taxi_duration.errors import ModelError
from taxi_duration.evaluation.report import Report, check_finite, dump_report, read_report
from taxi_duration.files import flush_to_disk, hash_file, stage, sweep
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.model import DurationModel
from taxi_duration.reports.render import render_html, render_model_card
from taxi_duration.version import identify_code


def dump_model(model: DurationModel) -> bytes:
    """A model's file, which has the same bytes whenever and wherever the model is written.

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
    """The model of such a file; nothing in it is run: it holds numbers, names and known types."""
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


MODEL_FILE, REPORT_FILE, MANIFEST_FILE = "model.skops", "report.json", "manifest.json"
PAGE_FILE, CARD_FILE = "report.html", "README.md"
NEEDED = (MODEL_FILE, REPORT_FILE)
"""What a model is used from; the others are for people."""
FILES = (*NEEDED, PAGE_FILE, CARD_FILE)
"""What a manifest names; any other file in the directory is never read."""
MODEL_FORMAT = 3

TRAINING_CODE = "taxi_duration.model.training"
"""The module that trains: what it imports is the code that a model depends on."""


def identify_model(report: Report | Mapping[str, Any], features: FeatureSet) -> str:
    """The identity of a run's model, `<cab>/<last training month>-<id>`.

    The id follows from what a run was given, not from what came out. Equal inputs, parameters,
    code and champions to beat give equal ids, so that a repeated run finds its own model again.

    Args:
        report: the run's, or as much of it as `outline_report` gives; `gate` is what it was judged
            by, if it was.
    """
    identity = {
        "cab": report["cab"],
        "features": [features.name, features.terms, features.bounds],
        "alphas": report["alphas"],
        "months": [*report["train"]["months"], report["validation"]["month"]],
        "inputs": report["inputs"],
        "thresholds": report.get("thresholds"),
        "gate": _identify_gate(report.get("gate")),
        "versions": report["versions"],
        "code": identify_code(TRAINING_CODE),
    }
    content = json.dumps(identity, sort_keys=True, default=vars)
    run_id = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{report['cab']}/{report['train']['months'][-1]}-{run_id}"


def identify_training(report: Report) -> str:
    """What a training is whoever it is judged against and whatever code it is made by."""
    training = {
        "cab": report["cab"],
        "features": report["features"],
        "alphas": report["alphas"],
        "months": report["train"]["months"],
        "inputs": report["inputs"],
    }
    return hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()[:16]


def _identify_gate(gate: Mapping[str, Any] | None) -> list[Any] | None:
    if gate is None:
        return None
    against = gate["champion"] and gate["champion"]["model_id"]
    return [gate["settings"], against, gate["unavailable"] is not None]


def locate_model(
    models_directory: Path, report: Report | Mapping[str, Any], features: FeatureSet
) -> Path:
    """Where a run's model is, or will be; Args as `identify_model`."""
    return models_directory / identify_model(report, features)


def save_model(models_directory: Path, model: DurationModel, report: Report) -> Path:
    """Write a model and its report to their directory, or find them there already.

    The first to write stays: what is there whole came of the same inputs, parameters and code,
    even if its figures differ in their last digits.

    Returns:
        `models_directory/<cab>/<last training month>-<id>`.

    Raises:
        ModelError: a figure of the report is not finite.
        StorageError: the disk did not take the directory.
    """
    check_finite(report)
    final = models_directory / report.model_id
    if is_whole(final):
        sweep(final.parent)
        return final
    with stage(final.parent, final.name) as scratch:
        written = Path(scratch, final.name)
        written.mkdir()
        (written / MODEL_FILE).write_bytes(dump_model(model))
        (written / REPORT_FILE).write_bytes(dump_report(report))
        _write_cards(written)
        hashes = {file: hash_file(written / file) for file in FILES}
        write_json(written / MANIFEST_FILE, {"format": MODEL_FORMAT, "sha256": hashes})
        for file in [*written.iterdir(), written]:
            flush_to_disk(file)
        if not is_whole(final):
            with suppress(FileNotFoundError):
                damaged = final.rename(Path(scratch, "damaged"))
                for other in [*damaged.iterdir()]:  # files of somebody's own
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


def _write_cards(directory: Path) -> None:
    """Say what the report there says, for people, just as it reads back."""
    report = read_report((directory / REPORT_FILE).read_bytes(), str(directory / REPORT_FILE))
    for file, render in ((PAGE_FILE, render_html), (CARD_FILE, render_model_card)):
        (directory / file).write_bytes(render(report).encode())


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
            f"{Path(directory, MODEL_FILE)} cannot be loaded: {error}. Nothing of it was run; "
            "restore it or train the model again."
        ) from error


def load_report(directory: str | Path) -> Report:
    """Load the report of a model directory, its hash verified.

    Raises:
        ModelError: as `load_model`.
    """
    path = Path(directory, REPORT_FILE)
    content = _read_verified(Path(directory), NEEDED)[REPORT_FILE]
    return read_report(content, str(path))


def verify_model(directory: Path) -> None:
    """Hold every file of a model directory against its manifest.

    Raises:
        ModelError: the manifest is missing, of another format, or names other files than a
            model has; or a file does not match it, or is a link that leads elsewhere.
    """
    _read_verified(directory, FILES)


def _read_verified(directory: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The files' bytes, the very ones that were hashed: what changes later is not seen."""
    hashes = _read_manifest(directory)
    contents = {}
    for name in names:
        try:
            contents[name] = _read_inside(directory, name)
        except OSError as error:
            raise ModelError(
                f"{directory / name} is missing or cannot be read ({error.strerror or error}): "
                "restore it or train the model again."
            ) from error
        if hashlib.sha256(contents[name]).hexdigest() != hashes[name]:
            raise ModelError(
                f"{directory / name} is not what was written: its sha256 is not the manifest's. "
                "Restore it or train the model again."
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
            f"{directory} is not a model directory ({MANIFEST_FILE}: {error}): give one that a "
            "training run wrote, such as models/green/2023-01-0123abcd."
        ) from error
    if layout != MODEL_FORMAT:
        raise ModelError(
            f"{path} has format {layout!r}; this version reads {MODEL_FORMAT}: train the model "
            "again."
        )
    if not isinstance(hashes, dict) or named != sorted(FILES):
        raise ModelError(
            f"{path} names {', '.join(map(str, named)) or 'nothing'} where a model has "
            f"{', '.join(FILES)}: it is not what was written; restore it or train the model "
            "again."
        )
    return hashes


def _read_inside(directory: Path, name: str) -> bytes:
    path = directory / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} is no file")
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ModelError(
            f"{path} is a link to {path.resolve()}, outside the model directory: put the file "
            "itself there, or train the model again."
        )
    return path.read_bytes()


def is_whole(directory: Path) -> bool:
    """Whether there is a model that `verify_model` finds nothing wrong with."""
    try:
        verify_model(directory)
    except ModelError:
        return False
    return True


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON as people read it; NaN is refused, since no reader of JSON need accept it."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
