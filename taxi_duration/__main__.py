"""`python -m taxi_duration COMMAND`: what is done beside the flows."""

import argparse
import os
import sys

from taxi_duration.cli import end_in_one_line, name_server_errors
from taxi_duration.embedded_server import have_prefect_server
from taxi_duration.s3_block import BUCKET_VARIABLE, DEFAULT_BLOCK, check_block, create_blocks


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
    arguments = parser.parse_args()
    return end_in_one_line(lambda: arguments.run(arguments))


def save_blocks(arguments: argparse.Namespace) -> None:
    """Save the blocks that `orchestrate_s3.py` loads."""
    check_block(os.environ, arguments.name)
    with have_prefect_server(), name_server_errors():
        bucket = create_blocks(os.environ, arguments.name)
    print(f"saved S3Bucket block {arguments.name} for bucket {bucket}")


if __name__ == "__main__":
    sys.exit(main())
