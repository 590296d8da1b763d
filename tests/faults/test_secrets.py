"""Secrets that a run is given are in nothing it prints or keeps."""

import base64
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from taxi_duration.data.month import Month
from tests.conftest import REPOSITORY
from tests.support.buckets import SECRET, S3Server
from tests.support.months import SAMPLE
from tests.support.runs import call_taxi_duration, make_store
from tests.support.servers import PROGRAMS, answers, find_free_port, make_environment, run_server
from tests.support.web import answer_status, serve_tlc

STORE, REFUSING_STORE = "the+word of/MLflow", "another+word of/MLflow"
MIRROR, REFUSING_MIRROR = "the+word of/the mirror", "another+word of/the mirror"
SECRETS = {
    "of the bucket": SECRET,
    "of the MLflow store": STORE,
    "of an MLflow store that refuses": REFUSING_STORE,
    "of the TLC's mirror": MIRROR,
    "of a mirror that refuses": REFUSING_MIRROR,
}
ARGUMENTS = ("--year", "2025", "--month", "1", "--features", "course")
REGISTRY = (
    ("promote", "1"), ("history",), ("history", "--json"), ("show", "champion"),
    ("rollback", "--from", "2"),
)  # fmt: skip
"""Commands on the store that the run logged to."""
MONTHS = (Month(2025, 1).file_name("green"), Month(2025, 2).file_name("green"))


def with_password(address: str, password: str) -> str:
    return address.replace("://", f"://user:{quote(password, safe='')}@")


@contextmanager
def refuse_all() -> Iterator[str]:
    """A server that answers 403, whatever it is asked."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serve_mlflow(directory: Path) -> Iterator[str]:
    """An MLflow server that keeps everything in `directory`."""
    directory.mkdir()
    store = make_store(directory)
    port = find_free_port()
    command = [
        PROGRAMS / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store,
        "--artifacts-destination", str(directory / "artifacts"),
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    environment = make_environment(MLFLOW_DISABLE_TELEMETRY="true")
    with run_server(command, environment, directory / "log", lambda: answers(f"{url}/health")):
        yield url


@pytest.fixture(scope="module")
def kept(
    prefect_server: str,
    s3_server: S3Server,
    s3_block: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """The directories of everything that runs and their servers kept, having ended as they should.

    What a run prints is kept too, with all that Prefect logs.
    """
    kept = tmp_path_factory.mktemp("kept")
    months = {name: SAMPLE / f"synthetic_{name}" for name in MONTHS}
    prefix = s3_server.bucket / "secrets"
    prefix.mkdir()
    for name, sample in months.items():
        shutil.copy(sample, prefix / name)

    flow, flow_s3 = str(REPOSITORY / "orchestrate.py"), str(REPOSITORY / "orchestrate_s3.py")
    with (
        serve_tlc(tmp_path_factory.mktemp("mirror")) as mirror,
        serve_tlc(tmp_path_factory.mktemp("refusing-mirror")) as refusing_mirror,
        refuse_all() as refusing_store,
        serve_mlflow(kept / "mlflow") as store,
    ):
        mirror.files.update({name: sample.read_bytes() for name, sample in months.items()})
        refusing_mirror.always = answer_status(403)
        denied = refusing_mirror.environment | {
            "TAXI_DURATION_TLC_URL": with_password(refusing_mirror.url, REFUSING_MIRROR)
        }
        refused = {"MLFLOW_TRACKING_URI": with_password(refusing_store, REFUSING_STORE)}
        good = mirror.environment | {
            "TAXI_DURATION_TLC_URL": with_password(mirror.url, MIRROR),
            "MLFLOW_TRACKING_URI": with_password(store, STORE),
        }
        from_bucket = ["--block", s3_block, "--prefix", prefix.name]
        jobs = {
            "denied": ([flow, *ARGUMENTS], denied),
            "refused": ([flow_s3, *ARGUMENTS, *from_bucket], refused),
            "good": ([flow, *ARGUMENTS], good),
        }
        ran = subprocess.run(
            [sys.executable, "-m", "tests.support.forked_scripts", json.dumps(jobs)],
            cwd=kept,
            env=make_environment(
                PREFECT_API_URL=prefect_server,
                PREFECT_HOME=str(kept / "prefect"),
                PREFECT_LOGGING_LEVEL="DEBUG",
                PREFECT_LOGGING_EXTRA_LOGGERS="httpx,httpcore,urllib3,mlflow,taxi_duration",
                PYTHONPATH=str(REPOSITORY),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        with (
            pytest.MonkeyPatch.context() as patched,
            (kept / "registry").open("w") as told,
            redirect_stdout(told),
        ):
            patched.setenv("MLFLOW_TRACKING_URI", good["MLFLOW_TRACKING_URI"])
            codes = [call_taxi_duration(*command) for command in REGISTRY]
    assert codes == [0] * len(REGISTRY)
    assert "version 1 is champion" in (kept / "registry").read_text()
    (kept / "printed").write_text(ran.stderr)
    printed = {name: (kept / name / "printed").read_text() for name in jobs}
    assert json.loads(ran.stdout) == {"denied": 1, "refused": 1, "good": 0}, (ran.stderr, printed)
    assert "green_tripdata_2025-01.parquet" in printed["denied"]
    assert "error: MLflow store http://127.0.0.1:" in printed["refused"]
    assert "validation RMSE" in printed["good"]
    # Not pytest's symbolic link to the same.
    servers = tmp_path_factory.getbasetemp().glob("prefect-server[0-9]*")
    return [kept, s3_server.bucket, *servers]


def test_secrets_are_nowhere(kept: list[Path]) -> None:
    files = read_all(kept)
    written = b"".join(files.values())
    # Everything is there to be looked at: logs, database, artifacts, models, sidecars.
    for known in (b"Beginning flow run", b"SQLite format 3", b"manifest", b"s3-bucket-block"):
        assert known in written
    assert find_secrets(files) == set()


def test_planted_secrets_are_found(kept: list[Path], tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    (server,) = (top for top in kept if (top / "prefect.db").exists())
    with (
        closing(sqlite3.connect(server / "prefect.db")) as source,
        closing(sqlite3.connect(database)) as copy,
    ):
        source.backup(copy)
        message = f"store {with_password('https://127.0.0.1', STORE)} failed"
        copy.execute("UPDATE log SET message = ? WHERE id = (SELECT min(id) FROM log)", [message])
        copy.commit()
    authorization = base64.b64encode(f"user:{MIRROR}".encode()).decode()
    (tmp_path / "printed").write_text(f"DEBUG | Authorization: Basic {authorization}")
    (tmp_path / "innocent").write_text("user:***")
    assert find_secrets(read_all([tmp_path])) == {
        f"of the MLflow store in {database}",
        f"of the TLC's mirror in {tmp_path / 'printed'}",
    }


def read_all(tops: list[Path]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for top in tops for path in top.rglob("*") if path.is_file()}


def find_secrets(files: dict[Path, bytes]) -> set[str]:
    return {
        f"{name} in {path}"
        for name, secret in SECRETS.items()
        for form in {*encode(secret)}
        for path, content in files.items()
        if form in content
    }


@pytest.mark.parametrize("prefix", ["", "x", "xy", "user:"])
@pytest.mark.parametrize("suffix", ["", "@host", "x"])
def test_encoded_secrets_are_recognised(prefix: str, suffix: str) -> None:
    text = f"{prefix}{STORE}{suffix}".encode()
    for written in (text, base64.b64encode(text), base64.urlsafe_b64encode(text)):
        assert any(form in written for form in encode(STORE))
    assert quote_plus(STORE).encode() in [*encode(STORE)]


def encode(secret: str) -> Iterator[bytes]:
    """How a secret may be written: as it is, as in addresses, in base64 at any offset."""
    for written in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
        yield written.encode()
        for offset in range(3):
            # The first and last characters depend on what stands before and after it.
            around = b"-" * offset + written.encode() + b"--"
            inner = slice(-(-offset * 8 // 6), (offset + len(written)) * 8 // 6)
            yield base64.b64encode(around)[inner]
            yield base64.urlsafe_b64encode(around)[inner]
