"""Logs to MLflow in processes that die half-way: `python -m tests.support.killed_logging DIR`.

The store of each part is made in DIR: `points/mlflow.db` for the deaths while logging, one for each
death while a store is made, and `fresh/mlflow.db`, at which four processes meet. A training's
identity is its model directory's name, so copies of one directory stand for many trainings.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, active_count

import mlflow.models
from mlflow import MlflowClient

from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.report import load_report
from taxi_duration.registry import store as mlflow_store
from taxi_duration.registry.runs import log_training
from tests.support.forks import kill_at, run_forked
from tests.support.months import JANUARY
from tests.support.trained import make_report, save_training, train_on

KILLED = {
    "run made": (MlflowClient, "log_batch", 1),
    "within the trials": (MlflowClient, "log_metric", 2),
    "before the model": (MlflowClient, "create_logged_model", 1),
    "within the model": (MlflowClient, "log_model_artifacts", 1),
    "before the metrics": (MlflowClient, "log_batch", 2),
    "before the run is finished": (MlflowClient, "set_terminated", 4),
    "between log and register": (MlflowClient, "create_registered_model", 1),
    "within register": (MlflowClient, "create_model_version", 1),
    "between register and alias": (MlflowClient, "set_registered_model_alias", 1),
}
TERMINATED = "by SIGTERM"
KILLED_MAKING = {
    "making": (mlflow_store, "_create_experiment", 1),
    "made": (Path, "replace", 1),
}
PROCESSES, TRAININGS = 4, 2


def store_in(directory: Path) -> str:
    return f"sqlite:///{directory / 'mlflow.db'}"


def main(directory: Path) -> None:
    training = train_on(JANUARY, "extended")
    saved = save_training(directory / "models", training.model, make_report(training))
    report = load_report(saved)
    for name in ("unharmed", "first", *KILLED, TERMINATED, *map(str, range(TRAININGS))):
        shutil.copytree(saved, saved.with_name(name))

    def log_as(name: str, store: str) -> None:
        """Log the training as one of that identity."""
        os.environ["MLFLOW_TRACKING_URI"] = store
        log_training(CABS["green"], training.model, saved.with_name(name), report)

    def die(name: str, place: tuple[object, str, int], store: str) -> None:
        def act() -> None:
            kill_at(place[0], place[1], call=place[2])
            log_as(name, store)

        assert run_forked(act) == -signal.SIGKILL, name

    log_as("unharmed", store_in(directory / "unharmed"))  # imports what children need
    assert active_count() == 1, "a child would lack the other threads"
    for name, place in KILLED_MAKING.items():
        die("first", place, store_in(directory / name))
    _meet(directory / "fresh", log_as)
    for name, place in KILLED.items():
        die(name, place, store_in(directory / "points"))
    assert run_forked(lambda: _terminate(directory / "points", log_as)) == 143


def _meet(directory: Path, log_as: Callable[[str, str], None]) -> None:
    """Processes log two trainings to a store that is not there, all at once."""
    read, write = os.pipe()

    def start(number: int) -> int:
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until all are there and the other end is closed
            os._exit(run_forked(lambda: log_as(f"{number % TRAININGS}", store_in(directory))))
        return child

    children = [start(number) for number in range(PROCESSES)]
    os.close(write)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * PROCESSES, codes


def _terminate(directory: Path, log_as: Callable[[str, str], None]) -> None:
    """Get a SIGTERM, which leaves as the command line does, while the model is being logged."""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    def wait(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        Event().wait()

    signal.signal(signal.SIGTERM, leave)
    mlflow.models.Model.log = wait  # type: ignore[method-assign, assignment]
    log_as(TERMINATED, store_in(directory))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
