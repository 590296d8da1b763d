"""The commands that make a report's model again."""

from __future__ import annotations

import shlex

from taxi_duration.data.month import Month
from taxi_duration.evaluation.report import Report, has_synthetic_trips
from taxi_duration.flows.options import LocalOptions
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.settings import Thresholds, name_variable

SAMPLE = "data/sample"
"""Where the synthetic months are, in the repository."""


def list_commands(report: Report) -> str:
    """Markdown of the commands that train a report's model, and that reproduce it."""
    reproduce = shlex.join(
        ["python", "-m", "taxi_duration", "reproduce", report["model_id"], *_find_data(report)]
    )
    commands = f"```sh\n{write_training_command(report)}\n{reproduce}\n```"
    default = LocalOptions.model_fields["data_dir"].default
    place = f"Months are looked for in `{default}/`; `--data-dir` names another place."
    return commands if has_synthetic_trips(report) else f"{commands}\n\n{place}"


def write_training_command(report: Report) -> str:
    """The command that trains a report's model, with what is not as it is by default."""
    months = report["train"]["months"]
    last = Month.parse(months[-1])
    given = {
        "year": last.year,
        "month": last.month,
        "cab": report["cab"],
        "features": report["features"],
        "alpha": _find_alpha(report),
        "train_months": len(months),
    }
    flags = [
        text
        for name, value in given.items()
        if value != LocalOptions.model_fields[name].default
        for text in (f"--{name.replace('_', '-')}", f"{value}")
    ]
    limits = [
        f"{name_variable(Thresholds, name)}={value}"
        for name, value in report["thresholds"].items()
        if value != Thresholds.model_fields[name].default
    ]
    return shlex.join([*limits, "python", "orchestrate.py", *flags, *_find_data(report)])


def _find_data(report: Report) -> list[str]:
    """The flags by which the months are found, if they are none that the TLC has."""
    return ["--data-dir", SAMPLE, "--offline"] if has_synthetic_trips(report) else []


def _find_alpha(report: Report) -> float | None:
    """The alpha that the run was told to take, if it is not for the feature set to say."""
    features = FEATURE_SETS.get(report["features"])
    alphas: list[float] = report["alphas"]
    return None if features and alphas == [*features.alphas] else alphas[0]
