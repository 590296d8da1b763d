"""The model that a person names: the champion, a version, or the model of a directory."""

from __future__ import annotations

import re
from pathlib import Path

from taxi_duration.data.schema import Cab
from taxi_duration.errors import InputError
from taxi_duration.model.directory import load_model, load_report
from taxi_duration.predict.score import NamedModel
from taxi_duration.registry.champions import find_version
from taxi_duration.registry.tracking import CHAMPION


def load_named_model(name: str, cab: Cab) -> NamedModel:
    """Load `champion`, the version of a number, or the model of a directory.

    Raises:
        InputError: there is no champion of this cab type, no such version or no such directory; or
            what is there is of another cab type.
        TransientSourceError, SourceError: the store of versions fails.
        ModelError: the model cannot be loaded.
    """
    if name == CHAMPION or re.fullmatch(r"[0-9]{1,9}", name):
        found = find_version(cab, name)
        return NamedModel(found.model, found.model_id, found.version)
    directory = Path(name)
    if not directory.is_dir():
        raise InputError(
            f"model {name!r} is not one. Give {CHAMPION}, the number of a version, or a model "
            "directory such as models/green/2023-01-0123abcd."
        )
    model, report = load_model(directory), load_report(directory)
    if report["cab"] != cab.name:
        raise InputError(
            f"model {name} is of another cab type, {report['cab']}, than {cab.name}: give that one "
            "with --cab, or another model."
        )
    return NamedModel(model, report["model_id"], report["model_id"])
