"""What a run of `orchestrate.py` costs beside a Prefect flow that does nothing.

Whole processes on the wall clock, imports and the run's own server included. Each run starts from
a copy of the same directories, in which Prefect's database and MLflow's store were made before, so
that their migration is in neither.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import Data, Plan
from benchmarks.measure import ROOT, note
from benchmarks.tables import Part, Target, count, render_table

OURS, BARE = "`python orchestrate.py`", "a bare flow"
NOT_INHERITED = ("PREFECT_", "MLFLOW_", "AWS_", "TAXI_DURATION_")


class CommandError(Exception):
    """A measured command failed."""


@dataclass(frozen=True)
class Stores:
    """A Prefect home and a working directory with an MLflow store, put back before each run."""

    scratch: Path

    @property
    def live(self) -> Path:
        """Where runs happen; always the same, since MLflow's store holds its own address."""
        return self.scratch / "live"

    @property
    def environment(self) -> dict[str, str]:
        """The process's own environment without what would reach the user's own servers."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        return inherited | {
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(self.live / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        }

    def run(self, command: Sequence[str | Path]) -> float:
        """Run a command to its end in the working directory; return its seconds."""
        start = time.perf_counter()
        self._run(command)
        return time.perf_counter() - start

    def make(self, command: Sequence[str | Path]) -> dict[str, Any]:
        """Run a command in stores that it makes; return what `run_work.py` says of its run."""
        printed = self._run([ROOT / "benchmarks" / "run_work.py", *command])
        work: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return work

    def _run(self, command: Sequence[str | Path]) -> str:
        work = self.live / "work"
        work.mkdir(parents=True, exist_ok=True)
        ended = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=work,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
            raise CommandError(
                f"{Path(command[0]).name} ended with {ended.returncode}, saying {said}"
            )
        return ended.stdout

    def keep(self) -> None:
        """Remember the stores as they are."""
        shutil.copytree(self.live, self.scratch / "kept")

    def put_back(self) -> None:
        """Have the stores as they were remembered, and no model."""
        shutil.rmtree(self.live)
        shutil.copytree(self.scratch / "kept", self.live)


def measure_overhead(data: Data, plan: Plan) -> Part:
    """Measure both in turn on the pair of green months."""
    train, validate = data.green_pair
    year, month = (int(part) for part in train.stem.split("_")[-1].split("-"))
    with tempfile.TemporaryDirectory() as scratch:
        stores = Stores(Path(scratch))
        ours: list[str | Path] = [ROOT / "orchestrate.py", "--offline", "--data-dir", train.parent]
        ours += ["--year", str(year), "--month", str(month)]
        note("making the stores of Prefect and MLflow")
        work = stores.make(ours)
        shutil.rmtree(stores.live / "work" / "models")
        bare = [ROOT / "benchmarks" / "bare_flow.py", json.dumps(work)]
        stores.keep()
        seconds: dict[str, list[float]] = {OURS: [], BARE: []}
        for _ in range(plan.overhead_rounds):
            for name, command in ((OURS, ours), (BARE, bare)):
                stores.put_back()
                seconds[name].append(stores.run(command))
                note(f"{name}: {seconds[name][-1]:.2f} s")
    text = f"""
`{train.name}` and `{validate.name}`, whole processes with their imports and Prefect servers;
medians of {count(plan.overhead_rounds, "round")}, the two taking turns. The bare flow
(`benchmarks/bare_flow.py`) runs as many tasks, {work["tasks"]}, which do nothing but publish one
markdown artifact and log one MLflow run with our run's {len(work["params"])} parameters and
{len(work["metrics"])} metrics. Both databases exist before the clock starts. The bare flow is as a
user would write it: Prefect starts its server, and its heartbeat, whose end it waits for, is on,
where a run of ours turns it off with a server of its own.

{render_seconds(seconds)}
"""
    ratio = statistics.median(seconds[OURS]) / statistics.median(seconds[BARE])
    targets = [Target("`python orchestrate.py`, times a bare flow", 1.3, ratio)]
    return Part("overhead", "Weight of the pipeline", text, targets)


def render_seconds(seconds: Mapping[str, Sequence[float]]) -> str:
    """A row a command."""
    base = statistics.median(seconds[BARE])
    rows = []
    for name, runs in seconds.items():
        median = statistics.median(runs)
        spread = f"{median:.2f} ({min(runs):.2f} to {max(runs):.2f})"
        rows.append([name, spread, f"{median / base:.2f}x"])
    return render_table(["command", "seconds (range)", "time"], rows)
