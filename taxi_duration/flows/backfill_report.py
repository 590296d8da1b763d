"""A backfill as a page in Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from taxi_duration.flows.walk_forward import BackfillPlan, Step, count_months, list_rows
from taxi_duration.reports.markdown import embed_png, make_table

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
    return "\n\n".join(
        [
            f"# Backfill: {common.cab.name}, {plan.span}",
            f"RMSE in minutes on each month of a model with {common.features.name} features, "
            f"trained on the {count_before(plan)} before it.",
            embed_png(plot, "RMSE by month"),
            make_table(*list_rows(steps)),
            *(f"- {warning}" for step in steps for warning in step.warnings),
            f"MLflow run: {mlflow_run}",
        ]
    )


def count_before(plan: BackfillPlan) -> str:
    """Return how many months before it each month's model is trained on, in words."""
    number = len(plan.common.train)
    return count_months(number) if number > 1 else "month"
