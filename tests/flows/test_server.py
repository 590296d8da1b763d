"""The run's own server, and heartbeats to a server that stays."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.context import TagsContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

from taxi_duration.errors import SourceError
from taxi_duration.flows import server
from taxi_duration.flows.server import TAG, have_heartbeats, have_prefect_server, is_temporary
from tests.conftest import REPOSITORY, connected_to
from tests.support.months import SAMPLE
from tests.support.runs import OF_NO_DEPLOYMENT, run_local
from tests.support.servers import make_environment, wait_until
from tests.support.watched import forget_automations, receive, start_script, watch
from tests.support.web import Tlc, hang

SAMPLE_MONTH = ("--year", "2025", "--month", "1", "--data-dir", str(SAMPLE), "--offline")

OF_OTHERS = f"""
import threading, time
from prefect import flow, tags
def wait():
    time.sleep(600)
def run(name, *its_tags):
    with tags(*its_tags):
        flow(wait, name=name).with_options(flow_run_name="of-others-" + name)()
threading.Thread(target=run, args=("main-flow",), daemon=True).start()
run("their-flow", "{TAG}")
"""
"""A flow of the same name as ours, and one with the same tag."""


def read_runs(*names: str) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        filtered = OF_NO_DEPLOYMENT.model_copy(
            update={"name": FlowRunFilterName(any_=list(names)) if names else None}
        )
        return client.read_flow_runs(flow_run_filter=filtered)


@pytest.mark.timeout(400)
def test_dead_run_is_crashed_and_told_and_no_other(
    prefect_server: str, tlc: Tlc, tmp_path: Path
) -> None:
    tlc.always = hang
    waiting = {
        "PREFECT_API_URL": prefect_server,
        "TAXI_DURATION_TRANSFER_READ_SECONDS": "600",
        **tlc.environment,
    }
    with ExitStack() as stack:
        stack.enter_context(connected_to(prefect_server))
        receiver = stack.enter_context(receive())
        stack.callback(forget_automations)
        assert watch("--webhook", receiver.url()) == 0
        before = {each.id for each in read_runs()}
        arguments = ("--year", "2023", "--month", "1")
        others = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", OF_OTHERS],
                env=make_environment(
                    PREFECT_API_URL=prefect_server, PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30"
                ),
            )
        )
        stack.callback(others.kill)
        slow = stack.enter_context(start_script(*arguments, directory=tmp_path / "slow", **waiting))
        wait_until(lambda: len(tlc.requests) == 1, "the slow run to fetch")
        wait_until(
            lambda: len(read_runs("of-others-main-flow", "of-others-their-flow")) == 2,
            "the runs of others",
        )
        (slow_run,) = (
            each
            for each in read_runs()
            if each.id not in before and not each.name.startswith("of-others")
        )
        (tmp_path / "done").mkdir()
        done = run_local(tmp_path / "done", *SAMPLE_MONTH).flow_run
        dying = stack.enter_context(
            start_script(*arguments, directory=tmp_path / "dying", **waiting)
        )
        wait_until(lambda: len(tlc.requests) == 2, "the dying run to fetch")
        (dead_run,) = (
            each
            for each in read_runs()
            if each.id not in {*before, slow_run.id, done.id}
            and not each.name.startswith("of-others")
        )
        assert [each.state_name for each in read_runs(dead_run.name)] == ["Running"]

        others.kill()
        dying.kill()
        wait_until(
            lambda: read_runs(dead_run.name)[0].state_name == "Crashed",
            "the dead run to be Crashed",
        )
        (told,) = receiver.wait_for(f"main-flow run {dead_run.name} is Crashed")
        assert (
            "Its heartbeats stopped: its process was killed, or its machine "
            in told.content["text"]
        )
        states = {each.name: each.state_name for each in read_runs() if each.id not in before}
        assert states == {
            dead_run.name: "Crashed",
            slow_run.name: "Running",
            done.name: "Completed",
            "of-others-main-flow": "Running",
            "of-others-their-flow": "Running",
        }
        slow.terminate()
        slow.wait()
        with get_client(sync_client=True) as client:
            for each in read_runs("of-others-main-flow", "of-others-their-flow"):
                client.delete_flow_run(each.id)


def test_run_without_a_server_has_one_that_ends_with_it_and_keeps_its_runs(tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    ran = subprocess.run(
        [sys.executable, REPOSITORY / "orchestrate.py", *SAMPLE_MONTH],
        cwd=empty,
        env=make_environment(
            PREFECT_HOME=str(tmp_path / "home"),  # whose database this first start makes
            PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
            COLUMNS="200",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "green trips, extended features, trained on 2025-01, validated on 2025-02" in ran.stdout
    shown = " ".join(ran.stdout.split())
    assert "prefect server start, then open http://127.0.0.1:4200/artifacts/artifact/" in shown
    assert not re.search("Traceback|Warning|ERROR", ran.stderr)
    assert {"models", "mlflow.db"} <= {path.name for path in empty.iterdir()}
    assert not [each for each in psutil.process_iter(["cmdline"]) if is_server_of(each, tmp_path)]
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        assert [*database.execute("SELECT state_name FROM flow_run")] == [("Completed",)]
        logged = {message for (message,) in database.execute("SELECT message FROM log")}
    assert {"Finished in state Completed()"} <= logged


def is_server_of(process: psutil.Process, home: Path) -> bool:
    try:
        return server.SERVE in process.info["cmdline"] and str(home) in str(process.environ())
    except psutil.Error:
        return False


def test_own_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SERVE", "raise SystemExit('no such table')")
    with (
        temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}),
        pytest.raises(SourceError) as raised,
        server.have_prefect_server(),
    ):
        pytest.fail("it must not come so far")
    assert str(raised.value) == (
        "the run's own Prefect server did not start (no such table): check that "
        f"{os.environ['PREFECT_HOME']} is writable and its prefect.db whole, or set "
        "PREFECT_API_URL to the address of a server."
    )


def test_server_that_stays_is_used_as_it_is() -> None:
    url = "http://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: url}), have_prefect_server(pytest.fail):
        assert PREFECT_API_URL.value() == url
        assert not is_temporary()


@pytest.mark.parametrize(
    ("server", "frequency", "expected"),
    [
        (None, None, (180, set())),
        ("http://127.0.0.1:9/api", None, (30, {TAG})),
        ("http://127.0.0.1:9/api", 60, (60, set())),
    ],
    ids=["its own server", "server that stays", "frequency of the user"],
)
def test_run_is_tagged_only_if_it_sends_heartbeats_often_to_a_server_that_stays(
    server: str | None, frequency: int | None, expected: tuple[int, set[str]]
) -> None:
    settings = {PREFECT_API_URL: server, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: frequency}
    given = {name: value for name, value in settings.items() if value}
    with temporary_settings(given), have_heartbeats():
        assert (
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value(),
            TagsContext.get().current_tags,
        ) == expected
