"""Saves a model in processes that are killed half-way: `python -m tests.support.killed_saves DIR`.

DIR gets a models directory for each point, named after it.
"""

import shutil
import signal
import sys
from pathlib import Path

from taxi_duration import DurationModel, train_model
from taxi_duration.model import directory as store
from taxi_duration.model.features import FeatureSet
from tests.support.forks import kill_at, run_forked
from tests.support.months import JANUARY

MODEL_ID = "green/2025-01-0123abcd"
SAID = {"report.json": b"{}", "report.html": b"<p>", "README.md": b"# Model"}
"""What is said of the model."""

KILLED = {
    "before any file": (Path, "write_bytes", 1),
    "between model.skops and the report": (Path, "write_bytes", 2),
    "between the files and the manifest": (store, "dump_json", 1),
    "between manifest and renaming": (Path, "rename", 1),
    "after renaming": (shutil, "rmtree", 1),
}
KILLED_REPAIRS = {
    "before moving the damaged one": (Path, "rename", 1),
    "after moving the damaged one": (Path, "rename", 2),
}


def train() -> DurationModel:
    """A small model, which is soon written."""
    return train_model([JANUARY], FeatureSet("small", ("PU", "miles"), alphas=(1.0,)))


if __name__ == "__main__":
    model = train()
    for point, place in (KILLED | KILLED_REPAIRS).items():
        models = Path(sys.argv[1], point)
        if point in KILLED_REPAIRS:
            directory = store.save_model(models, MODEL_ID, model, SAID)
            (directory / store.REPORT_FILE).unlink()

        def save(models: Path = models, place: tuple[object, str, int] = place) -> None:
            target, name, call = place
            kill_at(target, name, call=call)
            store.save_model(models, MODEL_ID, model, SAID)

        assert run_forked(save) == -signal.SIGKILL, point
