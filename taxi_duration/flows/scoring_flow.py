"""The scoring flow: a prediction for every trip of a file or a month, by a model in use."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import Cab
from taxi_duration.flows import dead_runs
from taxi_duration.flows.options import CabName, DataDirectory, Offline
from taxi_duration.flows.pipeline import read_flow_day
from taxi_duration.flows.progress import SCORING_KEY, show_progress
from taxi_duration.flows.scoring_plan import (
    IdColumn,
    Input,
    ModelName,
    Output,
    Scored,
    ScoringOptions,
    ScoringPlan,
    plan_scoring,
    score,
)
from taxi_duration.flows.tasks import IN_MEMORY, RETRIES, download_month
from taxi_duration.operations.hooks import tell
from taxi_duration.predict.score import NamedModel
from taxi_duration.registry.named_model import load_named_model
from taxi_duration.reports.render import make_table

ARTIFACT_KEY = "predictions"


@flow(name="predict", on_failure=[tell], on_crashed=[tell])
def predict(
    input: Input,  # noqa: A002
    output: Output,
    model: ModelName = "champion",
    cab: CabName = "green",
    data_dir: DataDirectory = Path("data"),
    offline: Offline = False,
    id_column: IdColumn = None,
) -> Scored:
    """Predict the minutes of every trip of a file, or of a month of the TLC.

    What `python -m taxi_duration predict` does, as a flow.
    """
    options = ScoringOptions(
        input=input,
        output=output,
        model=model,
        cab=cab,
        data_dir=data_dir,
        offline=offline,
        id_column=id_column,
    )
    plan = plan_scoring(options, read_flow_day())
    dead_runs.close_dead_runs()
    named = load_model_in_use(plan.model, plan.cab)
    trips = plan.trips
    file = download_month(plan.months, trips) if isinstance(trips, Month) else trips
    scored = predict_trips(plan, named, file)
    publish_predictions(scored)
    return scored


@task(name="load-model", **IN_MEMORY, **RETRIES)
def load_model_in_use(name: str, cab: Cab) -> NamedModel:
    """Load the model that was named."""
    named = load_named_model(name, cab)
    get_run_logger().info("model %s is %s", name, named.model_id)
    return named


@task(name="predict-trips", **IN_MEMORY)
def predict_trips(plan: ScoringPlan, named: NamedModel, file: Path | MonthFile) -> Scored:
    """Write a prediction for every trip."""
    with show_progress("predict", SCORING_KEY) as report:
        scored = score(plan, named, file, report)
    for name, figure in scored.list_figures():
        get_run_logger().info("%s: %s", name, figure)
    get_run_logger().info(
        "predictions are in %s, made at %s rows a second",
        scored.output,
        f"{scored.rows_a_second:,.0f}",
    )
    return scored


@task(name="publish-predictions", **IN_MEMORY)
def publish_predictions(scored: Scored) -> UUID:
    """Publish what was counted as a markdown artifact."""
    artifact_id = create_markdown_artifact(
        render_markdown(scored),
        key=ARTIFACT_KEY,
        description=f"{scored.tally.rows:,} rows of {scored.trips.name} by {scored.version}",
    )
    get_run_logger().info("counts published as artifact %s", ARTIFACT_KEY)
    return cast(UUID, artifact_id)  # Prefect types it as if it were awaited


def render_markdown(scored: Scored) -> str:
    """The markdown shown in Prefect."""
    table = make_table(["", ""], [list(figure) for figure in scored.list_figures()])
    return f"# Predictions of {scored.trips.name}\n\nThey are in `{scored.output}`.\n\n{table}"
