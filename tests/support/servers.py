"""Starting real servers on loopback and ending them: Prefect, rclone's S3, a worker."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
from filelock import FileLock

PROGRAMS = Path(sys.executable).parent
START_SECONDS = 180.0
STOP_SECONDS = 30.0
PATIENCE_SECONDS = 300.0

SHARED_VARIABLE = "TAXI_DURATION_TESTS_SHARED"
"""Names a directory that all processes of the suite have in common."""

Value = TypeVar("Value")


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def make_environment(**variables: str) -> dict[str, str]:
    """The tests' environment with the virtual environment's programs first on the path."""
    path = f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, **variables}


def wait_until(
    condition: Callable[[], Value | None], what: str, seconds: float = PATIENCE_SECONDS
) -> Value:
    """What the condition comes to, once that is true.

    Args:
        what: is waited for, as a failure says.
    """
    deadline, pause = time.monotonic() + seconds, 0.02
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(pause)
        pause = min(2 * pause, 1)  # a question costs the asked server time too
    return value


def make_once(name: str, make: Callable[[Path], object]) -> Path:
    """A file that takes long to make and never differs, made by the first process that asks."""
    path = Path(os.environ[SHARED_VARIABLE], name)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            partial = path.with_suffix(".partial")
            make(partial)
            partial.rename(path)
    return path


def make_prefect_home(directory: Path) -> str:
    """A directory with a Prefect database that has its tables, which a first start would make."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(make_once("prefect.db", _make_prefect_database), directory / "prefect.db")
    return str(directory)


def _make_prefect_database(path: Path) -> None:
    subprocess.run(
        [PROGRAMS / "prefect", "server", "database", "upgrade", "--yes"],
        env=make_environment(PREFECT_API_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{path}"),
        check=True, capture_output=True,
    )  # fmt: skip
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def run_server(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    log: Path,
    is_ready: Callable[[], bool],
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it answers, and end it and its children, which it leads."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, log, is_ready)
        yield process
    finally:
        _end(process)


@contextmanager
def serve_prefect(environment: Mapping[str, str], log: Path, port: int) -> Iterator[str]:
    """Start a Prefect server on loopback; the address of its API."""
    url = f"http://127.0.0.1:{port}/api"
    # In the environment, not as options: its pages look for the API where these say.
    where = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    command = [PROGRAMS / "prefect", "server", "start"]
    with run_server(command, {**environment, **where}, log, lambda: answers(f"{url}/health")):
        yield url


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait_until_ready(
    process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start: {log.read_text('utf-8')}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever of its session is left
    process.wait()
