"""Months reduced in threads and on Dask: the same figures, whatever dies."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import cloudpickle
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort

from taxi_duration.cli.ending import end_in_one_line
from taxi_duration.cli.train import run_flow
from taxi_duration.data.month import Month
from taxi_duration.errors import InputError
from taxi_duration.flows import backfill, runners
from taxi_duration.flows.options import BackfillOptions
from taxi_duration.flows.runners import ReducedMonth
from tests.conftest import REPOSITORY, connected_to
from tests.support.clusters import Cluster, serve_cluster, serve_scheduler
from tests.support.months import write_month
from tests.support.runs import Run, read_task_runs, run_local
from tests.support.servers import PATIENCE_SECONDS, find_free_port, make_environment, wait_until
from tests.support.web import Tlc, answer_status, halt_after, hang, serve_tlc, trickle

REAL_SPAN = Month(2023, 4).window(4)
SMALL_SPAN = Month(2024, 4).window(4)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Tlc]:
    """The TLC's place, which this process and the workers ask; it holds small months."""
    made = tmp_path_factory.mktemp("made")
    with serve_tlc(tmp_path_factory.mktemp("tlc")) as tlc, pytest.MonkeyPatch.context() as patched:
        for number, month in enumerate(SMALL_SPAN):
            name = month.file_name("green")
            path = write_month(made / name, month=month, minutes=10.0 + number)
            tlc.files[name] = path.read_bytes()
        for variable, value in tlc.environment.items():
            patched.setenv(variable, value)
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made / 'mlflow.db'}")
        with connected_to(prefect_server):
            yield tlc


@pytest.fixture
def tlc(web: Tlc) -> Iterator[Tlc]:
    """The server, asked nothing yet, with no fault to show."""
    web.released.clear()
    web.requests.clear()
    yield web
    web.answers.clear()
    web.always = None
    web.released.set()


@pytest.fixture(scope="module")
def cluster(
    web: Tlc,
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    environment = {
        "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(REPOSITORY), **web.environment,
    }  # fmt: skip
    with serve_cluster(tmp_path_factory.mktemp("cluster"), **environment) as served:
        yield served


@dataclass(frozen=True)
class Ran:
    """A command that ran in this process: its exit code, and what it printed on standard error."""

    exit_code: int
    errors: str
    done: Any = None

    @property
    def said(self) -> list[str]:
        return [line for line in self.errors.splitlines() if line.startswith("error")]


def run_backfill(directory: Path, capsys: pytest.CaptureFixture[str], **given: object) -> Ran:
    """`python -m taxi_duration backfill` over the small months, in a directory."""
    values = {
        "from_month": str(SMALL_SPAN[0]), "to_month": str(SMALL_SPAN[-1]), "features": "course",
        **given,
    }  # fmt: skip
    done: list[backfill.Backfill] = []

    def run() -> None:
        done.append(run_flow(backfill.backfill, BackfillOptions, backfill.prepare, values))

    directory.mkdir(exist_ok=True)
    capsys.readouterr()
    with contextlib.chdir(directory):
        exit_code = end_in_one_line(run)
    return Ran(exit_code, capsys.readouterr().err, done[0] if done else None)


WINDOW = ("--year", "2024", "--month", "3", "--train-months", "3")


def find_newest_backfill() -> UUID:
    with get_client(sync_client=True) as client:
        (newest,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["backfill"])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
    return newest.id


def train(directory: Path, *arguments: str) -> Run:
    """Train with an MLflow store of its own, so that no champion of another test is faced."""
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{directory / 'mlflow.db'}")
        return run_local(directory, *WINDOW, *arguments)


@pytest.fixture(scope="module")
def trained_alone(web: Tlc, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A window trained one month after another."""
    return train(tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize("runner", ["threads", "dask"])
def test_a_window_trained_by_a_runner_has_the_same_report(
    runner: str, trained_alone: Run, tlc: Tlc, tmp_path: Path
) -> None:
    run = train(tmp_path / "run", "--runner", runner)
    assert run.exit_code == 0, run.output
    assert run.report_bytes == trained_alone.report_bytes
    assert "distributed" not in run.output


def list_kept(directory: Path) -> dict[str, str]:
    """The files of month sums below a directory, and what is in them."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.glob("models/sums/*.npz")
    }


def test_real_months_backfilled_on_dask_come_to_the_same_table(
    cluster: Cluster,
    tlc: Tlc,
    real_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for month in REAL_SPAN:
        name = month.file_name("green")
        tlc.files[name] = (real_data / name).read_bytes()
    span = {
        "from_month": str(REAL_SPAN[0]), "to_month": str(REAL_SPAN[-1]), "features": "extended",
    }  # fmt: skip
    received: list[ReducedMonth] = []
    receive = runners._receive

    def note(reduced: ReducedMonth, kept: Path) -> Any:
        received.append(reduced)
        return receive(reduced, kept)

    alone = run_backfill(tmp_path / "alone", capsys, **span)
    monkeypatch.setattr(runners, "_receive", note)
    on_dask = run_backfill(
        tmp_path / "on dask", capsys, **span, runner="dask", dask_address=cluster.address
    )
    assert (alone.exit_code, on_dask.exit_code) == (0, 0), alone.errors + on_dask.errors
    assert on_dask.done.steps == alone.done.steps
    assert [(step.validation, step.trips, round(step.model, 4)) for step in alone.done.steps] == [
        ("2023-02", 62_574, 4.5229),
        ("2023-03", 69_392, 4.6847),
        ("2023-04", 62_979, 4.6974),
    ]
    for step in alone.done.steps:
        report = Path("models", step.model_id, "report.json")
        assert (tmp_path / "on dask" / report).read_bytes() == (
            tmp_path / "alone" / report
        ).read_bytes()

    # Each month was fetched and summed by a worker, below the worker's own directory ...
    kept = {worker.directory.name: list_kept(worker.directory) for worker in cluster.workers}
    assert all(kept.values())
    by_workers = {name: digest for sums in kept.values() for name, digest in sums.items()}
    here = list_kept(tmp_path / "on dask")
    assert here == {name: digest for name, digest in by_workers.items() if name in here}
    assert here == list_kept(tmp_path / "alone")
    assert not (tmp_path / "on dask" / "data").exists()
    # ... and what came back is its sums, tables whose size no trip changes, and words.
    assert len(received) == len(REAL_SPAN)
    tables = {len(cloudpickle.dumps((each.month.medians, each.month.profile))) for each in received}
    assert max(tables) - min(tables) < 100
    for each in received:
        assert each.sums is not None
        assert len(cloudpickle.dumps(each)) < len(each.sums) + max(tables) + 3000


def test_a_worker_killed_within_a_task_is_done_without(
    cluster: Cluster, tlc: Tlc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = run_backfill(tmp_path / "alone", capsys)
    tlc.requests.clear()
    forget_months(cluster)
    with cluster.add_worker("doomed") as doomed:
        tlc.answers[:] = [halt_after(100)] * 3
        with ThreadPoolExecutor(1) as other:

            def kill() -> None:
                wait_until(lambda: len(tlc.requests) == 3, "three workers with a month each")
                doomed.process.kill()
                doomed.process.wait()
                tlc.released.set()

            killing = other.submit(kill)
            ran = run_backfill(
                tmp_path / "killed", capsys, runner="dask", dask_address=cluster.address
            )
            killing.result()
    assert ran.exit_code == 0, ran.errors
    assert ran.done.steps == alone.done.steps
    assert len(tlc.requests) > len(SMALL_SPAN)
    task_runs = read_task_runs(find_newest_backfill(), expected=4 + 5 * 3 + 2)
    assert {each.state_name for each in task_runs.values()} == {"Completed"}


def forget_months(cluster: Cluster) -> None:
    for worker in cluster.workers:
        for path in worker.directory.glob("data/*"):
            path.unlink()


def test_dask_that_is_not_installed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda _: None)
    ran = run_backfill(tmp_path, capsys, runner="dask")
    assert (ran.exit_code, ran.errors) == (
        2,
        "error: runner dask needs prefect-dask, which is not installed: pip install "
        "'prefect-dask>=0.3.7,<1', on the workers too, or give another runner.\n",
    )


def test_a_scheduler_that_does_not_answer_is_named(
    tlc: Tlc, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{find_free_port()}"
    ran = run_backfill(tmp_path, capsys, runner="dask", dask_address=address)
    assert (ran.exit_code, ran.said) == (
        1,
        [
            f"error: Dask scheduler {address} does not answer within 1 s: start it (dask "
            "scheduler), or check dask_address."
        ],
    )
    assert "Traceback" not in ran.errors


def test_a_worker_with_other_code_is_refused(
    cluster: Cluster,
    tlc: Tlc,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runners, "identify_code", lambda _: "another version's")
    ran = run_backfill(tmp_path, capsys, runner="dask", dask_address=cluster.address)
    assert (ran.exit_code, ran.said) == (
        1,
        [
            "error: this worker's taxi_duration, or a library it computes with, is not of the "
            "version that asks: bring every worker to the same checkout and requirements.lock, "
            "and restart it."
        ],
    )
    assert "Traceback" not in ran.errors


def test_errors_come_back_whole_and_a_busy_source_is_asked_again(
    cluster: Cluster, tlc: Tlc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = SMALL_SPAN[2].file_name("green")
    tlc.answers[:] = [answer_status(503, Retry_After="1")]
    was, tlc.files[bad] = tlc.files[bad], b"no parquet file"
    forget_months(cluster)
    try:
        ran = run_backfill(tmp_path, capsys, runner="dask", dask_address=cluster.address)
    finally:
        tlc.files[bad] = was
    assert ran.exit_code == 2, ran.errors
    assert len(ran.said) == 1
    assert bad in ran.said[0]
    assert "Traceback" not in ran.errors
    assert len(tlc.requests) > len(set(tlc.requests))


def test_a_scheduler_that_ends_is_named(
    web: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    with (
        serve_scheduler(tmp_path, **environment) as (address, process),
        ThreadPoolExecutor(1) as other,
    ):

        def kill() -> None:
            wait_until(
                lambda: "has no worker: the run waits" in caplog.text,
                "its connection to the scheduler",
            )
            process.kill()

        killing = other.submit(kill)
        ran = run_backfill(tmp_path / "run", capsys, runner="dask", dask_address=address)
        killing.result()
    assert ran.exit_code == 1
    assert len(ran.said) == 1
    assert ran.said[0].startswith(f"error: Dask scheduler {address} ended, or lost a task (")
    assert "Traceback" not in ran.errors


def test_a_scheduler_without_the_package_is_named(
    web: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_scheduler(tmp_path) as (address, _):
        ran = run_backfill(tmp_path / "run", capsys, runner="dask", dask_address=address)
    assert (ran.exit_code, ran.said) == (
        1,
        [
            "error: the runner cannot import what a task needs (No module named 'taxi_duration'): "
            "start the Dask scheduler and its workers in the checkout, by python -m dask, with "
            "the same requirements.lock."
        ],
    )
    assert "Traceback" not in ran.errors


RUN_AS_IN_A_TERMINAL = """
import signal, sys
from taxi_duration.__main__ import main

# What is started in the background, as a test suite may be, ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    sys.exit(main())
"""


@dataclass(frozen=True)
class Ended:
    exit_code: int
    errors: str
    orphans: list[psutil.Process]


ENDINGS = {
    "threads": ("SIGINT", 130),
    "dask": ("SIGTERM", 143),
}


@pytest.fixture(scope="module")
def ended(
    web: Tlc,
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Ended]:
    """Backfills with each runner, started together and stopped within a task."""
    ended = {}
    with contextlib.ExitStack() as running:
        started = {}
        for runner in ENDINGS:
            directory = tmp_path_factory.mktemp(runner)
            tlc = running.enter_context(serve_tlc(directory))
            tlc.always = trickle if runner == "threads" else hang
            tlc.files.update(web.files)
            errors = running.enter_context((directory / "stderr").open("wb"))
            process = subprocess.Popen(
                [
                    sys.executable, "-c", RUN_AS_IN_A_TERMINAL, "backfill", "--runner", runner,
                    "--from", str(SMALL_SPAN[0]), "--to", str(SMALL_SPAN[-1]),
                ],
                cwd=directory,
                env=make_environment(
                    PREFECT_API_URL=prefect_server,
                    PYTHONPATH=str(REPOSITORY),
                    **tlc.environment,
                ),
                stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            started[runner] = (process, tlc, directory)
        for runner, (process, tlc, directory) in started.items():
            wait_until(lambda tlc=tlc: len({*tlc.requests}) > 1, f"two months at once in {runner}")
            children = psutil.Process(process.pid).children(recursive=True)
            name, _ = ENDINGS[runner]
            if name == "SIGINT":
                os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C, to all of a group
            else:
                process.send_signal(getattr(signal, name))
            exit_code = process.wait(PATIENCE_SECONDS)
            _, orphans = psutil.wait_procs(children, timeout=30)
            for orphan in orphans:
                orphan.kill()
            ended[runner] = Ended(exit_code, (directory / "stderr").read_text(), orphans)
    return ended


@pytest.mark.parametrize("runner", ENDINGS)
def test_a_stopped_run_ends_in_one_line_and_leaves_no_process(
    ended: dict[str, Ended], runner: str
) -> None:
    name, exit_code = ENDINGS[runner]
    assert ended[runner].exit_code == exit_code, ended[runner].errors
    said = [line for line in ended[runner].errors.splitlines() if line.startswith("error")]
    assert said == [f"error: stopped by {name}: nothing was left half-written; run it again."]
    assert "Traceback" not in ended[runner].errors
    assert ended[runner].orphans == []


@pytest.mark.parametrize("server", [None, "http://127.0.0.1:4200/api", "http://localhost:4200/api"])
def test_workers_elsewhere_need_a_server_that_they_reach(server: str | None) -> None:
    with pytest.raises(
        InputError, match=r"tcp://10\.0\.0\.5:8786 is on another machine, and PREFEC"
    ):
        runners.check_reachable("tcp://10.0.0.5:8786", server)


def test_workers_here_use_the_server_here() -> None:
    runners.check_reachable("tcp://127.0.0.1:8786", None)
    runners.check_reachable("tcp://10.0.0.5:8786", "http://10.0.0.4:4200/api")
