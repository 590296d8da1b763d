"""Backfills that are killed half-way, and two at once, each in a fork of one process.

Run as `python -m tests.support.killed_backfills JOBS`: JSON of the arguments of each by its name.
One named after a place in `KILLED` dies there. Each runs in the directory of its name, but those
whose name begins with `AT_ONCE` share one; `<name>.printed` gets all that it prints.
Prints JSON of the exit codes by name.
"""

import json
import os
import sys
from pathlib import Path
from threading import active_count

import matplotlib.figure  # noqa: F401
import mlflow.sklearn  # noqa: F401
import sklearn.linear_model  # noqa: F401
import skops.io  # noqa: F401
from mlflow import MlflowClient

from taxi_duration.__main__ import main as run
from taxi_duration.flows import tasks
from tests.support.forks import kill_at

KILLED = {
    "before the second model is logged": (tasks, "log_training", 2),
    "while the second model is logged": (MlflowClient, "create_logged_model", 2),
    "while the backfill is logged": (MlflowClient, "log_artifacts", 1),
}
AT_ONCE = "at once"


def main(jobs: dict[str, list[str]]) -> None:
    assert active_count() == 1, "a child would lack the other threads"
    children = {}
    for name, arguments in jobs.items():
        children[name] = os.fork()
        if children[name] == 0:
            _run(name, arguments)
    codes = {name: os.waitpid(child, 0)[1] for name, child in children.items()}
    json.dump({name: os.waitstatus_to_exitcode(code) for name, code in codes.items()}, sys.stdout)


def _run(name: str, arguments: list[str]) -> None:
    """Be that command, to the exit of Python, at which Prefect hands over its last log lines."""
    directory = Path(AT_ONCE if name.startswith(AT_ONCE) else name)
    directory.mkdir(exist_ok=True)
    with Path(f"{name}.printed").open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    os.chdir(directory)
    if name in KILLED:
        target, function, call = KILLED[name]
        kill_at(target, function, call=call)
    sys.argv = ["taxi_duration", "backfill", *arguments]
    sys.exit(run())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
