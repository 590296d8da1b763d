"""`python -m taxi_duration COMMAND`: what is done beside the flows."""

import argparse
import os
import sys

from taxi_duration.cli import predict_command, registry, reproduce
from taxi_duration.cli.backfill import summarise
from taxi_duration.cli.cli import add_flags, end_in_one_line, name_server_errors, run_flow
from taxi_duration.data.bucket import (
    BUCKET_VARIABLE,
    DEFAULT_BLOCK,
    check_block,
    check_block_name,
    create_blocks,
)
from taxi_duration.flows import backfill
from taxi_duration.flows.options import BackfillOptions
from taxi_duration.flows.server import have_prefect_server
from taxi_duration.operations import watching
from taxi_duration.operations.doctor import add_options, report
from taxi_duration.settings import AlertSettings, name_variable


def main() -> int:
    """Run a subcommand and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m taxi_duration")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    blocks = commands.add_parser(
        "create-s3-blocks",
        help="save the S3Bucket block and its credentials from the environment",
        description="Save the S3Bucket block and its credentials block on the Prefect server, "
        f"from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and {BUCKET_VARIABLE}; optionally "
        "AWS_SESSION_TOKEN, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL (MinIO and others).",
    )
    blocks.add_argument("--name", default=DEFAULT_BLOCK, help="default: %(default)s")
    blocks.set_defaults(run=save_blocks)
    backfills = commands.add_parser(
        "backfill",
        help="train and validate month by month over a span",
        description=(backfill.backfill.__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
    )
    add_flags(backfills, BackfillOptions, backfill.FLAGS)
    backfills.set_defaults(run=run_backfill)
    predict_command.add_command(commands)
    _add_watch(commands)
    doctor = commands.add_parser(
        "doctor",
        help="check all that a deployed pipeline stands on",
        description="Check the Prefect server, work pool, worker, S3 block and bucket, MLflow "
        "store, disk, newest month and schedule; a line each says ok, or not ok and the fix. "
        "Exit code 0: all ok; 1: something is not.",
        allow_abbrev=False,
    )
    add_options(doctor)
    doctor.set_defaults(run=report)
    registry.add_commands(commands)
    reproduce.add_command(commands)
    arguments = parser.parse_args()
    return end_in_one_line(lambda: arguments.run(arguments))


def run_backfill(arguments: argparse.Namespace) -> None:
    """Run the backfill flow and print its table."""
    given = {name: value for name, value in vars(arguments).items() if name != "run"}
    done = run_flow(backfill.backfill, BackfillOptions, backfill.prepare, given)
    print(summarise(done))


def save_blocks(arguments: argparse.Namespace) -> None:
    """Save the blocks that `orchestrate_s3.py` loads."""
    check_block(os.environ, arguments.name)
    with have_prefect_server(), name_server_errors():
        bucket = create_blocks(os.environ, arguments.name)
    print(f"saved S3Bucket block {arguments.name} for bucket {bucket}")


def _add_watch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    variable = name_variable(AlertSettings, "url")
    parser = commands.add_parser(
        "watch",
        help="have the server tell of failed and crashed runs, and crash dead ones",
        description="Create, or update, two automations on the server at PREFECT_API_URL: one "
        "tells of runs that failed or crashed, one marks runs Crashed whose heartbeats stopped.",
    )
    told = parser.add_mutually_exclusive_group()
    told.add_argument(
        "--webhook",
        metavar="URL",
        help=f"where to post what is told, as JSON with subject and text; default: {variable}",
    )
    told.add_argument(
        "--block",
        metavar="TYPE/NAME",
        help="the saved notification block to tell instead, such as slack-webhook/ops",
    )
    parser.add_argument(
        "--name",
        default=watching.DEFAULT_BLOCK,
        help="of the block that keeps the webhook; default: %(default)s",
    )
    parser.set_defaults(run=watch)


def watch(arguments: argparse.Namespace) -> None:
    """Save the webhook's block and the automations."""
    watching.check_server()
    block = arguments.block
    url = None if block else watching.read_webhook(arguments.webhook)
    check_block_name(arguments.name)
    with name_server_errors():
        if url:
            block = watching.save_webhook(arguments.name, url)
            print(f"saved block {block} for {watching.describe_host(url)}")
        for automation in watching.watch(block):
            print(f"saved automation {automation!r}")


if __name__ == "__main__":
    sys.exit(main())
