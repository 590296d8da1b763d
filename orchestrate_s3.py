"""Train on months kept in an S3 bucket, behind a block: `python orchestrate_s3.py --help`."""

import sys
from datetime import date
from pathlib import Path

from prefect import flow

from taxi_duration.cli.train import run_from_command_line
from taxi_duration.data.bucket import BucketMonths, load_bucket
from taxi_duration.files import check_writable
from taxi_duration.flows.options import (
    Alpha,
    BlockName,
    CabName,
    DaskAddress,
    DataDirectory,
    DataPrefix,
    Features,
    ModelsDirectory,
    ModelsPrefix,
    MonthNumber,
    NoCache,
    RunnerName,
    S3Options,
    TrainMonths,
    Year,
)
from taxi_duration.flows.pipeline import TrainedRun, check_settings, read_flow_day, train
from taxi_duration.flows.plan import Plan, make_plan
from taxi_duration.flows.turns import take_turn
from taxi_duration.operations.alerts import tell
from taxi_duration.registry.upload import upload_model
from taxi_duration.settings import TransferSettings, read_settings


@flow(name="main-flow-s3", on_failure=[tell], on_crashed=[tell])
def main_flow_s3(
    year: Year = None,
    month: MonthNumber = None,
    cab: CabName = "green",
    data_dir: DataDirectory = Path("data/s3"),
    models_dir: ModelsDirectory = Path("models"),
    features: Features = "extended",
    alpha: Alpha = None,
    train_months: TrainMonths = 1,
    no_cache: NoCache = False,
    runner: RunnerName = None,
    dask_address: DaskAddress = None,
    block: BlockName = "s3-bucket-block",
    prefix: DataPrefix = "trip-data",
    models_prefix: ModelsPrefix = "models",
) -> TrainedRun:
    """Train the trip-duration regression on a month in an S3 bucket and validate it on the next.

    The model is uploaded to the bucket. Without year and month: the newest month whose next one
    the TLC has published.
    """
    options = S3Options(
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
        block=block,
        prefix=prefix,
        models_prefix=models_prefix,
    )
    plan = prepare(options, read_flow_day())
    bucket = load_bucket(options.block)

    months = BucketMonths(
        options.block, options.prefix, plan.cab, options.data_dir, options.no_cache
    )

    def upload(directory: Path) -> str:
        return upload_model(bucket, options.models_prefix, directory)

    with take_turn(plan.cab):
        return train(plan, options.models_dir, months, upload)


def prepare(options: S3Options, today: date) -> Plan:
    """Plan the run, and refuse one whose directories or settings will stop it."""
    plan = make_plan(options, today)
    read_settings(TransferSettings)
    check_settings(options.models_dir)
    check_writable(options.data_dir, "data directory")
    return plan


if __name__ == "__main__":
    sys.exit(run_from_command_line(main_flow_s3, S3Options, prepare))
