"""Runs that are asked to stop, killed, or lose their server: what is left, and what closes it."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from prefect import Flow, flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Completed, Running
from taxi_duration.flows.dead_runs import ATTEMPT, PROCESS, close_dead_runs

from taxi_duration.flows import dead_runs
from taxi_duration.flows.processes import describe_process, is_dead
from tests.conftest import REPOSITORY, connected_to
from tests.support.halted import GO, HALTED
from tests.support.months import SAMPLE
from tests.support.runs import Run, read_logs, read_report_artifact, run_local
from tests.support.servers import (
    PATIENCE_SECONDS,
    PROGRAMS,
    answers,
    find_free_port,
    make_environment,
    run_server,
    wait_until,
)

ARGUMENTS = (
    "--year", "2025", "--month", "1", "--features", "course",
    "--data-dir", str(SAMPLE), "--offline",
)  # fmt: skip
WITHIN_FIT = "taxi_duration.flows.tasks:fit_window"
WITHIN_MLFLOW_RUN = "taxi_duration.registry.runs:collect_metrics"
KILLED_AS_ITS_SERVER_STARTS = """
import os, signal, subprocess
from taxi_duration.flows.server import have_prefect_server

begin = subprocess.Popen._execute_child

def begin_and_die(self, args, *others):
    begin(self, args, *others)
    if "uvicorn" in args:
        print(self.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

subprocess.Popen._execute_child = begin_and_die
with have_prefect_server():
    pass
"""


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

    def wait_until_its_server_starts(self) -> None:
        def has_server() -> bool:
            assert self.process.poll() is None, self.errors
            return self.find_server() is not None

        wait_until(has_server, "the run to start its server")

    def find_server(self) -> psutil.Process | None:
        children = self.find_children()
        return next((child for child in children if "uvicorn" in child.cmdline()), None)

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
        return [status for (status,) in query(self.work / "mlflow.db", "SELECT status FROM runs")]


def query(database: Path, statement: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def start(directory: Path, halt_at: str, **variables: str) -> Started:
    work = directory / "work"
    work.mkdir(parents=True)
    environment = make_environment(
        HALT_AT=halt_at, HALT_IN=str(directory), PYTHONPATH=str(REPOSITORY), **variables
    )
    with (directory / "stdout").open("wb") as output, (directory / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.halted", *ARGUMENTS],
            cwd=work, env=environment, stdout=output, stderr=errors, start_new_session=True,
        )  # fmt: skip
    return Started(process, directory)


def start_alone(directory: Path, halt_at: str) -> Started:
    """With no server configured, so that the run starts one."""
    return start(
        directory,
        halt_at,
        PREFECT_HOME=str(directory / "home"),
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
    )


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
def ended(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Runs ended in all ways, started together: one interrupted while its server starts."""
    directory = tmp_path_factory.mktemp("ended")
    interrupted = start_alone(directory / "interrupted", WITHIN_FIT)
    terminated = start_alone(directory / "terminated", WITHIN_MLFLOW_RUN)
    killed = start(directory / "killed", WITHIN_MLFLOW_RUN, PREFECT_API_URL=prefect_server)
    interrupted.wait_until_its_server_starts()
    ended = {"interrupted": end(interrupted, signal.SIGINT)}
    terminated.wait_until_halted()
    server = terminated.find_server()
    assert server is not None
    server.send_signal(signal.SIGINT)  # as a terminal's Ctrl-C, which reaches all of a group
    killed.wait_until_halted()
    ended["killed"] = end(killed, signal.SIGKILL)
    time.sleep(0.5)  # one that heard it would refuse connections in a fifth of that
    port = server.cmdline()[server.cmdline().index("--port") + 1]
    assert answers(f"http://127.0.0.1:{port}/api/health"), "the server did not outlive Ctrl-C"
    return ended | {"terminated": end(terminated, signal.SIGTERM)}


@pytest.mark.parametrize(
    ("name", "exit_code", "signal_name"),
    [("terminated", 143, "SIGTERM"), ("interrupted", 130, "SIGINT")],
)
def test_stopped_run_says_so_in_one_line(
    ended: dict[str, Ended], name: str, exit_code: int, signal_name: str
) -> None:
    run = ended[name]
    assert run.exit_code == exit_code
    assert [line for line in run.errors.splitlines() if line.startswith("error")] == [
        f"error: stopped by {signal_name}: nothing was left half-written; run it again."
    ]
    assert "Traceback" not in run.errors
    assert (run.directory / "stdout").read_bytes() == b""


@pytest.mark.parametrize("name", ["terminated", "interrupted"])
def test_no_server_outlives_its_run(ended: dict[str, Ended], name: str) -> None:
    assert ended[name].orphans == []


def test_no_server_outlives_a_run_killed_before_it_knew_the_servers_pid(tmp_path: Path) -> None:
    environment = make_environment(
        PREFECT_HOME=str(tmp_path), PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true"
    )
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_AS_ITS_SERVER_STARTS],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True,
    ) as killed:  # fmt: skip
        assert killed.stdout is not None
        server = int(killed.stdout.readline())
        assert killed.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        try:
            wait_until(lambda: not psutil.pid_exists(server), "its server to end")
        finally:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(server).kill()


def test_terminated_run_is_crashed(ended: dict[str, Ended]) -> None:
    states = query(
        ended["terminated"].directory / "home" / "prefect.db",
        "SELECT run.state_name, state.message FROM flow_run AS run "
        "JOIN flow_run_state AS state ON run.state_id = state.id",
    )
    assert states == [("Crashed", "Execution was aborted by a termination signal.")]


def test_terminated_run_closes_its_mlflow_run(ended: dict[str, Ended]) -> None:
    assert ended["terminated"].read_mlflow_statuses() == ["KILLED"]


def test_stopped_run_leaves_nothing_half_written(ended: dict[str, Ended]) -> None:
    assert [*(ended["terminated"].work / "models").rglob(".*")] == []
    assert [*ended["interrupted"].work.iterdir()] == []


def find_runs_of(run: Started | Ended) -> list[FlowRun]:
    """The flow runs of a process, by the name that its log gave them."""
    (name,) = set(re.findall(r"Beginning flow run '(\S+)'", run.errors))
    with get_client(sync_client=True) as client:
        return [flow_run for flow_run in client.read_flow_runs() if flow_run.name == name]


@pytest.fixture(scope="module")
def next_run(ended: dict[str, Ended], prefect_server: str) -> Iterator[Run]:
    """The next start where a run was killed, having found what that left."""
    killed = ended["killed"]
    assert killed.exit_code == -signal.SIGKILL
    assert "RUNNING" in killed.read_mlflow_statuses()
    with connected_to(prefect_server):
        (flow_run,) = find_runs_of(killed)
        assert flow_run.state_name == "Running"
        yield run_local(killed.work, *ARGUMENTS)


@pytest.mark.usefixtures("prefect_api")
def test_next_start_closes_a_killed_run(ended: dict[str, Ended], next_run: Run) -> None:
    (flow_run,) = find_runs_of(ended["killed"])
    assert flow_run.state is not None
    assert flow_run.state.name == "Crashed"
    assert re.fullmatch(
        r"Its process \d+ on \S+ ended without a word: killed, or the machine stopped\.",
        flow_run.state.message or "",
    )
    with get_client(sync_client=True) as client:
        task_runs = client.read_task_runs()
    states = {each.state_name for each in task_runs if each.flow_run_id == flow_run.id}
    assert states == {"Completed", "Crashed"}


def test_next_start_completes_and_leaves_one_of_each(
    ended: dict[str, Ended], next_run: Run
) -> None:
    assert (next_run.exit_code, next_run.flow_run.state_name) == (0, "Completed")
    killed = ended["killed"]
    assert [*killed.work.glob("models/green/*")] == [killed.work / next_run.model_directory]
    assert [*killed.work.rglob("*.partial")] == []
    statuses = killed.read_mlflow_statuses()
    assert "RUNNING" not in statuses


@flow(name="main-flow")
def close_in_a_flow() -> None:
    close_dead_runs()


@flow(name="somebody-else's")
def not_ours() -> None:
    pass


@pytest.fixture(scope="module")
def dead_process() -> str:
    command = (
        "from taxi_duration.flows.processes import describe_process; print(describe_process())"
    )
    described = subprocess.run(
        [sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return described.stdout.strip()


@pytest.mark.usefixtures("prefect_api")
def test_only_runs_known_to_be_dead_are_closed(dead_process: str) -> None:
    elsewhere = "elsewhere.invalid:1:1.00"
    with get_client(sync_client=True) as client:

        def make_run(
            process: str | None, attempt: int = 1, of: Flow[..., Any] = close_in_a_flow
        ) -> UUID:
            made = client.create_flow_run(of, state=Running())
            if process is not None:
                client.update_flow_run_labels(made.id, {PROCESS: process, ATTEMPT: attempt})
            return made.id

        def read_states(runs: dict[str, UUID]) -> dict[str, str | None]:
            return {name: client.read_flow_run(run).state_name for name, run in runs.items()}

        runs = {
            "dead": make_run(dead_process),
            "cancelling": make_run(dead_process),
            "alive": make_run(describe_process()),
            "of another host": make_run(elsewhere),
            "of no known process": make_run(None),
            "started again": make_run(dead_process, attempt=0),
            "of another flow": make_run(dead_process, of=not_ours),
            "over": make_run(dead_process),
        }
        client.set_flow_run_state(runs["cancelling"], Cancelling(), force=True)
        client.set_flow_run_state(runs["over"], Completed(), force=True)
        before = read_states(runs)
        close_in_a_flow()
        assert read_states(runs) == before | {"dead": "Crashed", "cancelling": "Cancelled"}
        for run in runs.values():
            client.delete_flow_run(run)


@pytest.mark.usefixtures("prefect_api")
def test_runs_that_change_while_they_are_looked_at_stay_so_and_keep_no_other_from_being_closed(
    dead_process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, pid, _ = dead_process.rsplit(":", 2)
    names = ["deleted", "ended", "ended late", "left", "left too"]
    processes = {name: f"{place}:{pid}:{number}.00" for number, name in enumerate(names)}
    set_state = SyncPrefectClient.set_flow_run_state
    with get_client(sync_client=True) as client:
        runs = {
            name: client.create_flow_run(close_in_a_flow, name=name, state=Running()).id
            for name in names
        }
        for name, run in runs.items():
            client.update_flow_run_labels(run, {PROCESS: processes[name], ATTEMPT: 1})

        def change_and_tell(process: str) -> bool:
            if process == processes["deleted"]:
                client.delete_flow_run(runs["deleted"])
            if process == processes["ended"]:
                set_state(client, runs["ended"], Completed(), force=True)
            return is_dead(process)

        def change_and_set(asking: SyncPrefectClient, run: UUID, *state: Any, **named: Any) -> Any:
            if run == runs["ended late"]:
                set_state(client, run, Completed(), force=True)
            return set_state(asking, run, *state, **named)

        monkeypatch.setattr(dead_runs, "is_dead", change_and_tell)
        monkeypatch.setattr(SyncPrefectClient, "set_flow_run_state", change_and_set)
        state = close_in_a_flow(return_state=True)
        assert state.is_completed()
        left = {each.name: each.state_name for each in client.read_flow_runs()}
        assert {name: left.get(name) for name in names} == {
            "deleted": None,
            "ended": "Completed",
            "ended late": "Completed",
            "left": "Crashed",
            "left too": "Crashed",
        }
    assert state.state_details.flow_run_id is not None
    refusal = "run ended late could not be closed: Run is already in terminal state COMPLETED."
    logs = read_logs(state.state_details.flow_run_id, awaited=refusal)
    assert not any("ended late is now" in log.message for log in logs)


@pytest.mark.usefixtures("prefect_api")
def test_server_that_refuses_to_close_runs_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        response = httpx.Response(403, request=httpx.Request("PATCH", "http://127.0.0.1/api"))
        response.raise_for_status()

    monkeypatch.setattr(SyncPrefectClient, "update_flow_run_labels", refuse)
    state = close_in_a_flow(return_state=True)
    assert state.is_completed()
    warning = "runs of dead processes could not be closed: Client error '403 Forbidden'"
    assert state.state_details.flow_run_id is not None
    read_logs(state.state_details.flow_run_id, awaited=warning)


def test_run_outlives_a_restart_of_its_server(ended: dict[str, Ended], tmp_path: Path) -> None:
    port = find_free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = make_environment(
        PREFECT_HOME=str(ended["terminated"].directory / "home"),  # has its database already
        PREFECT_SERVER_API_HOST="127.0.0.1",
        PREFECT_SERVER_API_PORT=str(port),
    )

    def serve(log: str) -> AbstractContextManager[object]:
        command = [PROGRAMS / "prefect", "server", "start"]
        return run_server(command, environment, tmp_path / log, lambda: answers(f"{url}/health"))

    with serve("log"):
        run = start(tmp_path / "run", WITHIN_MLFLOW_RUN, PREFECT_API_URL=url)
        run.wait_until_halted()
    (run.directory / GO).touch()
    # The next thing it does is to publish the report, on no server.
    wait_until(lambda: "log-to-mlflow" in run.errors, "the run to go on")
    with serve("log of the second"), connected_to(url):
        assert run.process.wait(PATIENCE_SECONDS) == 0, run.errors
        (flow_run,) = find_runs_of(run)
        assert flow_run.state_name == "Completed"
        assert "minutes** on synthetic trips of 2025-02" in str(
            read_report_artifact(flow_run.id).data
        )
    assert "Traceback" not in run.errors


@pytest.fixture
def worker(prefect_api: str, tmp_path: Path) -> Iterator[Path]:
    """A worker whose runs halt; the directory they run in."""
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(REPOSITORY / "tests" / "faults" / "halted.py", runs)
    environment = make_environment(
        PREFECT_API_URL=prefect_api,
        PREFECT_WORKER_QUERY_SECONDS="1",
        PYTHONPATH=str(REPOSITORY),
        HALT_AT=WITHIN_MLFLOW_RUN,
        HALT_IN=str(runs),
    )
    command = [PROGRAMS / "prefect", "worker", "start", "-p", "stopped", "--type", "process"]
    pool = f"{prefect_api}/work_pools/stopped"
    with run_server(command, environment, tmp_path / "log", lambda: answers(pool), tmp_path):
        yield runs


def test_cancelled_run_of_a_worker_is_cancelled(worker: Path) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow(close_in_a_flow),
            "halted",
            work_pool_name="stopped",
            entrypoint="halted.py:main_flow",
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": str(worker)}}
            ],
        )
        given = {"year": 2025, "month": 1, "features": "course", "data_dir": str(SAMPLE)}
        run = client.create_flow_run_from_deployment(deployment, parameters=given)

        def is_final() -> bool:
            state = client.read_flow_run(run.id).state
            return state is not None and state.is_final()

        wait_until(lambda: (worker / HALTED).exists() or is_final(), "the run to halt")
        process = psutil.Process(int((worker / HALTED).read_text()))
        client.set_flow_run_state(run.id, Cancelling())
        wait_until(is_final, "the run to be cancelled")
        assert client.read_flow_run(run.id).state_name == "Cancelled"
    psutil.wait_procs([process], timeout=30)
    assert not process.is_running()
    statuses = {status for (status,) in query(worker / "mlflow.db", "SELECT status FROM runs")}
    assert statuses == {"KILLED"}
