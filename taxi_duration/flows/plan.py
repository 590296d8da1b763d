"""Which months and which model a run's options come to on a given day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec

from taxi_duration.data.month import Month, newest_published
from taxi_duration.data.schema import Cab, check_month, get_cab
from taxi_duration.errors import InputError
from taxi_duration.flows.options import TrainingOptions
from taxi_duration.model.features import FeatureSet, get_feature_set

DASK_REQUIREMENT = "prefect-dask>=0.3.7,<1"


def check_runner(runner: str | None, dask_address: str | None) -> None:
    """Refuse a Dask cluster for another runner, and the dask runner where Dask is not installed.

    Raises:
        InputError: as said.
    """
    if dask_address and runner != "dask":
        raise InputError(f"dask_address {dask_address} is given: give runner dask with it.")
    if runner == "dask" and find_spec("prefect_dask") is None:
        raise InputError(
            "runner dask needs prefect-dask, which is not installed: pip install "
            f"{DASK_REQUIREMENT!r}, on the workers too, or give another runner."
        )


@dataclass(frozen=True)
class Plan:
    """The months and the model that a run's options come to on a given day."""

    cab: Cab
    train: tuple[Month, ...]
    validation: Month
    features: FeatureSet
    alpha: float | None
    no_cache: bool = False
    runner: str | None = None
    dask_address: str | None = None

    @property
    def alphas(self) -> tuple[float, ...]:
        """Those that are tried, or the one that is taken."""
        return self.features.alphas if self.alpha is None else (self.alpha,)

    @property
    def months(self) -> tuple[Month, ...]:
        return (*self.train, self.validation)


def make_plan(options: TrainingOptions, today: date) -> Plan:
    """Decide which months a run trains and validates on.

    Without year and month, the last training month is the newest whose next month is published
    on `today`.

    Raises:
        InputError: only one of year and month is given, or the cab type has no file of a month.
    """
    if (options.year is None) != (options.month is None):
        given, absent = ("year", "month") if options.month is None else ("month", "year")
        raise InputError(f"{given} is given without {absent}: give both, or neither.")
    if options.year is None or options.month is None:
        last = newest_published(today).shift(-1)
    else:
        last = Month(options.year, options.month)
    cab, features = get_cab(options.cab), get_feature_set(options.features)
    # Against the cab's first month before the window is laid out, which may reach before 2009.
    check_month(cab, last)
    if last.since(cab.first_month) < options.train_months - 1:
        raise InputError(
            f"train_months {options.train_months} reaches before {cab.name} month "
            f"{cab.first_month} ({cab.first_month_reason}): give fewer."
        )
    if last.next > Month.of(today):
        raise InputError(
            f"month {last} cannot be trained on: its validation month {last.next} has not "
            f"begun; give {newest_published(today).shift(-1)} or earlier."
        )
    check_runner(options.runner, options.dask_address)
    return Plan(
        cab,
        last.window(options.train_months),
        last.next,
        features,
        options.alpha,
        options.no_cache,
        options.runner,
        options.dask_address,
    )
