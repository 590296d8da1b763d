"""An MLflow store with registered versions, made once and copied for each test."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.report import Report, dump_report
from taxi_duration.model.model import DurationModel
from taxi_duration.registry.runs import REGISTERED_MODEL, log_training
from tests.support.months import JANUARY
from tests.support.trained import alter, make_report, save_training, train_on

GREEN, YELLOW = CABS["green"], CABS["yellow"]
IDS = {
    "1": "green/2023-01-aaaaaaaa",
    "2": "green/2023-02-bbbbbbbb",
    "3": "green/2023-03-cccccccc",
    "4": "yellow/2023-01-dddddddd",
}
"""Model id by version."""
RMSE = {"1": 5.5, "2": 5.25, "3": 5.0, "4": 6.0}

GATE: dict[str, Any] = {
    "is_promoted": False,
    "reasons": ["It is worse.", "Queens is worse by 9 %."],
    "champion": {
        "version": "1", "model_id": IDS["1"], "months": ["2023-01"], "is_synthetic": False,
        "is_seen": False, "rmse": 5.5, "mae": 4.0,
    },
    "findings": [],
    "unavailable": None,
    "bootstrap": {"improvement": 0.0125, "lowest": -0.25, "resamples": 999, "blocks": 16},
    "settings": {},
}  # fmt: skip
"""Of a report: the verdict on version 2."""


@dataclass(frozen=True)
class Registered:
    """What the versions were made of: `directories` by version, one model for all."""

    database: Path
    model: DurationModel
    report: Report
    directories: dict[str, Path]

    def describe(self, version: str, gate: dict[str, Any] | None = None) -> Report:
        """The report of a version, as if it had been trained on the month in its model id."""
        cab, name = IDS[version].split("/")
        month, after = name[:7], f"2023-{int(name[5:7]) + 1:02}"
        return alter(
            self.report,
            {"train": {"months": [month]}, "validation": {"month": after, "rmse": RMSE[version]}},
            model_id=IDS[version],
            cab=cab,
            stability={after: self.report.stability["2025-02"]},
            gate=gate,
        )

    def log(self, version: str, gate: dict[str, Any] | None = None) -> str:
        """Log a version to the store in use, and return its number there."""
        cab, report = CABS[IDS[version].split("/")[0]], self.describe(version, gate)
        (self.directories[version] / "report.json").write_bytes(dump_report(report))
        return log_training(cab, self.model, self.directories[version], report).version


def register_versions(directory: Path) -> Registered:
    """Make a store in which three green versions and a yellow one are registered, no champion."""
    training = train_on(JANUARY, "course")
    saved = save_training(directory / "models", training.model, make_report(training))
    directories = {version: directory / "models" / name for version, name in IDS.items()}
    for each in directories.values():
        shutil.copytree(saved, each)
    database = directory / "mlflow.db"
    registered = Registered(database, training.model, make_report(training), directories)
    with use_store(database):
        assert [registered.log(version) for version in IDS] == [*IDS]
    return registered


@contextmanager
def use_store(database: Path) -> Iterator[mlflow.MlflowClient]:
    """Have this process use a sqlite store."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        yield mlflow.MlflowClient(f"sqlite:///{database}")


def read_aliases(client: mlflow.MlflowClient) -> dict[str, str]:
    """The version of each alias, which a sqlite store gives as a number."""
    aliases = client.get_registered_model(REGISTERED_MODEL).aliases
    return {alias: str(version) for alias, version in aliases.items()}
