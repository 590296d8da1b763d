"""Changes the champion in processes that die half-way: `... killed_promotions DATABASE DIR`.

Each death has a copy of the store in DIR, in the directory of its action and its point.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import active_count

from mlflow import MlflowClient

from taxi_duration.registry.champion import promote, promote_candidate, rollback
from tests.support.forks import kill_at, run_forked
from tests.support.registered import GREEN, IDS

ACTIONS: dict[str, Callable[[], object]] = {
    "gate": lambda: promote_candidate(GREEN, "3", IDS["3"], IDS["2"], "Reason 3."),
    "promote": lambda: promote(GREEN, "3"),
    "rollback": lambda: rollback(GREEN),
    "rollback from": lambda: rollback(GREEN, "2"),
}
"""What is done to a store in which 1 was champion, and 2 is."""

POINTS = {
    "before its tag": ("set_model_version_tag", 1),
    "between tag and alias": ("set_registered_model_alias", 1),
}


def main(database: Path, directory: Path) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{shutil.copy(database, directory)}"
    promote(GREEN, "1")
    promote(GREEN, "2")
    assert active_count() == 1, "a child would lack the other threads"
    for action, act in ACTIONS.items():
        for point, (name, call) in POINTS.items():
            _die(act, directory, directory / action / point, name, call)


def _die(act: Callable[[], object], directory: Path, scene: Path, name: str, call: int) -> None:
    scene.mkdir(parents=True)
    store = f"sqlite:///{shutil.copy(directory / 'mlflow.db', scene)}"

    def begin() -> None:
        os.environ["MLFLOW_TRACKING_URI"] = store
        kill_at(MlflowClient, name, call=call)
        act()

    assert run_forked(begin) == -signal.SIGKILL, scene


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
