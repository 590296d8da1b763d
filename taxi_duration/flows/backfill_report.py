"""A backfill as people read it: a page in Prefect, and text in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from taxi_duration.cli.cli import describe_artifact_page, describe_mlflow_page
from taxi_duration.errors import hide_credentials
from taxi_duration.flows.walk_forward import BackfillPlan, Step, count_months, list_rows
from taxi_duration.reports.render import render_backfill_markdown
from taxi_duration.reports.terminal import draw_table
from taxi_duration.settings import resolve_tracking_uri

ARTIFACT_KEY = "backfill-report"


@dataclass(frozen=True)
class Backfill:
    """What a backfill comes to, and where it can be seen."""

    plan: BackfillPlan
    steps: tuple[Step, ...]
    models_directory: Path
    mlflow_page: str
    artifact_id: UUID


def render_markdown(plan: BackfillPlan, steps: Sequence[Step], plot: bytes, mlflow_run: str) -> str:
    """The markdown shown in Prefect: the plot, which it holds itself, and the table."""
    common = plan.common
    header, rows = list_rows(steps)
    return render_backfill_markdown(
        title=f"{common.cab.name}, {plan.span}",
        trained=f"with {common.features.name} features, trained on the {_count_before(plan)} "
        "before it",
        plot=plot,
        header=header,
        rows=rows,
        warnings=[warning for step in steps for warning in step.warnings],
        mlflow_run=mlflow_run,
    )


def summarise(done: Backfill) -> str:
    """The table of a backfill as text, and where it can be seen."""
    plan, common = done.plan, done.plan.common
    header, rows = list_rows(done.steps)
    shown = draw_table(header, rows, numbers=header[2:])
    store = hide_credentials(resolve_tracking_uri())
    return f"""
{common.cab.name} trips, {common.features.name} features, {plan.span}; RMSE in minutes on each \
month of a model
trained on the {_count_before(plan)} before it
{shown}

  models            {done.models_directory / common.cab.name}
  MLflow run        {plan.title}
                    to see it: {describe_mlflow_page(done.mlflow_page, store)}
  Prefect artifact  {ARTIFACT_KEY}
                    to see it: {describe_artifact_page(done.artifact_id)}
"""


def _count_before(plan: BackfillPlan) -> str:
    number = len(plan.common.train)
    return count_months(number) if number > 1 else "month"
