"""`python -m taxi_duration watch`: have the server notify of bad ends."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

from taxi_duration.cli.ending import server_errors
from taxi_duration.data.bucket import check_block_name
from taxi_duration.operations import alerts


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `python -m taxi_duration`."""
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
        help="where to post what is told, as JSON with subject and text; default: "
        f"{alerts.URL_VARIABLE}",
    )
    told.add_argument(
        "--block",
        metavar="TYPE/NAME",
        help="the saved notification block to tell instead, such as slack-webhook/ops",
    )
    parser.add_argument(
        "--name",
        default=alerts.DEFAULT_BLOCK,
        help="of the block that keeps the webhook; default: %(default)s",
    )
    parser.set_defaults(run=watch)


def watch(arguments: argparse.Namespace) -> None:
    """Save the webhook's block and the automations."""
    alerts.check_lasting_server()
    block = arguments.block
    url = None if block else alerts.read_webhook(arguments.webhook)
    check_block_name(arguments.name)
    with server_errors():
        if url:
            block = alerts.save_webhook(arguments.name, url)
            print(f"saved block {block} for {urlsplit(url).hostname}")
        for automation in alerts.watch(block):
            print(f"saved automation {automation!r}")
