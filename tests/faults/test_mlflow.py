"""The MLflow store under kills, locks, and servers and files that are none."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run as MlflowRun

from taxi_duration import SourceError, load_model
from taxi_duration.data.parquet import read_trips
from taxi_duration.data.schema import CABS
from taxi_duration.errors import TransientSourceError
from taxi_duration.evaluation.report import load_report
from taxi_duration.flows import tasks
from taxi_duration.registry import runs
from taxi_duration.registry import store as mlflow_store
from taxi_duration.registry.resolve import FoundModel, load_champion
from taxi_duration.registry.runs import (
    CANDIDATE,
    REGISTERED_MODEL,
    TrackedRun,
    log_training,
)
from taxi_duration.registry.store import EXPERIMENT
from tests.conftest import REPOSITORY
from tests.support.killed_logging import (
    KILLED,
    KILLED_MAKING,
    PROCESSES,
    TERMINATED,
    TRAININGS,
    store_in,
)
from tests.support.months import FEBRUARY, SAMPLE
from tests.support.runs import read_report_artifact, read_task_runs, run_local
from tests.support.servers import find_free_port, make_environment

SAMPLE_MONTHS = ("--data-dir", str(SAMPLE), "--offline", "--year", "2025", "--month", "1")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What processes left that were killed while they logged; nothing was repaired yet."""
    directory = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.support.killed_logging", str(directory)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=make_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def saved(killed: Path) -> Path:
    """A model directory, as a training run wrote it."""
    return next(each for each in (killed / "models/green").iterdir() if each.name[:5] == "2025-")


@pytest.fixture(scope="module")
def fresh(killed: Path) -> Path:
    """A store to copy, whose artifacts are not needed."""
    return killed / "unharmed" / "mlflow.db"


def read_runs(store: str) -> list[MlflowRun]:
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def log_to(store: str, directory: Path) -> TrackedRun:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", store)
        model, report = load_model(directory), load_report(directory)
        return log_training(CABS["green"], model, directory, report)


def check_exactly_one(store: str, name: str) -> MlflowRun:
    """Hold what a store has of one training against what it must have."""
    client = mlflow.MlflowClient(store)
    identity = f"green/{name}"
    of_it = [run for run in read_runs(store) if run.data.tags["model_id"] == identity]
    assert {run.info.status for run in of_it} == {"FINISHED"}
    (run,) = [run for run in of_it if "mlflow.parentRunId" not in run.data.tags]
    within = [each for each in of_it if each is not run]
    assert [each.data.tags["mlflow.parentRunId"] for each in within] == [run.info.run_id] * 3
    assert run.data.metrics["validation_rmse"] == 5.5
    (logged,) = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    )
    assert logged.status == "READY"
    (version,) = client.search_model_versions(f"tags.model_id = '{identity}'")
    assert version.name == REGISTERED_MODEL
    assert (version.run_id, version.source) == (run.info.run_id, f"models:/{logged.model_id}")
    return run


@pytest.mark.parametrize("name", [*KILLED, TERMINATED])
def test_logging_again_after_a_death_leaves_one_run_one_version_one_alias(
    killed: Path, name: str
) -> None:
    store, directory = store_in(killed / "points"), killed / "models" / "green" / name
    tracked = log_to(store, directory)
    run = check_exactly_one(store, name)
    assert tracked.run_id == run.info.run_id
    candidate = mlflow.MlflowClient(store).get_model_version_by_alias(REGISTERED_MODEL, CANDIDATE)
    assert (str(candidate.version), candidate.run_id) == (tracked.version, tracked.run_id)
    assert log_to(store, directory) == tracked
    check_exactly_one(store, name)


def test_a_running_run_of_a_server_is_spared_for_an_hour(
    killed: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "find_database", lambda _: None)  # as of a server
    store, identity = store_in(tmp_path), f"green/{saved.name}"
    log_to(store, saved)
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    now = int(1000 * time.time())
    old, new = (
        client.create_run(experiment.experiment_id, start_time=begun, tags={"model_id": identity})
        for begun in (now - 3_601_000, now)
    )
    failed = client.create_run(experiment.experiment_id, tags={"model_id": identity})
    client.set_terminated(failed.info.run_id, "FAILED")
    other = client.create_run(experiment.experiment_id, tags={"model_id": "green/other"})
    log_to(store, saved)
    kept = {run.info.run_id for run in read_runs(store)}
    assert kept & {run.info.run_id for run in (old, new, failed, other)} == {
        new.info.run_id,
        other.info.run_id,
    }


def test_a_model_logged_after_a_kill_predicts(killed: Path, saved: Path) -> None:
    store = store_in(killed / "making")
    log_to(store, saved)
    trips = read_trips(FEBRUARY).head(100)
    mlflow.set_tracking_uri(store)
    try:
        logged = mlflow.pyfunc.load_model(f"models:/{REGISTERED_MODEL}@{CANDIDATE}")
        predicted = logged.predict(trips)
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(predicted, load_model(saved).predict(trips))


@pytest.mark.parametrize("point", KILLED_MAKING)
def test_a_store_killed_while_it_is_made_is_made_by_the_next(
    killed: Path, saved: Path, point: str
) -> None:
    directory = killed / point
    log_to(store_in(directory), saved)
    check_exactly_one(store_in(directory), saved.name)
    left = {path.name for path in directory.iterdir()}
    assert left == {"mlflow.db", "mlflow.db.lock", "mlartifacts"}


def test_eight_processes_meet_at_a_store_that_is_not_there_yet(killed: Path) -> None:
    store = store_in(killed / "fresh")
    for name in range(TRAININGS):
        check_exactly_one(store, str(name))
    assert len(read_runs(store)) == 4 * TRAININGS < 4 * PROCESSES
    assert {path.name for path in (killed / "fresh").iterdir()} == {
        "mlflow.db",
        "mlflow.db.lock",
        "mlartifacts",
    }


def test_an_empty_file_becomes_a_store(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    log_to(store_in(tmp_path), saved)
    check_exactly_one(store_in(tmp_path), saved.name)


@contextmanager
def locked(database: Path) -> Iterator[Callable[[], None]]:
    """Hold the exclusive lock of a sqlite database until the block ends or it is released."""
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield lambda: holder.close()


def test_a_locked_store_is_named_and_works_once_released(
    saved: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "BUSY_SECONDS", 0.2)
    database, store = Path(shutil.copy(fresh, tmp_path)), store_in(tmp_path)
    with locked(database):
        with pytest.raises(TransientSourceError) as raised:
            log_to(store, saved)
        assert str(raised.value) == (
            f"MLflow store {store} failed (database is locked): give yourself permission to write "
            "it, end what holds it, or move it away and a new one is made; or name another store "
            "in MLFLOW_TRACKING_URI. Running again logs nothing twice."
        )
    log_to(store, saved)


@pytest.mark.usefixtures("prefect_api")
def test_a_locked_store_is_tried_again(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "BUSY_SECONDS", 0.2)
    tried: list[TransientSourceError] = []
    with locked(Path(shutil.copy(fresh, tmp_path))) as release:

        def find(*arguments: Any) -> FoundModel | None:
            try:
                return load_champion(*arguments)
            except TransientSourceError as error:
                tried.append(error)
                release()
                raise

        monkeypatch.setattr(tasks, "load_champion", find)
        run = run_local(tmp_path, *SAMPLE_MONTHS, "--features", "course")
    assert (run.exit_code, len(tried)) == (0, 1), run.output
    task_runs = read_task_runs(run.flow_run.id, 12)
    assert task_runs["find-champion"].run_count == 2
    assert task_runs["log-to-mlflow"].run_count == 1
    assert json.loads(run.report_bytes)["gate"]["unavailable"] is None


@pytest.mark.usefixtures("prefect_api")
def test_a_run_whose_store_fails_keeps_its_model_and_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_text("not a database")
    run = run_local(tmp_path, *SAMPLE_MONTHS, "--features", "course")
    assert run.exit_code == 1
    assert "Traceback" not in run.output
    said = f"MLflow store sqlite:///{tmp_path}/mlflow.db failed (file is not a database): give"
    assert f"error: {said}" in run.output
    load_model(run.model_directory)
    artifact = str(read_report_artifact(run.flow_run.id).data)
    assert f"MLflow run: none. {said}" in artifact
    assert read_task_runs(run.flow_run.id, 11)["log-to-mlflow"].run_count == 1
    assert (tmp_path / "mlflow.db").read_text() == "not a database"


def make_database_of_something_else(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE somebodys (thing)")


def change_version(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '000000000000'")
        connection.commit()


def delete_experiment(database: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda database: database.write_text("x" * 5000), "failed (file is not a database): give"),
        (change_version, "failed (Detected out-of-date database schema (found version 0000"),
        (delete_experiment, "is deleted: restore it with `mlflow experiments restore`, or name"),
    ],
)
def test_a_store_that_is_none_is_named_with_a_remedy(
    saved: Path, fresh: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(Path(shutil.copy(fresh, tmp_path)))
    with pytest.raises(SourceError) as raised:
        log_to(store_in(tmp_path), saved)
    assert type(raised.value) is SourceError
    assert message in str(raised.value)
    assert str(tmp_path / "mlflow.db") in str(raised.value)


@pytest.mark.parametrize(
    ("store", "setting"),
    [
        ("sqlite:///{}/mlflow.db", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"),
        ("http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_TIMEOUT"),
    ],
)
def test_a_wrong_setting_of_mlflow_is_named(
    saved: Path, tmp_path: Path, store: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, "many")
    with pytest.raises(SourceError) as raised:
        log_to(store.format(tmp_path), saved)
    assert type(raised.value) is SourceError
    wrong = f"MLflow cannot open a store (Failed to convert 'many' for {setting}: "
    assert str(raised.value).startswith(wrong)
    assert str(raised.value).endswith("): correct or unset what is named.")
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db.lock"}


def test_a_database_of_something_else_is_left_alone(saved: Path, tmp_path: Path) -> None:
    make_database_of_something_else(tmp_path / "mlflow.db")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(SourceError, match="it is a database of something else, without MLflow's"):
        log_to(store_in(tmp_path), saved)
    assert (tmp_path / "mlflow.db").read_bytes() == before


@contextmanager
def unprivileged() -> Iterator[None]:
    """Not root, whom permissions do not stop; does nothing for anybody else."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_read_only_store_is_named(saved: Path, fresh: Path) -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own are closed to others
        directory = Path(made)
        database = Path(shutil.copy(fresh, directory))
        directory.chmod(0o777)
        database.chmod(0o444)
        model, report = load_model(saved), load_report(saved)
        readable = shutil.copytree(saved, directory / "green" / saved.name)
        with pytest.MonkeyPatch.context() as patched, unprivileged():
            patched.setenv("MLFLOW_TRACKING_URI", store_in(directory))
            with pytest.raises(SourceError, match=r"readonly database\): give yourself permission"):
                log_training(CABS["green"], model, readable, report)


class Answer(BaseHTTPRequestHandler):
    """Answers every request alike."""

    status = 503

    def do_GET(self) -> None:
        if self.status == 0:
            Event().wait(1.5)
            return
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[str]:
    handler = type("Answers", (Answer,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_a_server_that_fails_is_asked_again(
    saved: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with (
        answering(status) as host,
        pytest.raises(
            TransientSourceError, match=rf"^MLflow store http://{host} failed \("
        ) as raised,
    ):
        log_to(f"http://user:MLSECRET@{host}", saved)
    assert "MLSECRET" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_is_not_asked_again(saved: Path, status: int) -> None:
    with answering(status) as host, pytest.raises(SourceError) as raised:
        log_to(f"http://{host}", saved)
    assert type(raised.value) is SourceError
    assert str(raised.value).startswith(f"MLflow store http://{host} failed (")
    assert "correct MLFLOW_TRACKING_URI, or unset it" in str(raised.value)


def test_a_server_that_is_down_is_asked_again(saved: Path) -> None:
    store = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(TransientSourceError, match=rf"^MLflow store {store} failed \("):
        log_to(store, saved)
