"""A Prefect flow that does nothing: so many tasks, one markdown artifact, one MLflow run.

`python bare_flow.py '{"tasks": 10, "markdown": "...", "params": {}, "metrics": {}}'` in a directory
with an `mlflow.db`. What `orchestrate.py` costs beyond it is the work and our own weight.
"""

import json
import sys
from typing import Any

import mlflow
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact


@task(name="nothing")
def do_nothing(step: int) -> int:
    """Pass a number on."""
    return step


@task(name="log-to-mlflow")
def log_run(params: dict[str, str], metrics: dict[str, float]) -> str:
    """Log one MLflow run."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    with mlflow.start_run() as run:
        mlflow.log_params(params)
        mlflow.log_metrics(metrics)
    return str(run.info.run_id)


@task(name="publish-report")
def publish_report(markdown: str) -> None:
    """Publish one artifact."""
    create_markdown_artifact(markdown, key="bare-report")


@flow(name="bare-flow")
def bare_flow(tasks: int, markdown: str, params: dict[str, Any], metrics: dict[str, float]) -> None:
    """Run so many tasks, the last two of which log and publish."""
    for step in range(tasks - 2):
        do_nothing(step)
    log_run(params, metrics)
    publish_report(markdown)


if __name__ == "__main__":
    bare_flow(**json.loads(sys.argv[1]))
