"""A backfill as one MLflow run: its table, its plot, and RMSE by month as metrics with steps."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from taxi_duration.registry.mlflow_run import start_run
from taxi_duration.registry.mlflow_store import PROCESS, find_experiment, hold_store
from taxi_duration.reports.render import make_table

# isort: split
# The lines above set what mlflow reads when it is imported.
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from taxi_duration.flows.processes import describe_process, is_dead
from taxi_duration.flows.walk_forward import BackfillPlan, Step, list_rows, list_series
from taxi_duration.registry.tracking import locate_page
from taxi_duration.settings import resolve_tracking_uri

BACKFILL_ID = "backfill_id"
"""Tag: what a backfill's table follows from."""

MOST_NOTE = 8000
"""Characters of a tag, which databases other than sqlite enforce."""

PLOT_FILE, TABLE_FILE = "rmse_by_month.png", "backfill.json"


def log_backfill(plan: BackfillPlan, steps: Sequence[Step], plot: bytes) -> str:
    """Have a backfill logged as one MLflow run; the same table is logged once.

    Returns:
        The address of the run's page.

    Raises:
        TransientSourceError: the store is locked or does not answer; asking again is safe.
        SourceError: the store refuses.
    """
    uri = resolve_tracking_uri()
    content = json.dumps([asdict(step) for step in steps], indent=2)
    backfill_id = hashlib.sha256(content.encode()).hexdigest()[:16]
    with hold_store(uri) as client:
        experiment_id = find_experiment(client, uri)
        found = client.search_runs([experiment_id], f"tags.{BACKFILL_ID} = '{backfill_id}'")
        for run in found:
            if run.info.status == "FINISHED":
                return locate_page(uri, run)
            process = run.data.tags.get(PROCESS, "")
            if process == describe_process() or is_dead(process):
                client.delete_run(run.info.run_id)  # logged halfway
        common, months = plan.common, plan.months
        params = {
            "cab": common.cab.name,
            "features": common.features.name,
            "alphas": ",".join(f"{alpha:g}" for alpha in common.alphas),
            "from": str(months[0]),
            "to": str(months[-1]),
            "train_months": str(len(common.train)),
        }
        # The steps of metrics are 0, 1, 2; this table, on the run's first page, has their months.
        note = make_table(*list_rows(steps))
        if len(note) > MOST_NOTE:
            note = f"The table is {TABLE_FILE} among the artifacts."
        tags = {BACKFILL_ID: backfill_id, MLFLOW_RUN_NOTE: note}
        with start_run(client, experiment_id, plan.title, tags) as run_id:
            client.log_batch(run_id, params=[Param(*each) for each in params.items()])
            now = int(time.time() * 1000)
            metrics = [
                Metric(f"{name}_rmse", value, now, place)
                for name, values in list_series(steps).items()
                for place, value in enumerate(values)
                if value is not None
            ]
            client.log_batch(run_id, metrics=metrics)
            with tempfile.TemporaryDirectory() as directory:
                Path(directory, PLOT_FILE).write_bytes(plot)
                Path(directory, TABLE_FILE).write_text(content + "\n", "utf-8")
                client.log_artifacts(run_id, directory)
        return locate_page(uri, client.get_run(run_id))
