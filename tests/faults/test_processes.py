"""Runs that are asked to stop, killed, or lose their server: what is left."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from taxi_duration.flows.server import SERVE
from tests.conftest import REPOSITORY, connected_to
from tests.support.deployments import read_run
from tests.support.halted import GO, HALTED, WITHIN_MLFLOW_RUN
from tests.support.months import SAMPLE
from tests.support.runs import read_mlflow_statuses, read_report_artifact, run_local
from tests.support.servers import (
    PATIENCE_SECONDS,
    find_free_port,
    make_environment,
    make_prefect_home,
    serve_prefect,
    wait_until,
)
from tests.support.watched import Receiver, receive

ARGUMENTS = (
    "--year", "2025", "--month", "1", "--features", "course",
    "--data-dir", str(SAMPLE), "--offline",
)  # fmt: skip


@dataclass(frozen=True)
class Started:
    """A run of orchestrate.py in a process group, directory and environment of its own."""

    process: subprocess.Popen[bytes]
    directory: Path

    def wait_until_halted(self) -> None:
        def is_halted() -> bool:
            assert self.process.poll() is None, self.errors
            return (self.directory / HALTED).exists()

        wait_until(is_halted, "the run to come to where it halts")

    def find_server(self) -> psutil.Process | None:
        children = self.find_children()
        return next((child for child in children if SERVE in child.cmdline()), None)

    def find_children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def errors(self) -> str:
        return (self.directory / "stderr").read_text("utf-8")


@dataclass(frozen=True)
class Ended:
    """What a run left: its exit code and error lines, its children still alive, its directory."""

    exit_code: int
    errors: str
    orphans: list[psutil.Process]
    directory: Path

    @property
    def work(self) -> Path:
        return self.directory / "work"

    def read_mlflow_statuses(self) -> list[str]:
        return read_mlflow_statuses(self.work / "mlflow.db")


def query(database: Path, statement: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def start(directory: Path, **variables: str) -> Started:
    work = directory / "work"
    work.mkdir(parents=True)
    environment = make_environment(
        HALT_AT=WITHIN_MLFLOW_RUN, HALT_IN=str(directory), PYTHONPATH=str(REPOSITORY), **variables
    )
    with (directory / "stdout").open("wb") as output, (directory / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.halted", *ARGUMENTS],
            cwd=work, env=environment, stdout=output, stderr=errors, start_new_session=True,
        )  # fmt: skip
    return Started(process, directory)


def end(started: Started, number: signal.Signals) -> Ended:
    children = started.find_children()
    started.process.send_signal(number)
    try:
        exit_code = started.process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        for process in [started.process, *children]:
            process.kill()
        raise
    _, orphans = psutil.wait_procs(children, timeout=30)
    for orphan in orphans:
        orphan.kill()
    return Ended(exit_code, started.errors, orphans, started.directory)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Whom the runs notify."""
    with receive() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def ended(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Two runs with servers of their own on one database, started together and ended."""
    directory = tmp_path_factory.mktemp("ended")
    home = make_prefect_home(directory / "home")
    runs = {
        name: start(
            directory / name,
            PREFECT_HOME=home,
            PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
            TAXI_DURATION_ALERT_URL=receiver.url(f"/{name}"),
        )
        for name in ("terminated", "killed")
    }
    for run in runs.values():
        run.wait_until_halted()
    server = runs["terminated"].find_server()
    assert server is not None
    # Out of reach of a terminal's Ctrl-C.
    assert os.getpgid(server.pid) != os.getpgid(runs["terminated"].process.pid)
    return {
        "killed": end(runs["killed"], signal.SIGKILL),
        "terminated": end(runs["terminated"], signal.SIGTERM),
    }


def test_stopped_run_says_so_in_one_line(ended: dict[str, Ended]) -> None:
    run = ended["terminated"]
    assert run.exit_code == 143
    assert [line for line in run.errors.splitlines() if line.startswith("error")] == [
        "error: stopped by SIGTERM: nothing was left half-written; run it again."
    ]
    assert "Traceback" not in run.errors
    assert (run.directory / "stdout").read_bytes() == b""


@pytest.mark.parametrize("name", ["terminated", "killed"])
def test_no_server_outlives_its_run(ended: dict[str, Ended], name: str) -> None:
    assert ended[name].orphans == []


def test_terminated_run_is_crashed(ended: dict[str, Ended]) -> None:
    states = query(
        ended["terminated"].directory.parent / "home" / "prefect.db",
        "SELECT run.state_name, state.message FROM flow_run AS run "
        "JOIN flow_run_state AS state ON run.state_id = state.id",
    )
    assert sorted(states) == [
        ("Crashed", "Execution was aborted by a termination signal."),
        ("Running", None),  # the killed one: on a server that stays an automation would end it
    ]


@pytest.mark.usefixtures("ended")
def test_terminated_run_tells_itself(receiver: Receiver) -> None:
    # A killed run cannot; on a server that stays an automation does.
    (told,) = receiver.told
    assert told.path == "/terminated"
    assert re.fullmatch(r"main-flow run \S+ is Crashed", told.content["subject"])
    assert "Execution was aborted by a termination signal." in told.content["text"]


def test_terminated_run_closes_its_mlflow_run(ended: dict[str, Ended]) -> None:
    assert ended["terminated"].read_mlflow_statuses() == ["KILLED"]


def test_stopped_run_leaves_nothing_half_written(ended: dict[str, Ended]) -> None:
    assert [*(ended["terminated"].work / "models").rglob(".*")] == []


@pytest.mark.usefixtures("prefect_api")
def test_next_start_completes_and_leaves_one_of_each(ended: dict[str, Ended]) -> None:
    killed = ended["killed"]
    assert killed.exit_code == -signal.SIGKILL
    assert "RUNNING" in killed.read_mlflow_statuses()
    next_run = run_local(killed.work, *ARGUMENTS)
    assert (next_run.exit_code, next_run.flow_run.state_name) == (0, "Completed")
    assert [*killed.work.glob("models/green/*")] == [killed.work / next_run.model_directory]
    assert [*killed.work.rglob("*.partial")] == []
    assert "RUNNING" not in killed.read_mlflow_statuses()


def test_run_outlives_a_restart_of_its_server(ended: dict[str, Ended], tmp_path: Path) -> None:
    port = find_free_port()
    home = str(ended["terminated"].directory.parent / "home")  # has its database already
    environment = make_environment(PREFECT_HOME=home)
    with serve_prefect(environment, tmp_path / "log", port) as url:
        run = start(tmp_path / "run", PREFECT_API_URL=url)
        run.wait_until_halted()
    (run.directory / GO).touch()
    # The next thing it does is to publish the report, on no server.
    wait_until(lambda: "log-to-mlflow" in run.errors, "the run to go on")
    with serve_prefect(environment, tmp_path / "log of the second", port), connected_to(url):
        assert run.process.wait(PATIENCE_SECONDS) == 0, run.errors
        (name,) = set(re.findall(r"Beginning flow run '(\S+)'", run.errors))
        flow_run = read_run(name)
        assert flow_run.state_name == "Completed"
        assert "minutes** on synthetic trips of 2025-02" in str(
            read_report_artifact(flow_run.id).data
        )
    assert "Traceback" not in run.errors
