"""What one MLflow run of a training or of a backfill holds, and the version it is registered as.

A training's identity is its model directory's, `<cab>/<month>-<id>`; every run and version carries
it as a tag. A run is FINISHED only when it is complete, and registered only when it is FINISHED, so
a repeated training finds what is done already, does the rest, and deletes what was left halfway.
What the gate says of a training is a record of its version, a tag for each time it was judged.

Not guaranteed: that two machines which log the same training to one server at the same moment
leave one version; they may each register their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from taxi_duration.data.clean import Trips
from taxi_duration.data.schema import DEFAULT_CAB, Cab
from taxi_duration.errors import (
    ModelError,
    SourceError,
    TransientSourceError,
    describe,
    hide_credentials,
    translate,
)
from taxi_duration.evaluation.gate import Verdict
from taxi_duration.evaluation.report import (
    Report,
    collect_gate_figures,
    collect_metrics,
    read_report,
)
from taxi_duration.model.directory import MANIFEST_FILE, MODEL_FILE, REPORT_FILE
from taxi_duration.model.model import DurationModel
from taxi_duration.registry.store import find_database, find_experiment, hold_store
from taxi_duration.settings import resolve_tracking_uri
from taxi_duration.version import PACKAGE

REGISTERED_MODEL = "nyc-taxi-duration"
CANDIDATE = "candidate"
"""The alias of the version that was trained last."""

CHAMPION = "champion"
"""The alias of the version in use."""

MODEL_ID = "model_id"
"""Tag: a run's or version's identity."""
PARENT = "mlflow.parentRunId"

BACKFILL_ID = "backfill_id"
"""Tag: what a backfill's table follows from."""

NOTICES = "notices"
"""Tag: what a reader of the run should know of how its months got here."""

HASHED = "sha256."
"""Before a month's file name: a tag with the hash of its bytes."""

VERDICT = "verdict."
"""Before a number, from 1: a tag of a version with what the gate said of it, as JSON."""

PLOT_FILE, TABLE_FILE = "rmse_by_month.png", "backfill.json"

MOST_NOTE = 8000
"""Characters of a run's tag, which databases other than sqlite enforce."""
MOST_REASONS = 4000
"""Characters of a verdict's reasons; a version's tag has room for 5000."""

ABANDONED_SECONDS = 3600.0
"""After which an unfinished run in a store that nobody can lock is taken to be nobody's."""

DEFAULT_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves unless told otherwise."""

TRUSTED_TYPES = [
    "taxi_duration.model.model.DurationModel",
    "taxi_duration.model.features.FeatureSet",
]
"""Types of ours in the logged model; everything else in it is scikit-learn's or NumPy's."""

NO_TRIPS: Trips = {
    "pickup": np.empty(0, "datetime64[us]"),
    "pickup_zone": np.empty(0, np.int64),
    "dropoff_zone": np.empty(0, np.int64),
    "distance_miles": np.empty(0),
}
"""To ask a model whether it knows how to predict."""


@dataclass(frozen=True)
class TrackedRun:
    """An MLflow run: its id, where its page is, and the store that holds it, without passwords."""

    run_id: str
    url: str
    tracking_uri: str
    version: str
    """Of the registered model."""

    def describe(self) -> str:
        """Return a markdown link to the run, and what it is registered as."""
        return (
            f"[{self.run_id}]({self.url}) in `{self.tracking_uri}`, version {self.version} of "
            f"{REGISTERED_MODEL}"
        )


def name_alias(kind: str, cab: Cab) -> str:
    """Return the alias of a cab type's candidate or champion.

    >>> from taxi_duration.data.schema import CABS
    >>> name_alias(CHAMPION, CABS["green"]), name_alias(CHAMPION, CABS["yellow"])
    ('champion', 'champion-yellow')
    """
    return kind if cab.name == DEFAULT_CAB else f"{kind}-{cab.name}"


def locate_page(uri: str, run: Run) -> str:
    """Return the address of a run's page; for a store without a server, in `mlflow ui`'s."""
    shown = hide_credentials(uri)
    server = shown if shown.startswith(("http://", "https://")) else DEFAULT_UI
    return f"{server.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def list_models(run: Run) -> list[str]:
    """Return the ids of the models that a run logged."""
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def log_training(
    cab: Cab,
    model: DurationModel,
    directory: Path,
    report: Report,
    notices: Sequence[str] = (),
    *,
    is_candidate: bool = True,
) -> TrackedRun:
    """Have a finished training logged as one MLflow run and registered as one version.

    Args:
        directory: the model directory, whose name is the identity and whose files are logged.
        report: with the gate's verdict on a candidate, which is recorded with the version.
        notices: sentences on how its months got here, kept as a tag.
        is_candidate: whether it was judged just now; its version gets the alias and the verdict.

    Raises:
        ModelError: the directory's report cannot be read.
        InputError: the address of the store is wrong.
        TransientSourceError: the store is locked or does not answer; asking again is safe.
        SourceError: the store refuses.
    """
    uri = resolve_tracking_uri()
    model_id = f"{directory.parent.name}/{directory.name}"
    with hold_store(uri) as client:
        experiment_id = find_experiment(client, uri)
        runs = _remove_unfinished(client, uri, experiment_id, f"{MODEL_ID} = '{model_id}'")
        if not any(map(_is_complete, runs)):
            _log_run(client, experiment_id, model_id, cab, model, directory)
            runs = _search_runs(client, experiment_id, f"{MODEL_ID} = '{model_id}'")
        run, version = _keep_one(client, runs, model_id)
        number = str(version.version)
        if is_candidate:
            _record_verdict(client, version, report)
            client.set_registered_model_alias(REGISTERED_MODEL, name_alias(CANDIDATE, cab), number)
        if notices:
            client.set_tag(run.info.run_id, NOTICES, "\n".join(notices))
    return TrackedRun(run.info.run_id, locate_page(uri, run), hide_credentials(uri), number)


def log_backfill(
    title: str,
    parameters: Mapping[str, str],
    steps: Sequence[Mapping[str, Any]],
    series: Mapping[str, Sequence[float | None]],
    table: str,
    plot: bytes,
) -> str:
    """Have a backfill logged as one MLflow run; the same steps are logged once.

    Args:
        steps: its trainings, as JSON.
        series: predictor -> RMSE (minutes) by month, None where it was not scored.
        table: the steps as markdown.
        plot: RMSE by month, a PNG.

    Returns:
        The address of the run's page.

    Raises:
        TransientSourceError: the store is locked or does not answer; asking again is safe.
        SourceError: the store refuses.
    """
    uri = resolve_tracking_uri()
    content = json.dumps(steps, indent=2)
    backfill_id = hashlib.sha256(content.encode()).hexdigest()[:16]
    with hold_store(uri) as client:
        experiment_id = find_experiment(client, uri)
        runs = _remove_unfinished(client, uri, experiment_id, f"{BACKFILL_ID} = '{backfill_id}'")
        for run in runs:
            if run.info.status == "FINISHED":
                return locate_page(uri, run)
        # The steps of metrics are 0, 1, 2; this table, on the run's first page, has their months.
        is_short = len(table) <= MOST_NOTE
        note = table if is_short else f"The table is {TABLE_FILE} among the artifacts."
        tags = {BACKFILL_ID: backfill_id, MLFLOW_RUN_NOTE: note}
        with _start_run(client, experiment_id, title, tags) as run_id:
            client.log_batch(run_id, params=[Param(*each) for each in parameters.items()])
            now = int(time.time() * 1000)
            metrics = [
                Metric(f"{name}_rmse", value, now, place)
                for name, values in series.items()
                for place, value in enumerate(values)
                if value is not None
            ]
            client.log_batch(run_id, metrics=metrics)
            with tempfile.TemporaryDirectory() as directory:
                Path(directory, PLOT_FILE).write_bytes(plot)
                Path(directory, TABLE_FILE).write_text(content + "\n", "utf-8")
                client.log_artifacts(run_id, directory)
        return locate_page(uri, client.get_run(run_id))


def _log_run(
    client: mlflow.MlflowClient,
    experiment_id: str,
    model_id: str,
    cab: Cab,
    model: DurationModel,
    directory: Path,
) -> None:
    """Log parameters, tags, files, trials, model and metrics as a run that ends FINISHED.

    The figures are those of the report among the files.
    """
    report = read_report((directory / REPORT_FILE).read_bytes(), str(directory / REPORT_FILE))
    months, identity = report.train.months, {MODEL_ID: model_id}
    params = {
        "cab": report.cab,
        "features": report.features,
        "alpha": str(report.alpha),
        "train_months": ",".join(months),
        "validation_month": report.validation.month,
    }
    tags = {
        **identity,
        **{f"{HASHED}{name}": digest for name, digest in report.inputs.items()},
        "model_directory": str(directory),
        "git_commit": read_git_commit(),
    }
    name = f"{report.cab} {months[-1]} {report.features}"
    with _start_run(client, experiment_id, name, tags) as run_id:
        client.log_batch(run_id, params=[Param(*each) for each in params.items()])
        for file in _list_readable(directory):
            client.log_artifact(run_id, str(file))
        for trial in report.trials:
            name = f"alpha {trial.alpha:g}"
            with _start_run(client, experiment_id, name, {**identity, PARENT: run_id}) as tried:
                client.log_param(tried, "alpha", trial.alpha)
                client.log_metric(tried, "held_out_rmse", trial.rmse)
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
def _start_run(
    client: mlflow.MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]
) -> Iterator[str]:
    """Start a run that ends FINISHED only if nothing is raised, not even by a signal."""
    tagged = {**resolve_tags(), **tags}
    run_id: str = client.create_run(experiment_id, tags=tagged, run_name=name).info.run_id
    try:
        yield run_id
    except BaseException as error:
        with suppress(Exception):  # the first error is the one to tell
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _list_readable(directory: Path) -> list[Path]:
    """Return the files of a model directory that are for people: its report and its cards."""
    return sorted(
        file
        for file in directory.iterdir()
        if file.name not in (MODEL_FILE, MANIFEST_FILE) and file.is_file() and not file.is_symlink()
    )


def read_git_commit() -> str:
    """Return the commit of the code that runs, with `-dirty` when files differ; or `unknown`."""
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
    versions: dict[str, Any] = report.versions
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
    """Load what `log_training` logged, without importing the code that lies beside it.

    Args:
        location: of the logged model's artifacts.

    Raises:
        ModelError: it is missing, or is no model that this version of the package can use.
        Exception: whatever was raised when the store failed in a way that often passes.
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
        if translate(error) is TransientSourceError:
            raise
        raise ModelError(describe(error)) from error
    return model


def _search_runs(client: mlflow.MlflowClient, experiment_id: str, tag: str) -> list[Run]:
    return list(client.search_runs([experiment_id], f"tags.{tag}"))


def _is_complete(run: Run) -> bool:
    is_inside = PARENT in run.data.tags
    return run.info.status == "FINISHED" and not is_inside and bool(list_models(run))


def _remove_unfinished(
    client: mlflow.MlflowClient, uri: str, experiment_id: str, tag: str
) -> list[Run]:
    """Delete what dead processes left of the runs with a tag, and return the others.

    A sqlite store is held, so nobody else is logging there. On a server somebody may be, in a run
    that is RUNNING and began within the last hour.
    """
    runs = _search_runs(client, experiment_id, tag)
    wait = 0.0 if find_database(uri) else ABANDONED_SECONDS
    oldest = 1000 * (time.time() - wait)
    dead = {
        run.info.run_id
        for run in runs
        if run.info.status in ("FAILED", "KILLED")
        or (run.info.status != "FINISHED" and run.info.start_time <= oldest)
    }
    kept = [run for run in runs if not dead & {run.info.run_id, run.data.tags.get(PARENT)}]
    for run in runs:
        if run not in kept:
            _delete_run(client, run)
    return kept


def _keep_one(
    client: mlflow.MlflowClient, runs: Sequence[Run], model_id: str
) -> tuple[Run, ModelVersion]:
    """Of the runs of one identity, keep a registered one or the first that was complete."""
    found = client.search_model_versions(
        f"name = '{REGISTERED_MODEL}' and tags.{MODEL_ID} = '{model_id}'"
    )
    by_number = sorted(found, key=lambda each: int(each.version), reverse=True)
    versions = {each.run_id: each for each in by_number}
    places = {run_id: int(each.version) for run_id, each in versions.items()}
    complete = [run for run in runs if _is_complete(run)]
    kept = min(
        complete,
        key=lambda run: (places.get(run.info.run_id, math.inf), run.info.end_time),
    )
    needless = {run.info.run_id for run in complete} - {kept.info.run_id, *versions}
    for run in runs:
        if run.data.tags.get(PARENT, run.info.run_id) in needless:
            _delete_run(client, run)
    return kept, versions.get(kept.info.run_id) or _register(client, kept, model_id)


def _delete_run(client: mlflow.MlflowClient, run: Run) -> None:
    made_by = f"source_run_id = '{run.info.run_id}'"
    for logged in client.search_logged_models([run.info.experiment_id], made_by):
        client.delete_logged_model(logged.model_id)
    client.delete_run(run.info.run_id)


def _register(client: mlflow.MlflowClient, run: Run, model_id: str) -> ModelVersion:
    try:
        client.create_registered_model(REGISTERED_MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    logged = list_models(run)[-1]
    made = client.create_model_version(
        REGISTERED_MODEL,
        f"models:/{logged}",
        run_id=run.info.run_id,
        tags={MODEL_ID: model_id},
        await_creation_for=0,
        model_id=logged,
    )
    # As mlflow.register_model does, for the model's page.
    shown = json.dumps([{"name": REGISTERED_MODEL, "version": made.version}])
    client.set_logged_model_tags(logged, {"mlflow.modelVersions": shown})
    return made


def list_records(version: ModelVersion, kind: str) -> list[dict[str, Any]]:
    """Return what tags of a version say that are named `kind` and a number, oldest first.

    Raises:
        SourceError: one of them is no JSON object.
    """
    numbered = {}
    for name, text in version.tags.items():
        number = name.removeprefix(kind)
        if not (name.startswith(kind) and number.isdecimal()):
            continue
        try:
            numbered[int(number)] = dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"tag {name} of version {version.version} of {REGISTERED_MODEL} was changed by "
                f"somebody ({describe(error)})",
                "delete it on MLflow's page of that version",
            ) from error
    return [numbered[number] for number in sorted(numbered)]


def write_record(
    client: mlflow.MlflowClient,
    version: ModelVersion,
    kind: str,
    number: int,
    record: Mapping[str, Any],
) -> None:
    """Write a tag that `list_records` reads; numbers begin with 1."""
    text = json.dumps(record, ensure_ascii=False)
    client.set_model_version_tag(REGISTERED_MODEL, str(version.version), f"{kind}{number}", text)


def describe_verdict(report: Report, gate: Verdict) -> dict[str, Any]:
    """Return the gate's verdict on a model as it is recorded with its version."""
    validation, champion = report.validation, gate.champion
    return {
        "month": validation.month,
        "rmse": validation.rmse,
        "is_promoted": gate.is_promoted,
        "reasons": _drop_beyond(gate.reasons),
        "against": champion and champion.model_id,
        "against_version": champion and champion.version,
        **collect_gate_figures(report),
    }


def _drop_beyond(reasons: Sequence[str]) -> list[str]:
    """Return as many reasons as a tag has room for, and how many more there are."""
    ends = accumulate(map(len, reasons))
    kept = [reason for reason, end in zip(reasons, ends, strict=True) if end <= MOST_REASONS]
    left = len(reasons) - len(kept)
    return [*kept, f"{left} more in its report."] if left else kept


def _record_verdict(client: mlflow.MlflowClient, version: ModelVersion, report: Report) -> None:
    """Record the verdict of a report, if it is not the one that was recorded last."""
    if report.gate is None:
        return
    verdict, known = describe_verdict(report, report.gate), list_records(version, VERDICT)
    if known and verdict.items() <= known[-1].items():
        return
    at = datetime.now(UTC).isoformat(timespec="seconds")
    write_record(client, version, VERDICT, len(known) + 1, {"at": at, **verdict})
