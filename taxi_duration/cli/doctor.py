"""`python -m taxi_duration doctor`: check all that a deployed pipeline stands on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from taxi_duration.cli.flags import add_flags
from taxi_duration.flows.options import read_options
from taxi_duration.operations.doctor import Finding, Setup, examine, make_checks


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `python -m taxi_duration`."""
    parser = commands.add_parser(
        "doctor",
        help="check all that a deployed pipeline stands on",
        description="Check the Prefect server, work pool, worker, S3 block and bucket, MLflow "
        "store, disk, newest month and schedule; a line each says ok, or not ok and the fix. "
        "Exit code 0: all ok; 1: something is not.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_flags(parser, Setup)
    parser.set_defaults(run=report)


def report(arguments: argparse.Namespace) -> int:
    """Print what is found.

    Returns:
        The exit code: 0 if all is ok, 1 if anything is not.
    """
    given = vars(arguments)
    as_json = given.pop("json")
    checks = make_checks(read_options(Setup, given))
    width = max(len(check.name) for check in checks)
    findings = []
    for finding in examine(checks):
        findings.append(finding)
        if not as_json:
            print(render_line(finding, width), flush=True)
    failed = [finding for finding in findings if not finding.ok]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(f"{len(failed)} of {len(findings)} not ok" if failed else f"all {len(findings)} ok")
    return 1 if failed else 0


def render_line(finding: Finding, width: int) -> str:
    """Return a finding as one line.

    Args:
        width: of the longest name.

    >>> render_line(Finding("disk", ok=False, found="full", fix="rm -r models/sums"), 5)
    'not ok  disk   full; fix: rm -r models/sums'
    >>> render_line(Finding("block", ok=True, found="saved", fix=""), 5)
    'ok      block  saved'
    """
    verdict = "ok" if finding.ok else "not ok"
    fix = f"; fix: {finding.fix}" if finding.fix else ""
    return f"{verdict:<6}  {finding.name:<{width}}  {finding.found}{fix}"
