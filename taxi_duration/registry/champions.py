"""Registered versions, found by alias, number or model id, and loaded.

Nothing that is logged beside a model is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from taxi_duration.registry.ledger import search_versions
from taxi_duration.registry.mlflow_run import AGAINST, HASHED, load_logged_model
from taxi_duration.registry.mlflow_store import MODEL_ID, is_store_there, reach_store

# isort: split
# The lines above set what mlflow reads when it is imported.
import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from taxi_duration.data.parquet import is_synthetic
from taxi_duration.data.schema import DEFAULT_CAB, Cab
from taxi_duration.errors import InputError, ModelError, hide_credentials
from taxi_duration.model.model import DurationModel
from taxi_duration.registry.tracking import CHAMPION, REGISTERED_MODEL, list_models, name_alias
from taxi_duration.settings import resolve_tracking_uri


@dataclass(frozen=True)
class Champion:
    """A version of the registered model, loaded; mostly the one in use.

    Args:
        model_id: its identity, `<cab>/<month>-<id>`.
        months: what it was trained on, such as "2023-01".
        against: the model id of the champion it was judged against when it was trained, if any.
        is_synthetic: whether it was trained on made-up trips.
    """

    version: str
    model_id: str
    months: tuple[str, ...]
    against: str | None
    model: DurationModel
    is_synthetic: bool = False


def load_champion(cab: Cab) -> Champion | None:
    """Load the champion, running no code that is logged with it.

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
        found = client.search_registered_models(f"name = '{REGISTERED_MODEL}'")
        number = found[0].aliases.get(name_alias(CHAMPION, cab)) if found else None
        if number is None:
            return None
        try:
            return _load(client, uri, cab, client.get_model_version(REGISTERED_MODEL, str(number)))
        except ModelError as error:
            raise ModelError(
                f"champion, version {number} of {REGISTERED_MODEL}, cannot be loaded: {error} "
                f"Make another one champion: {name_command('promote VERSION', cab)}."
            ) from error


def load_version(cab: Cab, model_id: str) -> Champion | None:
    """Load the version of a training, likewise; None if it is not registered."""
    uri = resolve_tracking_uri()
    if not is_store_there(uri):
        return None
    with reach_store(uri) as client:
        found = search_versions(client, f" and tags.{MODEL_ID} = '{model_id}'")
        version = min(found, key=lambda each: int(each.version), default=None)
        return load_or_name(client, uri, cab, version) if version else None


def find_version(cab: Cab, which: str) -> Champion:
    """Load the version that a person names, `champion` or a number.

    Raises:
        InputError: there is no such version, or it is of another cab type.
        ModelError, TransientSourceError, SourceError: as `load_champion`.
    """
    if which == CHAMPION:
        champion = load_champion(cab)
        if champion is None:
            raise InputError(
                f"{cab.name} has no champion in {hide_credentials(resolve_tracking_uri())}: make "
                f"one with {name_command('promote VERSION', cab)}, or give a version's number."
            )
        return champion
    number = read_number(which)
    uri = resolve_tracking_uri()
    check_store(uri)
    with reach_store(uri) as client:
        return find_to_load(
            client, uri, cab, number, {str(v.version): v for v in search_versions(client)}
        )


def read_number(text: str) -> str:
    """A version's number as MLflow writes it.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch("[0-9]{1,9}", text) or not int(text):
        raise InputError(f"version {text!r} is no version: give its number, such as 3.")
    return str(int(text))


def find_to_load(
    client: mlflow.MlflowClient,
    uri: str,
    cab: Cab,
    number: str,
    versions: Mapping[str, ModelVersion],
) -> Champion:
    """Load a version by its number.

    Args:
        versions: all of the registered model.

    Raises:
        InputError, ModelError: as `find_version`.
    """
    if number not in versions:
        raise InputError(
            f"version {number} of {REGISTERED_MODEL} is not in {hide_credentials(uri)}: "
            f"{name_command('history', cab)} lists those that are."
        )
    found = load_or_name(client, uri, cab, versions[number])
    if found is None:
        raise InputError(
            f"version {number} of {REGISTERED_MODEL} is of another cab type than {cab.name}: give "
            "that one with --cab, or another version."
        )
    return found


def load_or_name(
    client: mlflow.MlflowClient, uri: str, cab: Cab, version: ModelVersion
) -> Champion | None:
    """Load a version; None if it is of another cab type.

    Raises:
        ModelError: it cannot be loaded; the message names it.
    """
    try:
        return _load(client, uri, cab, version)
    except ModelError as error:
        raise ModelError(
            f"version {version.version} of {REGISTERED_MODEL} cannot be loaded: {error} Give one "
            f"that {name_command('history', cab)} lists, or train the model again."
        ) from error


def _load(
    client: mlflow.MlflowClient, uri: str, cab: Cab, version: ModelVersion
) -> Champion | None:
    try:
        run = client.get_run(version.run_id) if version.run_id else None
        if run is None or MODEL_ID not in run.data.tags:
            raise ModelError("no run of this pipeline logged it.")
        if run.data.params["cab"] != cab.name:
            return None
        logged = list_models(run)
        if not logged:
            raise ModelError("its run holds no model.")
        model = load_logged_model(client.get_logged_model(logged[-1]).artifact_location, uri)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelError("its run or its model is deleted.") from error
    months = tuple(run.data.params["train_months"].split(","))
    tags = {**run.data.tags, **version.tags}  # who registers a run by hand copies none
    return Champion(
        str(version.version),
        run.data.tags[MODEL_ID],
        months,
        tags.get(AGAINST),
        model,
        any(is_synthetic(tag.removeprefix(HASHED)) for tag in tags),
    )


def check_store(uri: str) -> None:
    """Refuse a sqlite store that is not there, before one is made to look into.

    Raises:
        InputError: naming it.
    """
    if not is_store_there(uri):
        raise InputError(
            f"nothing is registered in {hide_credentials(uri)}, which is not there: train a model "
            "first, such as with `python orchestrate.py`."
        )


def name_command(command: str, cab: Cab) -> str:
    """A command of ours as a message names it."""
    of = "" if cab.name == DEFAULT_CAB else f" --cab {cab.name}"
    return f"`python -m taxi_duration {command}{of}`"
