"""MLflow: the store, and one run per training. The only file that imports mlflow."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

# Before mlflow is imported. It reports its own use over the network unless told not to.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# It prints the address of a run, password and all.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Its own seven retries of an unreachable server take over four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from taxi_duration.errors import SourceError, hide_credentials
from taxi_duration.model import DurationModel
from taxi_duration.report import Report, collect_metrics
from taxi_duration.store import REPORT_FILE
from taxi_duration.trips import Cab

URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT = "nyc-taxi-duration"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Which of MLflow's two kinds of experiment this is, so that its pages need not infer it."""

SQLITE = "sqlite:///"
DEFAULT_STORE = "mlflow.db"
DEFAULT_ARTIFACTS = "mlartifacts"
DEFAULT_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves unless told otherwise."""

TRUSTED_TYPES = ["taxi_duration.model.DurationModel", "taxi_duration.features.FeatureSet"]
"""Types of ours in the logged model; everything else in it is scikit-learn's or NumPy's."""

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class TrackedRun:
    """An MLflow run: its id, where its page is, and the store that holds it, without passwords."""

    run_id: str
    url: str
    tracking_uri: str


def resolve_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the sqlite store in the working directory."""
    return os.environ.get(URI_VARIABLE) or f"{SQLITE}{Path(DEFAULT_STORE).absolute()}"


def log_training(cab: Cab, model: DurationModel, directory: Path, report: Report) -> TrackedRun:
    """Log a finished training as one MLflow run: parameters, metrics, tags, model and report.

    Args:
        directory: the model directory, whose report.json is logged.

    Raises:
        SourceError: the store cannot be reached or refuses.
    """
    uri = resolve_tracking_uri()
    shown = hide_credentials(uri)
    train, validation = report["train"], report["validation"]
    try:
        experiment_id = _find_experiment(uri)
        with (
            _tracking_in(uri),
            mlflow.start_run(
                experiment_id=experiment_id,
                run_name=f"{report['cab']} {train['months'][-1]} {report['features']}",
            ) as run,
        ):
            mlflow.log_params(
                {
                    "cab": report["cab"],
                    "features": report["features"],
                    "alpha": report["alpha"],
                    "train_months": ",".join(train["months"]),
                    "validation_month": validation["month"],
                }
            )
            mlflow.log_metrics(collect_metrics(report))
            mlflow.set_tags(_collect_tags(report, directory))
            mlflow.log_artifact(str(directory / REPORT_FILE))
            _log_model(cab, model, report)
            _log_trials(report, experiment_id)
    except (MlflowException, OSError) as error:
        raise SourceError(
            f"MLflow store {shown} failed: {hide_credentials(str(error))}. Check {URI_VARIABLE}, "
            f"or unset it to use {DEFAULT_STORE} in this directory."
        ) from error
    page = shown if shown.startswith(("http://", "https://")) else DEFAULT_UI
    url = f"{page.rstrip('/')}/#/experiments/{experiment_id}/runs/{run.info.run_id}"
    return TrackedRun(run.info.run_id, url, shown)


@contextmanager
def _tracking_in(uri: str) -> Iterator[None]:
    """Point mlflow at a store, and away again: what it is told outlives the call otherwise.

    It keeps the address in the environment too, where the next run would take it for the user's.
    """
    before = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ[URI_VARIABLE] = before


def _collect_tags(report: Report, directory: Path) -> dict[str, str]:
    tags = {f"sha256.{name}": digest for name, digest in report["inputs"].items()}
    return {**tags, "model_directory": str(directory), "git_commit": read_git_commit()}


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


def _log_model(cab: Cab, model: DurationModel, report: Report) -> None:
    example = pd.DataFrame(
        {
            cab.pickup_column: pd.to_datetime(["2023-01-02 08:30:00", "2023-01-07 23:15:00"]),
            "PULocationID": [74, 166],
            "DOLocationID": [75, 41],
            "trip_distance": [1.4, 0.9],
        }
    )
    types = [DataType.datetime, DataType.long, DataType.long, DataType.double]
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(kind, name) for kind, name in zip(types, example.columns, strict=True)
    ]
    versions: dict[str, Any] = report["versions"]
    mlflow.sklearn.log_model(
        model,
        name="model",
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


def _log_trials(report: Report, experiment_id: str) -> None:
    """A nested run for each alpha that was tried."""
    for trial in report["trials"]:
        name = f"alpha {trial['alpha']:g}"
        with mlflow.start_run(experiment_id=experiment_id, run_name=name, nested=True):
            mlflow.log_param("alpha", trial["alpha"])
            mlflow.log_metric("held_out_rmse", trial["rmse"])


def _find_experiment(uri: str) -> str:
    """The experiment's id; at first use the experiment is made, and a sqlite store with it."""
    if uri.startswith(SQLITE):
        _ensure_sqlite_store(Path(uri.removeprefix(SQLITE)))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            return _create_experiment(client, _artifact_location(uri))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(EXPERIMENT)  # another process was first
    if experiment is None or experiment.lifecycle_stage != "active":
        raise SourceError(
            f"MLflow experiment {EXPERIMENT} in {hide_credentials(uri)} is deleted: restore it "
            "with `mlflow experiments restore`, or name another store in MLFLOW_TRACKING_URI."
        )
    return str(experiment.experiment_id)


def _create_experiment(client: mlflow.MlflowClient, artifact_location: str | None) -> str:
    return str(client.create_experiment(EXPERIMENT, artifact_location, EXPERIMENT_TAGS))


def _artifact_location(uri: str) -> str | None:
    """Beside a sqlite store; wherever a server says for any other."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE)).absolute().with_name(DEFAULT_ARTIFACTS).as_uri()


def _ensure_sqlite_store(database: Path) -> None:
    """Make the store elsewhere and rename it into place.

    MLflow migrates a new database in many steps; a second process that opens it meanwhile, or
    the death of the first, would leave it broken for good.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{database}.lock"):
        if database.exists():
            return
        with tempfile.TemporaryDirectory(dir=database.parent, prefix=".mlflow.") as scratch:
            made = Path(scratch, database.name)
            client = mlflow.MlflowClient(f"{SQLITE}{made}")
            _create_experiment(client, _artifact_location(f"{SQLITE}{database}"))
            made.replace(database)
