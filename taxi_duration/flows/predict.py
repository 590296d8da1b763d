"""The batch prediction: every trip of a file or a month, by the champion or another model.

`python -m taxi_duration predict` does the same without a flow, and without Prefect's server.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import Cab, check_month, get_cab
from taxi_duration.data.tlc import LocalMonths, check_months
from taxi_duration.errors import InputError
from taxi_duration.files import check_writable
from taxi_duration.flows.options import PREDICT_FLOW, ScoringOptions, takes
from taxi_duration.flows.tasks import IN_MEMORY, RETRIES, SCORING_KEY, download_month, show_progress
from taxi_duration.flows.train import read_flow_day
from taxi_duration.operations.alerts import tell
from taxi_duration.predict.reader import check_input
from taxi_duration.predict.score import NamedModel, Progress, Tally, score_trips
from taxi_duration.predict.writer import check_apart, check_output
from taxi_duration.registry.resolve import find_model
from taxi_duration.reports.render import make_table

ARTIFACT_KEY = "predictions"


@dataclass(frozen=True)
class ScoringPlan:
    """A batch prediction whose options were checked: of the trips of a file, or of a month."""

    cab: Cab
    model: str
    trips: Path | Month
    months: LocalMonths
    output: Path
    id_column: str | None


def plan_scoring(options: ScoringOptions, today: date) -> ScoringPlan:
    """Check the options of a batch prediction before any work, and find its trips.

    Raises:
        InputError: the input is missing or of an unknown kind, or the output cannot be written.
        DataError: the month is absent and `offline` is set, or its file is none of this cab type.
    """
    cab, output = get_cab(options.cab), options.output
    try:
        check_writable(check_output(output).parent, "directory of the output")
        months = LocalMonths(cab, options.data_dir, options.offline)
        trips = _find_trips(options.input)
        if isinstance(trips, Month):
            check_month(cab, trips)
            check_months(cab, [trips], options.data_dir, options.offline, today, validates=False)
            check_apart(output, options.data_dir / trips.file_name(cab.name))
        else:
            check_apart(output, trips)
    except OSError as error:  # such as a path that is too long
        raise InputError(
            f"{error.filename} cannot be looked at ({error.strerror or error})",
            "name another path, or give yourself permission",
        ) from error
    return ScoringPlan(cab, str(options.model), trips, months, output, options.id_column)


def _find_trips(text: str) -> Path | Month:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}", text):
        return Month.parse(text)
    path = Path(text)
    check_input(path)
    return path


@dataclass(frozen=True)
class Scored:
    """Which trips were scored, by which model, and the counts."""

    trips: Path
    output: Path
    model_id: str
    version: str
    tally: Tally
    seconds: float

    def list_figures(self) -> list[tuple[str, str]]:
        """Return each figure's name and value, as a reader sees them."""
        tally, found = self.tally, self.tally.evaluation
        is_version = self.version != self.model_id
        if found:
            realised = (
                f"RMSE {found.rmse:.6f} minutes, MAE {found.mae:.6f}, over the "
                f"{_count_rows(found.rows)} that the cleaning rules keep"
            )
        else:
            no_row = "no row has a duration that the cleaning rules keep"
            realised = f"none: {'; '.join(tally.problems) or no_row}"
        lack = "lacks" if tally.unpredicted == 1 else "lack"
        return [
            ("rows", f"{tally.rows:,}"),
            ("model", f"version {self.version}, {self.model_id}" if is_version else self.version),
            ("unknown zones", f"in {_count_rows(tally.unknown_zones)}"),
            ("zones unseen in training", f"in {_count_rows(tally.unseen_zones)}"),
            ("pairs unseen in training", f"in {_count_rows(tally.unseen_pairs)}"),
            (
                "no prediction",
                f"for {_count_rows(tally.unpredicted)}, which {lack} a distance or a time",
            ),
            ("realised errors", realised),
        ]

    @property
    def rows_a_second(self) -> float:
        return self.tally.rows / self.seconds


def _count_rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


def load_named_model(name: str, cab: Cab) -> NamedModel:
    """Load the model that `find_model` finds by a name."""
    found = find_model(name, cab)
    return NamedModel(found.model, found.model_id, found.version or found.model_id)


def score(
    plan: ScoringPlan, named: NamedModel, file: Path | MonthFile, report: Progress | None = None
) -> Scored:
    """Score the trips of a plan, once they are on this disk.

    Raises:
        TaxiDurationError: as `score_trips`.
    """
    path, sha256 = (file.path, file.sha256) if isinstance(file, MonthFile) else (file, None)
    begun = time.perf_counter()
    tally = score_trips(
        named, path, plan.output, plan.cab, plan.id_column, sha256=sha256, report=report
    )
    seconds = time.perf_counter() - begun
    return Scored(path, plan.output, named.model_id, named.version, tally, seconds)


@flow(name=PREDICT_FLOW, on_failure=[tell], on_crashed=[tell])
@takes(ScoringOptions)
def predict(options: ScoringOptions) -> Scored:
    """Predict the minutes of every trip of a file, or of a month of the TLC.

    What `python -m taxi_duration predict` does, as a flow.
    """
    plan = plan_scoring(options, read_flow_day())
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
    """Return the markdown shown in Prefect."""
    table = make_table(["", ""], [list(figure) for figure in scored.list_figures()])
    return f"# Predictions of {scored.trips.name}\n\nThey are in `{scored.output}`.\n\n{table}"
