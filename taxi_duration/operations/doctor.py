"""`python -m taxi_duration doctor`: whether everything a deployed pipeline stands on is well."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from taxi_duration.data.bucket import DEFAULT_BLOCK, check_key_prefix
from taxi_duration.data.schema import CABS, get_cab
from taxi_duration.flows.options import LOCAL_FLOW, S3_FLOW, LocalOptions, S3Options
from taxi_duration.operations.examination import Check, examine, render_json, render_line
from taxi_duration.operations.local_checks import check_disk, check_mlflow, check_versions
from taxi_duration.operations.prefect_checks import (
    check_schedule,
    check_server,
    check_work_pool,
    check_worker,
)
from taxi_duration.operations.source_checks import check_block, check_bucket, check_newest_month
from taxi_duration.version import CHECKOUT

DEFAULT_POOL = "zoompool"


@dataclass(frozen=True)
class Setup:
    """What is examined: the names and places that the deployments use.

    Args:
        block: None leaves out whatever has to do with S3.
        offline: the TLC is not asked; the newest month must be in `data_dir`.
    """

    pool: str = DEFAULT_POOL
    block: str | None = DEFAULT_BLOCK
    prefix: str = S3Options().prefix
    cab: str = "green"
    data_dir: Path = LocalOptions().data_dir
    models_dir: Path = LocalOptions().models_dir
    offline: bool = False
    least_free_gigabytes: float = 1.0
    checkout: Path = CHECKOUT


def make_checks(setup: Setup) -> list[Check]:
    """The checks in the order in which faults are best mended.

    Raises:
        InputError: the prefix is none.
    """
    cab, prefix = get_cab(setup.cab), check_key_prefix(setup.prefix)
    flows = [LOCAL_FLOW] if setup.block is None else [LOCAL_FLOW, S3_FLOW]
    directories = {"models directory": setup.models_dir, "data directory": setup.data_dir}
    checks = [
        Check("server", check_server),
        Check("versions", partial(check_versions, setup.checkout)),
        Check("work pool", partial(check_work_pool, setup.pool), ("server",)),
        Check("worker", partial(check_worker, setup.pool), ("server", "work pool")),
    ]
    if setup.block is not None:
        arguments = (setup.block, prefix, cab)
        checks += [
            Check("block", partial(check_block, *arguments), ("server",)),
            Check("bucket", partial(check_bucket, *arguments), ("server", "block")),
        ]
    return [
        *checks,
        Check("mlflow", check_mlflow),
        Check("disk", partial(check_disk, directories, setup.least_free_gigabytes)),
        Check("newest month", partial(check_newest_month, cab, setup.data_dir, setup.offline)),
        Check("schedule", partial(check_schedule, setup.pool, flows), ("server", "work pool")),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options that `read_setup` reads."""
    default = Setup()
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--pool", type=_read_name, default=default.pool, help="work pool (default: %(default)s)"
    )
    parser.add_argument(
        "--block",
        type=_read_name,
        default=default.block,
        help="S3Bucket block (default: %(default)s)",
    )
    parser.add_argument(
        "--prefix",
        default=default.prefix,
        help="months' prefix in the bucket (default: %(default)s)",
    )
    parser.add_argument(
        "--without-s3", action="store_true", help="leave out block, bucket and the S3 flow"
    )
    parser.add_argument(
        "--cab", choices=[*CABS], default=default.cab, help="cab type (default: %(default)s)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default.data_dir,
        help="months' directory (default: %(default)s)",
    )
    parser.add_argument(
        "--models-dir",
        type=Path,
        default=default.models_dir,
        help="models' directory (default: %(default)s)",
    )
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the TLC: the newest month must be here"
    )
    parser.add_argument(
        "--least-free-gb",
        type=_read_gigabytes,
        default=default.least_free_gigabytes,
        help="disk space a run may need (default: %(default)g)",
    )


def read_setup(arguments: argparse.Namespace) -> Setup:
    """The setup that the options name."""
    return Setup(
        pool=arguments.pool,
        block=None if arguments.without_s3 else arguments.block,
        prefix=arguments.prefix,
        cab=arguments.cab,
        data_dir=arguments.data_dir,
        models_dir=arguments.models_dir,
        offline=arguments.offline,
        least_free_gigabytes=arguments.least_free_gb,
    )


def report(arguments: argparse.Namespace) -> int:
    """Print what is found.

    Returns:
        The exit code: 0 if all is ok, 1 if anything is not.
    """
    checks = make_checks(read_setup(arguments))
    width = max(len(check.name) for check in checks)
    findings = []
    for finding in examine(checks):
        findings.append(finding)
        if not arguments.json:
            print(render_line(finding, width), flush=True)
    failed = [finding for finding in findings if not finding.ok]
    if arguments.json:
        print(render_json(findings))
    else:
        print(f"{len(failed)} of {len(findings)} not ok" if failed else f"all {len(findings)} ok")
    return 1 if failed else 0


def _read_name(text: str) -> str:
    """A name that Prefect takes, and that leads to no other address of its API."""
    if not re.fullmatch(r"[^/%&><?#\s][^/%&><?#]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: leave out / % & < > ? and #")
    return text


def _read_gigabytes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of gigabytes: give one such as 1")
    return number
