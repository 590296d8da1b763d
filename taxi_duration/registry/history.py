"""The versions of a cab type, and who was champion when, as the store says without loading any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from taxi_duration.registry.ledger import Ledger, search_all
from taxi_duration.registry.mlflow_run import (
    AGAINST,
    HASHED,
    NOT_JUDGED,
    NOT_PROMOTED,
    REASONS,
    STAYS,
    VERDICT,
)
from taxi_duration.registry.mlflow_store import EXPERIMENT, MODEL_ID, is_store_there, reach_store

# isort: split
# The lines above set what mlflow reads when it is imported.
import mlflow
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import is_synthetic
from taxi_duration.data.schema import Cab
from taxi_duration.errors import hide_credentials
from taxi_duration.registry.promotions import Event, Period, list_periods
from taxi_duration.registry.tracking import locate_page
from taxi_duration.settings import resolve_tracking_uri


@dataclass(frozen=True)
class Version:
    """What is known of a registered version without loading it.

    Args:
        validated_on, rmse, page: None if its run is gone for good.
        against: the model id of the champion it was judged against.
        periods: when it was champion, oldest first.
    """

    version: str
    model_id: str
    trained_on: tuple[str, ...]
    validated_on: str | None
    rmse: float | None
    verdict: str
    reasons: tuple[str, ...]
    against: str | None
    run_id: str | None
    page: str | None
    periods: tuple[Period, ...]
    is_synthetic: bool = False


@dataclass(frozen=True)
class History:
    """All versions of a cab type, oldest first, and all changes of champion.

    Args:
        store: its address, without passwords.
        champion: the number of the version in use; its alias, which may be no version of ours.
    """

    cab: str
    store: str
    champion: str | None
    versions: tuple[Version, ...]
    events: tuple[Event, ...]

    def find(self, version: str | None) -> Version | None:
        """A version by its number."""
        return next((each for each in self.versions if each.version == version), None)


def read_history(cab: Cab) -> History:
    """Look all of it up; nothing of a store that is not there.

    Raises:
        InputError: the address of the store is wrong.
        TransientSourceError, SourceError: the store fails.
    """
    uri = resolve_tracking_uri()
    store = hide_credentials(uri)
    if not is_store_there(uri):
        return History(cab.name, store, None, (), ())
    with reach_store(uri) as client:
        ledger = Ledger.read(client, cab)
        runs = _find_runs(client, cab)
        shown = ledger.list_shown()
    periods = list_periods(shown)
    versions = [
        _describe(uri, version, model_id, runs.get(version.run_id or ""), periods)
        for version in sorted(ledger.versions.values(), key=lambda each: int(each.version))
        for model_id in [_identify(version, runs)]
        if model_id and model_id.startswith(f"{cab.name}/")
    ]
    return History(cab.name, store, ledger.champion, tuple(versions), tuple(shown))


def read_past(cab: Cab, before: Month, *, is_synthetic: bool) -> list[dict[str, Any]]:
    """For each validation month before a month, the version to speak for it.

    That is one which was champion, else one that was not refused, else any; the last of those.

    Args:
        is_synthetic: whether versions of made-up trips are looked for, or of real ones.

    Returns:
        The report's `past`: month, rmse, version and model id, the oldest month first.

    Raises:
        InputError, TransientSourceError, SourceError: as `read_history`.
    """
    known = [
        each
        for each in read_history(cab).versions
        if each.validated_on and each.rmse is not None and each.validated_on < str(before)
        if each.is_synthetic == is_synthetic
    ]
    known.sort(key=lambda each: (bool(each.periods), each.verdict != NOT_PROMOTED))
    best = {each.validated_on: each for each in known}
    return [
        {"month": month, "rmse": each.rmse, "version": each.version, "model_id": each.model_id}
        for month, each in sorted(best.items())
    ]


def _find_runs(client: mlflow.MlflowClient, cab: Cab) -> dict[str, Run]:
    """The cab type's training runs by id, those that were deleted in MLflow among them."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return {}
    found: Iterator[Run] = search_all(
        client.search_runs,
        [experiment.experiment_id],
        f"params.cab = '{cab.name}'",
        run_view_type=ViewType.ALL,
    )
    return {run.info.run_id: run for run in found}


def _identify(version: ModelVersion, runs: dict[str, Run]) -> str | None:
    """As `ledger.identify`, of runs that are here already."""
    run = runs.get(version.run_id or "")
    tags = {**(run.data.tags if run else {}), **version.tags}
    return tags.get(MODEL_ID)


def _describe(
    uri: str, version: ModelVersion, model_id: str, run: Run | None, periods: list[Period]
) -> Version:
    number, tags = str(version.version), version.tags
    params, metrics = (run.data.params, run.data.metrics) if run else ({}, {})
    return Version(
        version=number,
        model_id=model_id,
        trained_on=tuple(filter(None, params.get("train_months", "").split(","))),
        validated_on=params.get("validation_month"),
        rmse=metrics.get("validation_rmse"),
        verdict=NOT_PROMOTED if STAYS in tags else tags.get(VERDICT, NOT_JUDGED),
        reasons=tuple(filter(None, (tags.get(STAYS) or tags.get(REASONS, "")).split("\n"))),
        against=tags.get(AGAINST),
        run_id=version.run_id,
        page=locate_page(uri, run) if run else None,
        periods=tuple(period for period in periods if period.version == number),
        is_synthetic=any(is_synthetic(tag.removeprefix(HASHED)) for tag in run.data.tags)
        if run
        else False,
    )
