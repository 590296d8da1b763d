"""`python -m taxi_duration create-s3-blocks`: save the blocks that `orchestrate_s3.py` loads."""

from __future__ import annotations

import argparse
import os

from taxi_duration.cli.ending import server_errors
from taxi_duration.data.bucket import BUCKET_VARIABLE, DEFAULT_BLOCK, check_block, create_blocks
from taxi_duration.flows.server import have_prefect_server


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `python -m taxi_duration`."""
    parser = commands.add_parser(
        "create-s3-blocks",
        help="save the S3Bucket block and its credentials from the environment",
        description="Save the S3Bucket block and its credentials block on the Prefect server, "
        f"from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and {BUCKET_VARIABLE}; optionally "
        "AWS_SESSION_TOKEN, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL (MinIO and others).",
    )
    parser.add_argument("--name", default=DEFAULT_BLOCK, help="default: %(default)s")
    parser.set_defaults(run=save_blocks)


def save_blocks(arguments: argparse.Namespace) -> None:
    """Save the blocks and print the bucket's name."""
    check_block(os.environ, arguments.name)
    with have_prefect_server(), server_errors():
        bucket = create_blocks(os.environ, arguments.name)
    print(f"saved S3Bucket block {arguments.name} for bucket {bucket}")
