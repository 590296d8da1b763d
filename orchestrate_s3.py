"""Train on months kept in an S3 bucket, behind a block: `python orchestrate_s3.py --help`."""

import sys
from datetime import date
from pathlib import Path

from prefect import flow

from taxi_duration.cli.train import run_from_command_line
from taxi_duration.data.bucket import BucketMonths, Folder, load_bucket
from taxi_duration.files import check_writable
from taxi_duration.flows.options import S3_FLOW, S3Options, takes
from taxi_duration.flows.train import (
    Plan,
    TrainedRun,
    check_settings,
    make_plan,
    read_flow_day,
    train,
)
from taxi_duration.operations.alerts import tell
from taxi_duration.registry.upload import upload_model
from taxi_duration.settings import TransferSettings, read_settings


@flow(name=S3_FLOW, on_failure=[tell], on_crashed=[tell])
@takes(S3Options)
def main_flow_s3(options: S3Options) -> TrainedRun:
    """Train the trip-duration regression on a month in an S3 bucket and validate it on the next.

    The model is uploaded to the bucket. Without year and month: the newest month whose next one
    the TLC has published.
    """
    plan = prepare(options, read_flow_day())
    bucket = load_bucket(options.block)
    months = BucketMonths(
        options.block, options.prefix, plan.cab, options.data_dir, options.no_cache
    )

    def upload(directory: Path) -> str:
        return upload_model(Folder.open(bucket, options.models_prefix), directory)

    return train(plan, options.models_dir, months, upload)


def prepare(options: S3Options, today: date) -> Plan:
    """Plan the run, and check its directories and settings."""
    plan = make_plan(options, today)
    read_settings(TransferSettings)
    check_settings(options.models_dir)
    check_writable(options.data_dir, "data directory")
    return plan


if __name__ == "__main__":
    sys.exit(run_from_command_line(main_flow_s3, S3Options, prepare))
