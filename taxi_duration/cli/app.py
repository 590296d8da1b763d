"""The commands of `python -m taxi_duration`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from taxi_duration.cli import (
    alerts,
    backfill,
    blocks,
    doctor,
    predict,
    registry,
    reproduce,
)
from taxi_duration.cli.ending import end_in_one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: as `sys.argv[1:]`, which is the default.
    """
    parser = argparse.ArgumentParser(prog="python -m taxi_duration")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (blocks, backfill, predict, alerts, doctor):
        group.add_command(commands)
    registry.add_commands(commands)
    reproduce.add_command(commands)
    given = parser.parse_args(arguments)
    run = given.run
    del given.run
    return end_in_one_line(lambda: run(given))
