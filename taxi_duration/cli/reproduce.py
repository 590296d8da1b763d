"""`python -m taxi_duration reproduce`: whether a training comes out the same once more."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from taxi_duration.flows.options import LocalOptions
from taxi_duration.registry.reproduce import TOLERANCE, Reproduction, reproduce
from taxi_duration.registry.resolve import find_model

MOST_SHOWN = 10
"""Differences that are shown."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `reproduce` to the subcommands."""
    default = LocalOptions()
    parser = commands.add_parser(
        "reproduce",
        help="train a model again from the same bytes and compare",
        description="Verify the sha256 of the months that a model was trained and validated on, "
        "train it again, and compare every coefficient and figure with what was recorded, to "
        f"{TOLERANCE:g} of max(1, |recorded|). Exit code 0: all agree; 1: something differs; 2: a "
        "month is not there or has other bytes, or there is no such model.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "reference",
        metavar="RUN_OR_DIR",
        help="a model directory, a model id such as green/2023-01-1a2b3c4d, an MLflow run id, or a "
        "version or an alias of the registered model, such as champion",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default.data_dir,
        help="directory of the months' parquet files (default: %(default)s)",
    )
    parser.add_argument(
        "--models-dir",
        type=Path,
        default=default.models_dir,
        help="directory that model ids are below (default: %(default)s)",
    )
    parser.add_argument(
        "--offline", action="store_true", help="do not fetch a month that is absent"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print how what was recorded compares with what comes out now.

    Returns:
        The exit code: 0 if all agree, 1 if anything differs.
    """
    recorded = find_model(arguments.reference, models_directory=arguments.models_dir)
    found = reproduce(recorded, arguments.data_dir, offline=arguments.offline)
    print(_render_json(found) if arguments.json else _render_text(found))
    return 1 if found.wrong else 0


def _render_json(found: Reproduction) -> str:
    content = {
        "model_id": found.recorded.model_id,
        "place": found.recorded.place,
        "inputs": {file.path.name: file.sha256 for file in found.files},
        "tolerance": TOLERANCE,
        "differences": {
            what: difference if math.isfinite(difference) else None
            for what, difference in found.differences.items()
        },
        "agrees": not found.wrong,
        "other_versions": {
            name: {"recorded": theirs, "here": ours}
            for name, (theirs, ours) in found.other_versions.items()
        },
        "is_same_code": found.is_same_code,
    }
    return json.dumps(content, indent=2)


def _render_text(found: Reproduction) -> str:
    recorded, wrong = found.recorded, found.wrong
    lines = [
        f"{recorded.model_id} from {recorded.place}: {recorded.report.features} features, "
        f"trained on {', '.join(recorded.months)}, validated on "
        f"{recorded.report.validation.month}",
        *(f"{file.path} has the recorded sha256 {file.sha256}" for file in found.files),
    ]
    for what, difference in [*wrong.items()][:MOST_SHOWN]:
        is_there = math.isfinite(difference)
        said = f"differ by {difference:.2g}" if is_there else "are not there on both sides"
        lines.append(f"not ok: {what} {said}")
    others = [
        f"{name} {theirs} was recorded, {ours} is here"
        for name, (theirs, ours) in found.other_versions.items()
    ]
    if not found.is_same_code:
        others.append("the code of this package or of its libraries is another one")
    if others:  # which is no failure by itself
        lines.append(f"{'likely reason' if wrong else 'note'}: {'; '.join(others)}")
    compared = len(found.differences)
    if wrong:
        lines.append(f"not reproduced: {len(wrong)} of {compared} differ")
    else:
        largest = max(found.differences.values())
        lines.append(
            f"reproduced: {compared} agree to {TOLERANCE:g} of max(1, |recorded|), the largest "
            f"difference is {largest:.2g}"
        )
    return "\n".join(lines)
