"""`python -m taxi_duration predict`: batch prediction without a flow or Prefect's server."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from taxi_duration.cli.flags import add_flags
from taxi_duration.data.parquet import MonthFile
from taxi_duration.flows.options import ScoringOptions, read_options
from taxi_duration.flows.predict import (
    Scored,
    ScoringPlan,
    load_named_model,
    plan_scoring,
    score,
)
from taxi_duration.flows.tasks import SCORING_KEY, show_progress


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `python -m taxi_duration`."""
    parser = commands.add_parser(
        "predict",
        help="write a prediction for every trip of a file or a month",
        description="Predict the minutes of every trip of a parquet or CSV file with the TLC's "
        "columns, or of a month, in bounded memory. The output has a row for each of the input, in "
        "order: id, predicted_minutes, model_version.",
        allow_abbrev=False,
    )
    add_flags(parser, ScoringOptions)
    parser.set_defaults(run=predict)


def predict(arguments: argparse.Namespace) -> None:
    """Predict, and print what was counted."""
    plan = plan_scoring(read_options(ScoringOptions, vars(arguments)), date.today())
    print(summarise(run(plan)))


def run(plan: ScoringPlan) -> Scored:
    """Load the model, download the trips if they are a month, and predict."""
    named, file = load_named_model(plan.model, plan.cab), _locate(plan)
    with show_progress("predict", SCORING_KEY) as report:
        return score(plan, named, file, report)


def _locate(plan: ScoringPlan) -> Path | MonthFile:
    if isinstance(plan.trips, Path):
        return plan.trips
    with show_progress(f"download {plan.trips}") as report:
        return plan.months(plan.trips, report)


def summarise(scored: Scored) -> str:
    """Return where the predictions are, and the figures."""
    lines = [
        ("predictions", str(scored.output)),
        *scored.list_figures(),
        ("rows a second", f"{scored.rows_a_second:,.0f}"),
    ]
    width = max(len(name) for name, _ in lines)
    shown = "\n".join(f"  {name:{width}}  {value}" for name, value in lines)
    return f"\n{scored.trips}\n{shown}\n"
