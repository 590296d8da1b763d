"""Train on a local month of TLC trips, downloaded when absent: `python orchestrate.py --help`."""

import sys
from datetime import date
from pathlib import Path

from prefect import flow

from taxi_duration.cli.train import run_from_command_line
from taxi_duration.data.tlc import LocalMonths, check_months
from taxi_duration.flows.options import (
    Alpha,
    CabName,
    DaskAddress,
    DataDirectory,
    Features,
    LocalOptions,
    ModelsDirectory,
    MonthNumber,
    NoCache,
    Offline,
    RunnerName,
    TrainMonths,
    Year,
)
from taxi_duration.flows.pipeline import TrainedRun, check_settings, read_flow_day, train
from taxi_duration.flows.plan import Plan, make_plan
from taxi_duration.flows.turns import take_turn
from taxi_duration.operations.alerts import tell


@flow(name="main-flow", on_failure=[tell], on_crashed=[tell])
def main_flow(
    year: Year = None,
    month: MonthNumber = None,
    cab: CabName = "green",
    data_dir: DataDirectory = Path("data"),
    models_dir: ModelsDirectory = Path("models"),
    features: Features = "extended",
    alpha: Alpha = None,
    train_months: TrainMonths = 1,
    no_cache: NoCache = False,
    runner: RunnerName = None,
    dask_address: DaskAddress = None,
    offline: Offline = False,
) -> TrainedRun:
    """Train the trip-duration regression on a month of TLC trips and validate it on the next.

    Without year and month: the newest month whose next one the TLC has published.
    """
    options = LocalOptions(
        year=year,
        month=month,
        cab=cab,
        data_dir=data_dir,
        models_dir=models_dir,
        features=features,
        alpha=alpha,
        train_months=train_months,
        no_cache=no_cache,
        runner=runner,
        dask_address=dask_address,
        offline=offline,
    )
    plan = prepare(options, read_flow_day())

    months = LocalMonths(plan.cab, options.data_dir, options.offline, options.no_cache)
    with take_turn(plan.cab):
        return train(plan, options.models_dir, months)


def prepare(options: LocalOptions, today: date) -> Plan:
    """Plan the run, and refuse one whose months, directories or settings will stop it."""
    plan = make_plan(options, today)
    check_settings(options.models_dir)
    # The others are where a cluster's workers are.
    here = (plan.validation,) if plan.dask_address else plan.months
    check_months(plan.cab, here, options.data_dir, options.offline, today)
    return plan


if __name__ == "__main__":
    sys.exit(run_from_command_line(main_flow, LocalOptions, prepare))
