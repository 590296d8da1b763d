"""Run a flow file, and print in a last line, as JSON, what its run was made of.

`python run_work.py orchestrate.py ...` in a directory whose stores hold no run. A process of its
own, since a run starts a Prefect server, which ends with it.
"""

import json
import runpy
import sys
from pathlib import Path

import mlflow
from prefect.client.orchestration import get_client


def read_work() -> dict[str, object]:
    """How many tasks it had, its artifact, and its MLflow parameters and metrics."""
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs()
        artifacts = client.read_artifacts()
    store = mlflow.MlflowClient("sqlite:///mlflow.db")
    runs = store.search_runs([each.experiment_id for each in store.search_experiments()])
    # Runs within the run, if there are any, are part of what a bare flow need not do.
    (run,) = (each for each in runs if "mlflow.parentRunId" not in each.data.tags)
    (markdown,) = (each.data for each in artifacts if each.type == "markdown")
    return {
        "tasks": len(tasks),
        "markdown": markdown,
        "params": run.data.params,
        "metrics": run.data.metrics,
    }


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    print(json.dumps(read_work()))
