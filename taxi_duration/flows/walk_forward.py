"""Walk-forward: each month of a span validates a model trained on the months before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taxi_duration.data.month import Month, newest_published
from taxi_duration.data.schema import check_month, get_cab
from taxi_duration.errors import InputError
from taxi_duration.flows.options import (
    Alpha,
    BackfillRunnerName,
    CabName,
    DaskAddress,
    DataDirectory,
    Features,
    ModelsDirectory,
    NoCache,
    Offline,
    TrainMonths,
)
from taxi_duration.flows.plan import Plan, check_runner
from taxi_duration.model.features import get_feature_set

MOST_MONTHS = 240


def _read_month(value: object) -> str:
    return str(Month.parse(str(value)))


MonthText = Annotated[
    str, BeforeValidator(_read_month), Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")
]
FromMonth = Annotated[MonthText, Field(description="first month of the span, YYYY-MM; it trains")]
ToMonth = Annotated[MonthText, Field(description="last month of the span, YYYY-MM; it validates")]

FLAGS = {"from_month": "from", "to_month": "to"}
"""On a command line; in Python, `from` is no name."""


class BackfillOptions(BaseModel):
    """The options of a backfill."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_month: FromMonth
    to_month: ToMonth
    train_months: TrainMonths = 1
    cab: CabName = "green"
    data_dir: DataDirectory = Path("data")
    models_dir: ModelsDirectory = Path("models")
    features: Features = "extended"
    alpha: Alpha = None
    offline: Offline = False
    no_cache: NoCache = False
    runner: BackfillRunnerName = "threads"
    dask_address: DaskAddress = None


@dataclass(frozen=True)
class BackfillPlan:
    """The trainings of a backfill, by validation month, and every month they need."""

    steps: tuple[Plan, ...]

    @property
    def common(self) -> Plan:
        """A plan that has what is the same in all: cab type, features, runner."""
        return self.steps[0]

    @property
    def months(self) -> tuple[Month, ...]:
        first, last = self.steps[0].train[0], self.steps[-1].validation
        return last.window(last.since(first) + 1)

    @property
    def span(self) -> str:
        return f"{self.months[0]} to {self.months[-1]}"

    @property
    def title(self) -> str:
        return f"{self.common.cab.name} backfill {self.span}"


def plan_backfill(options: BackfillOptions, today: date) -> BackfillPlan:
    """Lay out the trainings of a span, of which nothing outside is read.

    Raises:
        InputError: no month of the span has enough months before it, or the span is too long,
            reaches before the cab type's first month or beyond the month of `today`.
    """
    first, last = Month.parse(options.from_month), Month.parse(options.to_month)
    cab, features = get_cab(options.cab), get_feature_set(options.features)
    check_month(cab, first)
    check_runner(options.runner, options.dask_address)
    if last.since(first) < options.train_months:
        raise InputError(
            f"from {first} to {last} leaves no month to validate a model trained on "
            f"{count_months(options.train_months)}: give a last month of "
            f"{first.shift(options.train_months)} or later."
        )
    if last.since(first) >= MOST_MONTHS:
        raise InputError(
            f"from {first} to {last} is {count_months(last.since(first) + 1)}: give at most "
            f"{MOST_MONTHS}."
        )
    if last > Month.of(today):
        raise InputError(
            f"last month {last} has not begun: give one that is published, such as "
            f"{newest_published(today)}."
        )
    validations = last.window(last.since(first) + 1 - options.train_months)
    return BackfillPlan(
        tuple(
            Plan(
                cab,
                validation.shift(-1).window(options.train_months),
                validation,
                features,
                options.alpha,
                options.no_cache,
                options.runner,
                options.dask_address,
            )
            for validation in validations
        )
    )


def count_months(number: int) -> str:
    """Say how many months, with the noun's plural."""
    return f"{number} month{'s' if number > 1 else ''}"


@dataclass(frozen=True)
class Step:
    """A finished training of a backfill: RMSE in minutes on the trips of its validation month."""

    validation: str
    train: tuple[str, ...]
    trips: int
    model: float
    zone_pair_median: float
    mean: float
    champion: float | None
    model_id: str
    """`<cab>/<last training month>-<id>`, its directory below the models directory."""
    champion_version: str | None = None
    champion_is_seen: bool = False
    """Whether the champion was trained on the validation month, and has the advantage."""
    warnings: tuple[str, ...] = ()
    """Sentences on how its months' trips differ."""


SERIES = {
    "model": "model",
    "zone_pair_median": "zone-pair median",
    "mean": "training mean",
    "champion": "champion",
}
"""What of a `Step` is compared, and what a reader sees it called."""


def list_series(steps: Sequence[Step]) -> dict[str, list[float | None]]:
    """RMSE by month (minutes) of each predictor that was scored at all; None where it was not."""
    found = {name: [getattr(step, name) for step in steps] for name in SERIES}
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def list_rows(steps: Sequence[Step]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table that is shown everywhere, as text."""
    series = list_series(steps)
    versions = {step.champion_version for step in steps if step.champion_version}
    named = {**SERIES, "champion": f"champion, version {', '.join(sorted(versions))}"}
    header = ["validated on", "trained on", "trips", *(named[name] for name in series)]
    rows = []
    for place, step in enumerate(steps):
        first, last = step.train[0], step.train[-1]
        trained = first if first == last else f"{first} to {last}"
        figures = [values[place] for values in series.values()]
        shown = ["" if figure is None else f"{figure:.4f}" for figure in figures]
        if step.champion_is_seen:
            shown[-1] += " (trained on it)"
        rows.append([step.validation, trained, f"{step.trips:,}", *shown])
    return header, rows
