"""Train on a local month of TLC trips, downloaded when absent: `python orchestrate.py --help`."""

import sys
from datetime import date
from pathlib import Path

from prefect import flow

from taxi_duration.cli import run_from_command_line
from taxi_duration.disk import check_writable
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.options import (
    Alpha,
    CabName,
    DataDirectory,
    Features,
    LocalOptions,
    ModelsDirectory,
    MonthNumber,
    Offline,
    Plan,
    TrainMonths,
    Year,
    make_plan,
)
from taxi_duration.pipeline import TrainedRun, read_flow_day, train
from taxi_duration.settings import Thresholds, read_settings
from taxi_duration.tlc import check_months, locate_month
from taxi_duration.tracking_uri import check_tracking_uri
from taxi_duration.transfer import Progress


@flow(name="main-flow")
def main_flow(
    year: Year = None,
    month: MonthNumber = None,
    cab: CabName = "green",
    data_dir: DataDirectory = Path("data"),
    models_dir: ModelsDirectory = Path("models"),
    features: Features = "extended",
    alpha: Alpha = None,
    train_months: TrainMonths = 1,
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
        offline=offline,
    )
    plan = prepare(options, read_flow_day())

    def locate(month: Month, report: Progress | None) -> MonthFile:
        return locate_month(plan.cab, month, options.data_dir, options.offline, report)

    return train(plan, options.models_dir, locate)


def prepare(options: LocalOptions, today: date) -> Plan:
    """Plan the run, and refuse one whose months, directories or settings will stop it."""
    plan = make_plan(options, today)
    read_settings(Thresholds)
    check_tracking_uri()
    check_writable(options.models_dir, "models directory")
    check_months(plan.cab, plan.months, options.data_dir, options.offline, today)
    return plan


if __name__ == "__main__":
    sys.exit(run_from_command_line(main_flow, LocalOptions, prepare))
