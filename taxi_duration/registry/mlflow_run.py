"""What one MLflow run of a training holds, and how it ends."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from taxi_duration.registry.mlflow_store import MODEL_ID, PARENT, PROCESS

# isort: split
# The line above sets what mlflow reads when it is imported.
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param
from mlflow.models import Model, ModelSignature
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from taxi_duration.data.clean import Trips
from taxi_duration.data.schema import Cab
from taxi_duration.errors import ModelError, hide_credentials
from taxi_duration.evaluation.report import Report, collect_gate_figures, collect_metrics
from taxi_duration.flows.processes import describe_process
from taxi_duration.model.directory import MANIFEST_FILE, MODEL_FILE
from taxi_duration.model.model import DurationModel
from taxi_duration.version import PACKAGE

TRUSTED_TYPES = [
    "taxi_duration.model.model.DurationModel",
    "taxi_duration.model.features.FeatureSet",
]
"""Types of ours in the logged model; everything else in it is scikit-learn's or NumPy's."""

HASHED = "sha256."
"""Before a month's file name: a tag with the hash of its bytes."""

VERDICT, REASONS, AGAINST = "gate.verdict", "gate.reasons", "gate.against"
"""Tags: what the gate said of a model, why not, and the model id of the champion it faced."""

STAYS = "gate.stays_a_candidate"
"""Tag of a version that the gate found better and that is not champion all the same: why."""
PROMOTED, NOT_PROMOTED, NOT_JUDGED = "promoted", "not promoted", "not judged"

MOST_TAG = 5000
"""Characters of a tag, which some databases enforce."""

NO_TRIPS: Trips = {
    "pickup": np.empty(0, "datetime64[us]"),
    "pickup_zone": np.empty(0, np.int64),
    "dropoff_zone": np.empty(0, np.int64),
    "distance_miles": np.empty(0),
}
"""To ask a model whether it knows how to predict."""


def log_run(
    client: mlflow.MlflowClient,
    experiment_id: str,
    model_id: str,
    cab: Cab,
    model: DurationModel,
    directory: Path,
    report: Report,
) -> None:
    """Log parameters, tags, files, trials, model and metrics as a run that ends FINISHED.

    Args:
        model_id: the identity, `<cab>/<month>-<id>`.
        directory: the model directory.
    """
    months, identity = report["train"]["months"], {MODEL_ID: model_id}
    params = {
        "cab": report["cab"],
        "features": report["features"],
        "alpha": report["alpha"],
        "train_months": ",".join(months),
        "validation_month": report["validation"]["month"],
    }
    name = f"{report['cab']} {months[-1]} {report['features']}"
    tags = {**identity, **_collect_tags(report, directory)}
    with start_run(client, experiment_id, name, tags) as run_id:
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        for file in _list_readable(directory):
            client.log_artifact(run_id, str(file))
        for trial in report["trials"]:
            name = f"alpha {trial['alpha']:g}"
            with start_run(client, experiment_id, name, {**identity, PARENT: run_id}) as tried:
                client.log_param(tried, "alpha", trial["alpha"])
                client.log_metric(tried, "held_out_rmse", trial["rmse"])
        logged = client.create_logged_model(
            experiment_id, name="model", source_run_id=run_id, params=params
        )
        _log_model(cab, model, report, run_id, logged.model_id)
        now = int(time.time() * 1000)
        metrics = [
            Metric(key, value, now, 0, model_id=logged.model_id)
            for key, value in collect_metrics(report).items()
        ]
        client.log_batch(run_id, metrics=metrics)


@contextmanager
def start_run(
    client: mlflow.MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]
) -> Iterator[str]:
    """Start a run that ends FINISHED only if nothing is raised, not even by a signal."""
    tagged = {**resolve_tags(), **tags, PROCESS: describe_process()}
    run_id: str = client.create_run(experiment_id, tags=tagged, run_name=name).info.run_id
    try:
        yield run_id
    except BaseException as error:
        with suppress(Exception):  # the first error is the one to tell
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _collect_tags(report: Report, directory: Path) -> dict[str, str]:
    tags = {f"{HASHED}{name}": digest for name, digest in report["inputs"].items()}
    tags |= {"model_directory": str(directory), "git_commit": read_git_commit()}
    return {**tags, **collect_verdict(report)}


def _list_readable(directory: Path) -> list[Path]:
    """The files of a model directory that are for people: its report, and how that is shown."""
    return sorted(
        file
        for file in directory.iterdir()
        if file.name not in (MODEL_FILE, MANIFEST_FILE) and file.is_file() and not file.is_symlink()
    )


def collect_verdict(report: Report) -> dict[str, str]:
    """The gate's verdict on a model as tags of its run and of its version."""
    gate = report["gate"]
    if gate is None:
        return {VERDICT: NOT_JUDGED}
    tags = {VERDICT: PROMOTED if gate["is_promoted"] else NOT_PROMOTED}
    if gate["reasons"]:
        tags[REASONS] = "\n".join(gate["reasons"])[:MOST_TAG]
    if gate["champion"]:
        tags[AGAINST] = gate["champion"]["model_id"]
        tags["gate.against_version"] = gate["champion"]["version"]
    for name, figure in collect_gate_figures(report).items():
        tags[f"gate.{name}"] = f"{figure:.6g}"
    return tags


def read_git_commit() -> str:
    """The commit of the code that runs, `-dirty` behind it when files differ; or `unknown`."""
    try:
        described = subprocess.run(
            ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=40",
             "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def _log_model(
    cab: Cab, model: DurationModel, report: Report, run_id: str, logged_model_id: str
) -> None:
    """Log a model that loads where this package is not installed.

    For that our code is logged with it: mlflow imports that code when it loads the model, so it
    is to be loaded from a trusted store alone. A model directory holds no code, and `load_model`
    runs none.
    """
    example = pd.DataFrame(
        {
            cab.pickup_column: pd.to_datetime(["2023-01-02 08:30:00", "2023-01-07 23:15:00"]),
            "PULocationID": [74, 166],
            "DOLocationID": [75, 41],
            "trip_distance": [1.4, 0.9],
        }
    )
    types = {
        "pickup": DataType.datetime,
        "pickup_zone": DataType.long,
        "dropoff_zone": DataType.long,
        "distance_miles": DataType.double,
    }
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(kind, cab.columns[ours], required=ours in model.features.needs)
        for ours, kind in types.items()
    ]
    versions: dict[str, Any] = report["versions"]
    # As mlflow.sklearn.log_model does, which knows no run but the active one; and an active run is
    # FINISHED by mlflow when the process exits, complete or not.
    Model.log(
        None,
        mlflow.sklearn,
        name="model",
        run_id=run_id,
        model_id=logged_model_id,
        sk_model=model,
        serialization_format="skops",
        skops_trusted_types=TRUSTED_TYPES,
        signature=ModelSignature(Schema(columns), Schema([ColSpec(DataType.double)])),
        input_example=example,
        code_paths=[str(PACKAGE)],
        # Named, since inferring them imports and runs the model in a process of its own.
        pip_requirements=[
            f"{name}=={versions[name]}"
            for name in ("numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "skops")
        ]
        + [f"mlflow=={mlflow.__version__}"],
    )


def load_logged_model(location: str, tracking_uri: str) -> DurationModel:
    """Load what `log_run` logged, without importing the code that lies beside it.

    Args:
        location: of the logged model's artifacts.

    Raises:
        ModelError: it does not arrive, or is no model that this version of the package can use.
    """
    import skops.io  # here, since it takes most of a second

    try:
        with tempfile.TemporaryDirectory() as directory:
            path = mlflow.artifacts.download_artifacts(
                f"{location}/{MODEL_FILE}", dst_path=directory, tracking_uri=tracking_uri
            )
            model = skops.io.load(path, trusted=TRUSTED_TYPES)
        if not isinstance(model, DurationModel):
            raise TypeError(f"it is a {type(model).__name__}")
        model.predict_clean(NO_TRIPS)
    except Exception as error:  # of many kinds; each means the same to the caller
        raise ModelError(hide_credentials(" ".join(str(error).split()))) from error
    return model
