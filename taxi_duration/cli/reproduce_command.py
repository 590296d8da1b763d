"""`python -m taxi_duration reproduce`: whether a training comes out the same once more."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from taxi_duration.data.parquet import MonthFile
from taxi_duration.flows.options import LocalOptions
from taxi_duration.registry.comparison import (
    TOLERANCE,
    Comparison,
    compare,
    find_other_versions,
    is_same_code,
)
from taxi_duration.registry.recorded import find_training
from taxi_duration.registry.reproduction import Recipe, Recorded, retrain, verify_inputs


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
    parser.set_defaults(run=reproduce)


def reproduce(arguments: argparse.Namespace) -> int:
    """Print how what was recorded compares with what comes out now.

    Returns:
        The exit code: 0 if all agree, 1 if anything differs.
    """
    recorded = find_training(arguments.reference, arguments.models_dir)
    recipe = Recipe.of(recorded)
    files = verify_inputs(recipe, arguments.data_dir, offline=arguments.offline)
    comparisons = compare(recorded, retrain(recorded, recipe, files))
    render = _render_json if arguments.json else _render_text
    print(render(recorded, files, comparisons))
    return 0 if all(each.agrees for each in comparisons) else 1


def _render_json(
    recorded: Recorded, files: Sequence[MonthFile], comparisons: Sequence[Comparison]
) -> str:
    content = {
        "model_id": recorded.model_id,
        "place": recorded.place,
        "inputs": {file.path.name: file.sha256 for file in files},
        "tolerance": TOLERANCE,
        "comparisons": [asdict(each) for each in comparisons],
        "agrees": all(each.agrees for each in comparisons),
        "other_versions": {
            name: {"recorded": theirs, "here": ours}
            for name, (theirs, ours) in find_other_versions(recorded.report).items()
        },
        "is_same_code": is_same_code(recorded),
    }
    return json.dumps(content, indent=2)


def _render_text(
    recorded: Recorded, files: Sequence[MonthFile], comparisons: Sequence[Comparison]
) -> str:
    report = recorded.report
    rows = [["", "what", "recorded", "reproduced", "largest difference"]]
    for each in comparisons:
        values = [_show(value) for value in (each.recorded, each.reproduced)]
        difference = "one is not there" if each.difference is None else f"{each.difference:.2g}"
        verdict = "ok" if each.agrees else "not ok"
        shown = f"{difference}; {each.detail}" if each.detail else difference
        rows.append([verdict, each.what, *values, shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    table = ["  ".join([*map(str.ljust, cells, widths), last]) for *cells, last in rows]
    failed = sum(not each.agrees for each in comparisons)
    verdict = (
        f"not reproduced: {failed} of {len(comparisons)} differ"
        if failed
        else f"reproduced: {len(comparisons)} agree to {TOLERANCE:g} of max(1, |recorded|)"
    )
    return "\n".join(
        [
            f"{recorded.model_id} from {recorded.place}: {report['features']} features, trained "
            f"on {', '.join(report['train']['months'])}, validated on "
            f"{report['validation']['month']}",
            *(f"{file.path} has the recorded sha256 {file.sha256}" for file in files),
            *table,
            *_describe_surroundings(recorded, is_likely_reason=bool(failed)),
            verdict,
        ]
    )


def _show(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.10g}"


def _describe_surroundings(recorded: Recorded, *, is_likely_reason: bool) -> list[str]:
    """What is not as it was when the model was made, and is no failure by itself."""
    others = [
        f"{name} {theirs} was recorded, {ours} is here"
        for name, (theirs, ours) in sorted(find_other_versions(recorded.report).items())
    ]
    if not is_same_code(recorded):
        others.append("the code of this package or of its libraries is another one")
    if not others:
        return []
    return [f"{'likely reason' if is_likely_reason else 'note'}: {'; '.join(others)}"]
