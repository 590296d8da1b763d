"""Train on a local month of TLC trips, downloaded when absent: `python orchestrate.py --help`."""

import sys
from datetime import date

from prefect import flow

from taxi_duration.cli.train import run_from_command_line
from taxi_duration.data.tlc import LocalMonths, check_months
from taxi_duration.flows.options import LOCAL_FLOW, LocalOptions, takes
from taxi_duration.flows.train import (
    Plan,
    TrainedRun,
    check_settings,
    make_plan,
    read_flow_day,
    train,
)
from taxi_duration.operations.alerts import tell


@flow(name=LOCAL_FLOW, on_failure=[tell], on_crashed=[tell])
@takes(LocalOptions)
def main_flow(options: LocalOptions) -> TrainedRun:
    """Train the trip-duration regression on a month of TLC trips and validate it on the next.

    Without year and month: the newest month whose next one the TLC has published.
    """
    plan = prepare(options, read_flow_day())
    months = LocalMonths(plan.cab, options.data_dir, options.offline, options.no_cache)
    return train(plan, options.models_dir, months)


def prepare(options: LocalOptions, today: date) -> Plan:
    """Plan the run, and check its months, directories and settings."""
    plan = make_plan(options, today)
    check_settings(options.models_dir)
    # The others are where a cluster's workers are.
    here = (plan.validation,) if plan.dask_address else plan.months
    check_months(plan.cab, here, options.data_dir, options.offline, today)
    return plan


if __name__ == "__main__":
    sys.exit(run_from_command_line(main_flow, LocalOptions, prepare))
