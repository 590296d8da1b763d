"""One MLflow run and one registered version per training, whatever dies on the way.

A training's identity is its model directory's, `<cab>/<month>-<id>`; every run and version carries
it as a tag. A run is FINISHED only when it is complete, and registered only when it is FINISHED, so
a repeated training finds what is done already, does the rest, and deletes what was left halfway.

Not guaranteed: that two machines which log the same training to one server at the same moment
leave one version; they may each register their own.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from taxi_duration.registry.mlflow_run import collect_verdict, log_run
from taxi_duration.registry.mlflow_store import (
    EXPERIMENT,
    MODEL_ID,
    PARENT,
    PROCESS,
    find_experiment,
    hold_store,
    is_store_there,
    reach_store,
)

# isort: split
# The lines above set what mlflow reads when it is imported.
import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from taxi_duration.data.schema import DEFAULT_CAB, Cab
from taxi_duration.errors import SourceError, hide_credentials
from taxi_duration.evaluation.report import Report, check_finite
from taxi_duration.flows.processes import describe_process, is_dead
from taxi_duration.model.directory import identify_training
from taxi_duration.model.model import DurationModel
from taxi_duration.settings import resolve_tracking_uri

REGISTERED_MODEL = "nyc-taxi-duration"
CANDIDATE = "candidate"
"""The alias of the version that was trained last."""

CHAMPION = "champion"
"""The alias of the version in use."""

TRAINING = "training"
"""Tag of a version: `identify_training`, which many versions may share."""

CLOSED = "closed_because"
"""Tag: why another process than its own ended a run."""

NOTICES = "notices"
"""Tag: what a reader of the run should know of how its months got here."""

DEFAULT_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves unless told otherwise."""


@dataclass(frozen=True)
class TrackedRun:
    """An MLflow run: its id, where its page is, and the store that holds it, without passwords."""

    run_id: str
    url: str
    tracking_uri: str
    version: str
    """Of the registered model."""

    def describe(self) -> str:
        """A markdown link to the run, and what it is registered as."""
        return (
            f"[{self.run_id}]({self.url}) in `{self.tracking_uri}`, version {self.version} of "
            f"{REGISTERED_MODEL}"
        )


def name_alias(kind: str, cab: Cab) -> str:
    """The alias of a cab type's candidate or champion.

    >>> from taxi_duration.data.schema import CABS
    >>> name_alias(CHAMPION, CABS["green"]), name_alias(CHAMPION, CABS["yellow"])
    ('champion', 'champion-yellow')
    """
    return kind if cab.name == DEFAULT_CAB else f"{kind}-{cab.name}"


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
        directory: the model directory, whose name is the identity and whose report.json is logged.
        notices: sentences on how its months got here, kept as a tag.
        is_candidate: whether its version gets the alias.

    Raises:
        ModelError: a figure of the report is not finite.
        InputError: the address of the store is wrong.
        TransientSourceError: the store is locked or does not answer; asking again is safe.
        SourceError: the store refuses.
    """
    check_finite(report)
    uri = resolve_tracking_uri()
    model_id = f"{directory.parent.name}/{directory.name}"
    with hold_store(uri) as client:
        experiment_id = find_experiment(client, uri)
        runs = _find_runs(client, experiment_id, model_id)
        if not any(map(_is_complete, runs)):
            log_run(client, experiment_id, model_id, cab, model, directory, report)
            runs = _find_runs(client, experiment_id, model_id)
        run, version = _keep_one(client, runs, model_id, report)
        if is_candidate:
            client.set_registered_model_alias(REGISTERED_MODEL, name_alias(CANDIDATE, cab), version)
        if notices:
            client.set_tag(run.info.run_id, NOTICES, "\n".join(notices))
    shown = hide_credentials(uri)
    return TrackedRun(run.info.run_id, locate_page(uri, run), shown, version)


def locate_page(uri: str, run: Run) -> str:
    """The address of a run's page; for a store without a server, in `mlflow ui`'s."""
    shown = hide_credentials(uri)
    server = shown if shown.startswith(("http://", "https://")) else DEFAULT_UI
    return f"{server.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def close_dead_runs() -> None:
    """Set runs that are still RUNNING though their process on this host is dead to KILLED.

    A store that is not there is not made; one that fails is named in a warning.

    Raises:
        InputError: the address of the store is wrong.
    """
    uri = resolve_tracking_uri()
    if not is_store_there(uri):
        return
    try:
        with reach_store(uri) as client:
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                return
            for run in client.search_runs([experiment.experiment_id], "status = 'RUNNING'"):
                process = run.data.tags.get(PROCESS, "")
                if is_dead(process):
                    reason = f"its process {process} died before the run was complete"
                    client.set_tag(run.info.run_id, CLOSED, reason)
                    client.set_terminated(run.info.run_id, "KILLED")
    except SourceError as error:
        logging.getLogger(__name__).warning("runs left RUNNING were not looked for: %s", error)


def _find_runs(client: mlflow.MlflowClient, experiment_id: str, model_id: str) -> list[Run]:
    return list(client.search_runs([experiment_id], f"tags.{MODEL_ID} = '{model_id}'"))


def _is_complete(run: Run) -> bool:
    is_inside = PARENT in run.data.tags
    return run.info.status == "FINISHED" and not is_inside and bool(list_models(run))


def list_models(run: Run) -> list[str]:
    """The ids of the models that a run logged."""
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def _is_under_way(run: Run) -> bool:
    """Whether another process may still be logging it; one of another host cannot be asked."""
    process = run.data.tags.get(PROCESS, "")
    return run.info.status == "RUNNING" and process != describe_process() and not is_dead(process)


def _keep_one(
    client: mlflow.MlflowClient, runs: Sequence[Run], model_id: str, report: Report
) -> tuple[Run, str]:
    """Of the runs of one identity, keep a registered one or the first that was complete.

    Returns:
        The run, and its version.
    """
    found = client.search_model_versions(
        f"name = '{REGISTERED_MODEL}' and tags.{MODEL_ID} = '{model_id}'"
    )
    numbered = sorted(((int(each.version), each.run_id) for each in found), reverse=True)
    versions = {run_id: number for number, run_id in numbered}
    kept = min(
        filter(_is_complete, runs),
        key=lambda run: (versions.get(run.info.run_id, math.inf), run.info.end_time),
    )
    spared = {kept.info.run_id, *versions}
    spared |= {run.info.run_id for run in runs if _is_under_way(run)}
    for run in runs:
        if run.data.tags.get(PARENT, run.info.run_id) not in spared:
            _delete_run(client, run)
    number = versions.get(kept.info.run_id)
    if number is None:
        training = {TRAINING: identify_training(report)}
        tags = {MODEL_ID: model_id, **training, **collect_verdict(report)}
        return kept, _register(client, kept, tags)
    return kept, str(number)


def _delete_run(client: mlflow.MlflowClient, run: Run) -> None:
    made_by = f"source_run_id = '{run.info.run_id}'"
    for logged in client.search_logged_models([run.info.experiment_id], made_by):
        client.delete_logged_model(logged.model_id)
    client.delete_run(run.info.run_id)


def _register(client: mlflow.MlflowClient, run: Run, tags: dict[str, str]) -> str:
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
        tags=tags,
        await_creation_for=0,
        model_id=logged,
    )
    # As mlflow.register_model does, for the model's page.
    shown = json.dumps([{"name": REGISTERED_MODEL, "version": made.version}])
    client.set_logged_model_tags(logged, {"mlflow.modelVersions": shown})
    return str(made.version)
