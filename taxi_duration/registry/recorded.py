"""Finding a finished training by whatever names it: a directory, its model id, or MLflow."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from taxi_duration.registry.mlflow_run import load_logged_model
from taxi_duration.registry.mlflow_store import (
    EXPERIMENT,
    MODEL_ID,
    PARENT,
    is_store_there,
    reach_store,
)
from taxi_duration.registry.tracking import REGISTERED_MODEL

# isort: split
# The lines above set what mlflow reads when it is imported.
import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from taxi_duration.errors import InputError, ModelError, hide_credentials
from taxi_duration.evaluation.report import Report, read_report
from taxi_duration.model.directory import REPORT_FILE, load_model, load_report
from taxi_duration.registry.reproduction import Recorded
from taxi_duration.settings import resolve_tracking_uri


def find_training(reference: str, models_directory: Path) -> Recorded:
    """Load what a training left: from the disk if it is there, else from MLflow.

    No code that is logged with a model is run.

    Args:
        reference: a model directory; a model id, such as green/2023-01-1a2b3c4d, below
            `models_directory` or in MLflow; an MLflow run id; or a version or an alias of the
            registered model.

    Raises:
        InputError: there is none; the message says where it was looked for.
        ModelError: there is one that is damaged, or that another program logged.
        SourceError: the store fails.
    """
    directories = list(dict.fromkeys([Path(reference), models_directory / reference]))
    for directory in directories:
        if directory.is_dir():
            report, model = load_report(directory), load_model(directory)
            return Recorded(report["model_id"], str(directory), report, model)
    uri = resolve_tracking_uri()
    shown = hide_credentials(uri)
    if not is_store_there(uri):
        found, looked = None, f"MLflow store {shown} is not there"
    else:
        found = _fetch(uri, reference)
        looked = (
            f"MLflow store {shown} has no run, no model id, and no version or alias of "
            f"{REGISTERED_MODEL}, by that name"
        )
    if found is None:
        raise InputError(
            f"{reference!r} was not found: {' and '.join(map(str, directories))} "
            f"{'is no directory' if len(directories) == 1 else 'are no directories'}; {looked}. "
            "Give a model directory such as models/green/2023-01-1a2b3c4d, or the id of an MLflow "
            "run."
        )
    return found


def _fetch(uri: str, reference: str) -> Recorded | None:
    with reach_store(uri) as client, _name_what_is_deleted(reference):
        run = _find_run(client, reference)
        if run is None:
            return None
        run_id = run.info.run_id
        try:
            if MODEL_ID not in run.data.tags or not (run.outputs and run.outputs.model_outputs):
                raise ModelError("no training of this pipeline logged it.")
            logged = client.get_logged_model(run.outputs.model_outputs[-1].model_id)
            model = load_logged_model(logged.artifact_location, uri)
            report = _download_report(client, run_id)
        except ModelError as error:
            raise ModelError(
                f"MLflow run {run_id} cannot be reproduced: {error} Give one whose training is "
                "finished."
            ) from error
        place = f"MLflow run {run_id} in {hide_credentials(uri)}"
        return Recorded(run.data.tags[MODEL_ID], place, report, model)


@contextmanager
def _name_what_is_deleted(reference: str) -> Iterator[None]:
    """Tell a store that lacks something from one that fails.

    Raises:
        ModelError: the run or the model of what was asked for is deleted.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelError(
            f"{reference!r} cannot be reproduced: its run or its model is deleted in MLflow. Give "
            "its model directory, or another version."
        ) from error


def _find_run(client: mlflow.MlflowClient, reference: str) -> Run | None:
    """The run that a name of any kind leads to; from a trial's it is the training's."""
    registered = client.search_registered_models(f"name = '{REGISTERED_MODEL}'")
    aliases = registered[0].aliases if registered else {}
    number = str(aliases.get(reference, reference))
    if registered and re.fullmatch("[0-9]{1,9}", number):
        for version in client.search_model_versions(f"name = '{REGISTERED_MODEL}'"):
            if str(version.version) == number and version.run_id:
                return client.get_run(version.run_id)
    runs: Sequence[Run] = ()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment and re.fullmatch("[0-9a-f]{32}", reference):
        runs = client.search_runs([experiment.experiment_id], f"attributes.run_id = '{reference}'")
    elif experiment and re.fullmatch("[a-z]+/[0-9a-f-]+", reference):
        named = f"tags.{MODEL_ID} = '{reference}' and attributes.status = 'FINISHED'"
        runs = client.search_runs([experiment.experiment_id], named)
    if not runs:
        return None
    parent = runs[0].data.tags.get(PARENT)
    return client.get_run(parent) if parent else runs[0]


def _download_report(client: mlflow.MlflowClient, run_id: str) -> Report:
    try:
        with tempfile.TemporaryDirectory() as directory:
            path = client.download_artifacts(run_id, REPORT_FILE, directory)
            report = read_report(Path(path).read_bytes(), REPORT_FILE)
    except Exception as error:  # of many kinds; each means the same to the caller
        reason = hide_credentials(" ".join(str(error).split())).rstrip(".")
        raise ModelError(f"its {REPORT_FILE} does not arrive: {reason}.") from error
    return report
