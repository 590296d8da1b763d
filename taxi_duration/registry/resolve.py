"""Which model: a directory, or whatever names one in MLflow, found and loaded.

Nothing that is logged beside a model is run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from taxi_duration.data.schema import DEFAULT_CAB, Cab
from taxi_duration.errors import (
    InputError,
    ModelError,
    TransientSourceError,
    describe,
    hide_credentials,
    translate,
)
from taxi_duration.evaluation.report import Report, load_report, read_report
from taxi_duration.model.directory import REPORT_FILE, load_model
from taxi_duration.model.model import DurationModel
from taxi_duration.registry.runs import (
    CANDIDATE,
    CHAMPION,
    MODEL_ID,
    PARENT,
    REGISTERED_MODEL,
    list_models,
    load_logged_model,
    name_alias,
)
from taxi_duration.registry.store import EXPERIMENT, get_if_there, is_store_there, reach_store
from taxi_duration.settings import resolve_tracking_uri

EXAMPLE = "a model directory such as models/green/2023-01-1a2b3c4d"


@dataclass(frozen=True)
class FoundModel:
    """A model, its identity, `<cab>/<month>-<id>`, and the report of its training.

    Args:
        version: its number in the registry; None of a directory, or if it is not registered.
        place: where it was found.
    """

    model: DurationModel
    model_id: str
    version: str | None
    report: Report
    place: str

    @property
    def months(self) -> tuple[str, ...]:
        """What it was trained on, such as "2023-01"."""
        return tuple(self.report.train.months)

    @property
    def is_synthetic(self) -> bool:
        """Whether it was trained on made-up trips."""
        return self.report.is_synthetic


def find_model(
    reference: str, cab: Cab | None = None, models_directory: Path = Path()
) -> FoundModel:
    """Load the model that a person names.

    Args:
        reference: `champion`, another alias or the number of a version; a model directory; a model
            id, such as green/2023-01-1a2b3c4d, below `models_directory` or in MLflow; or the id
            of an MLflow run.
        cab: what it must be a model of; any when None.

    Raises:
        InputError: there is none, or it is of another cab type.
        ModelError: there is one that is damaged, deleted, or logged by another program.
        TransientSourceError, SourceError: the store fails.
    """
    places = dict.fromkeys([Path(reference), models_directory / reference])
    if reference != CHAMPION and not _is_number(reference):
        for directory in filter(Path.is_dir, places):
            model, report = load_model(directory), load_report(directory)
            found = FoundModel(model, report.model_id, None, report, str(directory))
            _check_cab(found.report.cab, f"model {reference}", cab)
            return found
    uri = resolve_tracking_uri()
    shown = hide_credentials(uri)
    if not is_store_there(uri):
        said = f"MLflow store {shown} is not there"
        remedy = f"train a model first, such as with `python orchestrate.py`, or give {EXAMPLE}"
        raise InputError(f"model {reference!r} was not found, and {said}", remedy)
    with reach_store(uri) as client:
        number = _find_number(client, reference, cab)
        if number is not None:
            version = find_version(client, number)
            if version is not None:
                return load_version(client, uri, version, cab)
        run = _find_run(client, reference)
        if run is not None:
            version = _find_version_of(client, run)
            if version is not None:
                return load_version(client, uri, version, cab)
            with _named(f"MLflow run {run.info.run_id}", "give one whose training is finished"):
                return _load(client, uri, run, None, cab, f"model {reference}")
    if reference == CHAMPION:
        of = cab.name if cab else DEFAULT_CAB
        raise InputError(
            f"{of} has no champion in {shown}",
            f"make one with {name_command('promote VERSION', cab)}, or give a version's number",
        )
    raise InputError(
        f"model {reference!r} is neither a directory nor, in MLflow store {shown}, a version or an "
        f"alias of {REGISTERED_MODEL}, a model id or a run",
        f"give one that {name_command('history', cab)} lists, or {EXAMPLE}",
    )


def load_champion(cab: Cab) -> FoundModel | None:
    """Load the champion.

    Returns:
        None when there is no store, no such version, or it is of another cab type.

    Raises:
        InputError: the address of the store is wrong.
        TransientSourceError, SourceError: the store fails.
        ModelError: the version holds no model of ours that can be loaded.
    """
    uri = resolve_tracking_uri()
    if not is_store_there(uri):
        return None
    with reach_store(uri) as client:
        number = read_aliases(client).get(name_alias(CHAMPION, cab))
        version = find_version(client, number) if number else None
        if version is None:
            return None
        try:
            return load_version(client, uri, version, cab, CHAMPION)
        except InputError:  # of another cab type
            return None


def read_aliases(client: mlflow.MlflowClient) -> dict[str, str]:
    """Return alias -> version of the registered model."""
    for found in client.search_registered_models(f"name = '{REGISTERED_MODEL}'"):
        return {alias: str(number) for alias, number in found.aliases.items()}
    return {}


def find_version(client: mlflow.MlflowClient, number: str) -> ModelVersion | None:
    """Return a version by its number; None if there is none."""
    return get_if_there(client.get_model_version, REGISTERED_MODEL, number)


def load_version(
    client: mlflow.MlflowClient,
    uri: str,
    version: ModelVersion,
    cab: Cab | None,
    reference: str | None = None,
) -> FoundModel:
    """Load a version.

    Args:
        reference: what it was asked for as, if not by its number.

    Raises:
        InputError: it is of another cab type.
        ModelError: it cannot be loaded.
    """
    name = f"version {version.version} of {REGISTERED_MODEL}"
    remedy = f"give one that {name_command('history', cab)} lists, or train the model again"
    if reference == CHAMPION:
        name = f"champion, {name},"
        remedy = f"make another one champion: {name_command('promote VERSION', cab)}"
    with _named(name, remedy):
        run = client.get_run(version.run_id) if version.run_id else None
        return _load(client, uri, run, version, cab, name)


def name_command(command: str, cab: Cab | None) -> str:
    """Return a command of ours as a message names it."""
    of = f" --cab {cab.name}" if cab and cab.name != DEFAULT_CAB else ""
    return f"`python -m taxi_duration {command}{of}`"


def _is_number(reference: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", reference) is not None


def _check_cab(found: str, name: str, cab: Cab | None) -> None:
    if cab and found != cab.name:
        raise InputError(
            f"{name} is of another cab type, {found}, than {cab.name}",
            "give that one with --cab, or another model",
        )


def _find_number(client: mlflow.MlflowClient, reference: str, cab: Cab | None) -> str | None:
    """Return the version that a number or an alias names."""
    if _is_number(reference):
        return str(int(reference))
    alias = name_alias(reference, cab) if cab and reference in (CHAMPION, CANDIDATE) else reference
    return read_aliases(client).get(alias)


def _find_run(client: mlflow.MlflowClient, reference: str) -> Run | None:
    """Return the run of a model id or of a run's id; from a trial's it is the training's."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    if re.fullmatch("[0-9a-f]{32}", reference):
        condition = f"attributes.run_id = '{reference}'"
    elif re.fullmatch("[a-z]+/[0-9a-f-]+", reference):
        condition = f"tags.{MODEL_ID} = '{reference}' and attributes.status = 'FINISHED'"
    else:
        return None
    runs = client.search_runs([experiment.experiment_id], condition)
    if not runs:
        return None
    parent = runs[0].data.tags.get(PARENT)
    return client.get_run(parent) if parent else runs[0]


def _find_version_of(client: mlflow.MlflowClient, run: Run) -> ModelVersion | None:
    found = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    ours = [version for version in found if version.name == REGISTERED_MODEL]
    return min(ours, key=lambda version: int(version.version), default=None)


@contextmanager
def _named(name: str, remedy: str) -> Iterator[None]:
    """Say of what a model cannot be loaded, and tell a store that lacks it from one that fails.

    Raises:
        ModelError: it cannot, or its run or its model is deleted.
    """
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{name} cannot be loaded ({error.problem})", remedy) from error
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        deleted = "its run or its model is deleted"
        raise ModelError(f"{name} cannot be loaded ({deleted})", remedy) from error


def _load(
    client: mlflow.MlflowClient,
    uri: str,
    run: Run | None,
    version: ModelVersion | None,
    cab: Cab | None,
    name: str,
) -> FoundModel:
    if run is None or MODEL_ID not in run.data.tags:
        raise ModelError("no run of this pipeline logged it")
    if "cab" not in run.data.params:
        raise ModelError("its training ended before it was logged")
    _check_cab(run.data.params["cab"], name, cab)
    logged = list_models(run)
    if not logged:
        raise ModelError("its run holds no model")
    model = load_logged_model(client.get_logged_model(logged[-1]).artifact_location, uri)
    report = _download_report(run, uri)
    place = f"MLflow run {run.info.run_id} in {hide_credentials(uri)}"
    number = str(version.version) if version else None
    return FoundModel(model, run.data.tags[MODEL_ID], number, report, place)


def _download_report(run: Run, uri: str) -> Report:
    try:
        with tempfile.TemporaryDirectory() as directory:
            # Not by the client, which would keep threads for its next download.
            path = mlflow.artifacts.download_artifacts(
                f"{run.info.artifact_uri}/{REPORT_FILE}", dst_path=directory, tracking_uri=uri
            )
            return read_report(Path(path).read_bytes(), REPORT_FILE)
    except ModelError:
        raise
    except Exception as error:  # of many kinds; each means the same to the caller
        if translate(error) is TransientSourceError:
            raise
        raise ModelError(f"its {REPORT_FILE} does not arrive: {describe(error)}") from error
