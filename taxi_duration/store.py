"""Model directories: written whole, manifest last; loaded only when every hash agrees.

models/<cab>/<last training month>-<id>/
    model.skops      feature set, alpha and the fitted scikit-learn pipeline; no pickle
    report.json      the training run's report
    manifest.json    the sha256 of both; a directory without it is not a model
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED

from taxi_duration.disk import flush_to_disk, hash_file, stage
from taxi_duration.errors import ModelError
from taxi_duration.features import FeatureSet
from taxi_duration.model import DurationModel
from taxi_duration.report import Report

MODEL_FILE, REPORT_FILE, MANIFEST_FILE = "model.skops", "report.json", "manifest.json"
MODEL_FORMAT = 2


def identify_run(report: Report, features: FeatureSet) -> str:
    """Eight hexadecimal digits that follow from what a run was given, not from what came out.

    Equal inputs, parameters and versions give equal digits, so that a repeated run finds its
    own directory again.
    """
    identity = {
        "cab": report["cab"],
        "features": [features.name, features.terms, features.bounds],
        "alphas": [trial["alpha"] for trial in report["trials"]] or [report["alpha"]],
        "months": [*report["train"]["months"], report["validation"]["month"]],
        "inputs": report["inputs"],
        "versions": report["versions"],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def save_model(models_directory: Path, model: DurationModel, report: Report) -> Path:
    """Write a model and its report to their directory, or find them there already.

    Returns:
        `models_directory/<cab>/<last training month>-<id>`.
    """
    import skops.io  # here, since it takes most of a second

    name = f"{report['train']['months'][-1]}-{identify_run(report, model.features)}"
    final = models_directory / str(report["cab"]) / name
    if _holds(final, report):
        return final
    with stage(final.parent, name) as scratch:
        written = Path(scratch, name)
        written.mkdir()
        skops.io.dump(_to_state(model), written / MODEL_FILE, compression=ZIP_DEFLATED)
        write_json(written / REPORT_FILE, report)
        hashes = {file: hash_file(written / file) for file in (MODEL_FILE, REPORT_FILE)}
        write_json(written / MANIFEST_FILE, {"format": MODEL_FORMAT, "sha256": hashes})
        for file in written.iterdir():
            flush_to_disk(file)
        if final.exists():
            shutil.move(final, Path(scratch, "damaged"))
        try:
            written.rename(final)
        except OSError:
            # Another process saved the same run meanwhile.
            if not _holds(final, report):
                raise
    return final


def load_model(directory: str | Path) -> DurationModel:
    """Load a model that `save_model` wrote.

    Nothing in the directory is executed: the file holds numbers, names and scikit-learn types.

    Raises:
        ModelError: the directory or a file of it is missing, altered, or of another format.
    """
    import skops.io

    directory = Path(directory)
    verify_model(directory)
    try:
        state = skops.io.load(directory / MODEL_FILE, trusted=[])
        return _from_state(state)
    except Exception as error:  # skops raises many kinds; each means the same to the caller
        raise ModelError(f"{directory / MODEL_FILE} cannot be loaded: {error}.") from error


def load_report(directory: str | Path) -> Report:
    """Load the report of a model directory, its hash verified.

    Raises:
        ModelError: as `load_model`.
    """
    verify_model(Path(directory))
    report: Report = json.loads(Path(directory, REPORT_FILE).read_text("utf-8"))
    return report


def verify_model(directory: Path) -> None:
    """Hold every file of a model directory against its manifest.

    Raises:
        ModelError: the manifest is missing or of another format, or a file does not match it.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST_FILE).read_text("utf-8"))
        hashes: dict[str, str] = manifest["sha256"]
        expected = {MODEL_FILE, REPORT_FILE}
        if manifest["format"] != MODEL_FORMAT or set(hashes) != expected:
            raise ModelError(
                f"{directory / MANIFEST_FILE} has format {manifest['format']!r}; "
                f"this version reads {MODEL_FORMAT}: train the model again."
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{directory} is not a model directory ({MANIFEST_FILE}: {error}): give one that a "
            "training run wrote, such as models/green/2023-01-0123abcd."
        ) from error
    for name, digest in hashes.items():
        path = directory / name
        if not path.is_file() or hash_file(path) != digest:
            raise ModelError(
                f"{path} is missing or not what was written: restore it or train again."
            )


def _holds(directory: Path, report: Report) -> bool:
    """Whether a whole model with this very report is there: other code gives other figures."""
    try:
        return load_report(directory) == report
    except ModelError:
        return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON as people read it; NaN is refused, since no reader of JSON need accept it."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")


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
