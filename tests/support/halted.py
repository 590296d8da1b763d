"""orchestrate.py, halted where HALT_AT says: it writes `halted`, and goes on once there is `go`.

Run as `python -m tests.support.halted`, or by a worker, appended to a deployed `orchestrate.py`.
"""

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import orchestrate
from orchestrate import main_flow
from taxi_duration.cli.train import run_from_command_line

__all__ = ["GO", "HALTED", "WITHIN_MLFLOW_RUN", "main_flow"]

HALTED, GO = "halted", "go"
WITHIN_MLFLOW_RUN = "taxi_duration.registry.runs:collect_metrics"
"""Where a run has saved its model and begun to log it."""


def halt_at(function: str, directory: Path) -> None:
    """Have a function, given as `module:name`, wait; `halted` is there whole, and holds the pid."""
    module_name, _, name = function.partition(":")
    module = importlib.import_module(module_name)
    halted = getattr(module, name)

    def halt(*arguments: Any, **named: Any) -> Any:
        written = directory / f".{HALTED}.{os.getpid()}"
        written.write_text(str(os.getpid()))
        written.rename(directory / HALTED)
        while not (directory / GO).exists():
            time.sleep(0.05)
        return halted(*arguments, **named)

    mock.patch.object(module, name, halt).start()


if "HALT_AT" in os.environ:
    halt_at(os.environ["HALT_AT"], Path(os.environ["HALT_IN"]))

if __name__ == "__main__":
    sys.exit(run_from_command_line(main_flow, orchestrate.LocalOptions, orchestrate.prepare))
