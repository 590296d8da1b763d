"""The model that a person names: the champion, a version, or the model of a directory."""

from __future__ import annotations

import re
from pathlib import Path

from taxi_duration.contract import Cab
from taxi_duration.errors import InputError, ModelError
from taxi_duration.mlflow_run import load_logged_model
from taxi_duration.mlflow_store import MODEL_ID, find_database, reach_store
from taxi_duration.scoring import NamedModel
from taxi_duration.store import load_model
from taxi_duration.tracking import CHAMPION, REGISTERED_MODEL, load_champion
from taxi_duration.tracking_uri import resolve_tracking_uri

REMEDY = (
    f"Give {CHAMPION}, the number of a version, or a model directory such as "
    "models/green/2023-01-0123abcd."
)


def load_named_model(name: str, cab: Cab) -> NamedModel:
    """Load `champion`, the version of a number, or the model of a directory.

    Raises:
        InputError: there is no champion of this cab type, no such version or no such directory.
        TransientSourceError, SourceError: the store of versions fails.
        ModelError: the model cannot be loaded, or is of another cab type.
    """
    if name == CHAMPION:
        champion = load_champion(cab)
        if champion is None:
            raise InputError(
                f"model {CHAMPION!r}: there is none for {cab.name} in the MLflow store. Promote a "
                "version, or give the number of one, or a model directory."
            )
        return NamedModel(champion.model, champion.model_id, champion.version)
    if is_version(name):
        return _load_version(name, cab)
    directory = Path(name)
    if not directory.is_dir():
        raise InputError(f"model {name!r} is not one. {REMEDY}")
    model_id = "/".join(directory.resolve().parts[-2:])
    return NamedModel(load_model(directory), model_id, model_id)


def is_version(name: str) -> bool:
    """Whether a model's name is the number of a version."""
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


def _load_version(number: str, cab: Cab) -> NamedModel:
    uri = resolve_tracking_uri()
    database = find_database(uri)
    if database is not None and not database.exists():
        raise InputError(
            f"model {number!r}: there are no versions, since there is no MLflow store. {REMEDY}"
        )
    with reach_store(uri) as client:
        filtered = f"name = '{REGISTERED_MODEL}' and version_number = {number}"
        found = client.search_model_versions(filtered)
        if not found:
            raise InputError(f"model {number!r} is no version of {REGISTERED_MODEL}. {REMEDY}")
        run_id = found[0].run_id
        try:
            run = client.get_run(run_id) if run_id else None
            if run is None or MODEL_ID not in run.data.tags:
                raise ModelError("no run of this pipeline logged it.")
            if run.data.params["cab"] != cab.name:
                raise ModelError(f"it is for {run.data.params['cab']}, not {cab.name}.")
            logged = run.outputs.model_outputs if run.outputs else []
            location = client.get_logged_model(logged[-1].model_id).artifact_location
            model = load_logged_model(location, uri)
        except (ModelError, LookupError) as error:
            raise ModelError(
                f"version {number} of {REGISTERED_MODEL} cannot be used: {error} Give another."
            ) from error
    return NamedModel(model, run.data.tags[MODEL_ID], number)
