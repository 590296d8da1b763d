"""`python -m taxi_duration backfill`: train and validate month by month over a span."""

from __future__ import annotations

import argparse

from taxi_duration.cli.ending import describe_artifact_page, describe_mlflow_page
from taxi_duration.cli.flags import add_flags
from taxi_duration.cli.train import run_flow
from taxi_duration.errors import hide_credentials
from taxi_duration.evaluation.walk_forward import list_rows
from taxi_duration.flows import backfill
from taxi_duration.flows.backfill import ARTIFACT_KEY, FLAGS, Backfill
from taxi_duration.flows.options import BackfillOptions
from taxi_duration.reports.terminal import draw_table
from taxi_duration.settings import resolve_tracking_uri


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `python -m taxi_duration`."""
    parser = commands.add_parser(
        "backfill",
        help="train and validate month by month over a span",
        description=(backfill.backfill.__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
    )
    add_flags(parser, BackfillOptions, FLAGS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the backfill flow and print its table."""
    print(
        summarise(run_flow(backfill.backfill, BackfillOptions, backfill.prepare, vars(arguments)))
    )


def summarise(done: Backfill) -> str:
    """Return the table of a backfill as text, and where it can be seen."""
    plan, common = done.plan, done.plan.common
    header, rows = list_rows(done.steps)
    shown = draw_table(header, rows, numbers=header[2:])
    store = hide_credentials(resolve_tracking_uri())
    return f"""
{common.cab.name} trips, {common.features.name} features, {plan.span}; RMSE in minutes on each \
month of a model
trained on the {plan.before} before it
{shown}

  models            {done.models_directory / common.cab.name}
  MLflow run        {plan.title}
                    to see it: {describe_mlflow_page(done.mlflow_page, store)}
  Prefect artifact  {ARTIFACT_KEY}
                    to see it: {describe_artifact_page(done.artifact_id)}
"""
