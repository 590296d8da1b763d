"""The Prefect server of a run: the configured one, or one that ends with the run.

Without PREFECT_API_URL a run starts a server of its own on loopback. It keeps runs and artifacts in
the database of PREFECT_HOME, where a later `prefect server start` shows them.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import httpx
from filelock import FileLock
from prefect import tags
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_UI_URL,
    get_current_settings,
    temporary_settings,
)

from taxi_duration.errors import InputError, SourceError, translated

START_SECONDS = 180
"""The first start migrates a database."""

END_SECONDS = 10
"""How long to wait for the last log lines and events to arrive, and for a server to end."""

SERVE = """
import socket, sys, threading
import uvicorn
from prefect.server.api.server import create_app

app = create_app(ephemeral=True, final=True)
server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))

def end_with_run():
    sys.stdin.buffer.read()
    server.should_exit = True

threading.Thread(target=end_with_run, daemon=True).start()
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
"""What the server's process runs. Its input ends when the run's process does, however that ends."""

ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
}
"""Services that a server of one run does not need. Its automations would act on a database that may
be that of a server that stays at other times."""

HEARTBEAT_SECONDS = 30
"""The least Prefect takes; deployments set it as a job variable."""

TAG = "nyc-taxi-duration"
"""Of a flow run: it is one of ours, and its heartbeats come every `HEARTBEAT_SECONDS`. Prefect's
default is 180, and a heartbeat does not tell how long it will be until the next."""

_started_here: set[str] = set()


def is_temporary() -> bool:
    """Return whether the Prefect server in use ends with this run."""
    url = PREFECT_API_URL.value()
    return url is None or url in _started_here


@contextmanager
def have_prefect_server(meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Use the configured Prefect server, or start one that ends when this is left.

    Args:
        meanwhile: what to do while a server started here comes up.

    Raises:
        InputError: none is configured and the settings forbid to start one.
        SourceError: the one started here did not come up.
    """
    if PREFECT_API_URL.value():
        yield
        return
    if not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        raise InputError(
            "PREFECT_API_URL is not set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is false",
            "set the address of a Prefect server, or allow the run to start one",
        )
    process, url = _start_server(meanwhile)
    _started_here.add(url)
    # It has no pages to link to, and nobody is left to listen for heartbeats when it ends.
    settings = {PREFECT_API_URL: url, PREFECT_UI_URL: "", PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    try:
        with temporary_settings(settings):
            try:
                yield
            finally:
                for worker in (APILogWorker, EventsWorker):
                    worker.drain_all(timeout=END_SECONDS)
    finally:
        _started_here.remove(url)
        _end(process)


def _start_server(meanwhile: Callable[[], object]) -> tuple[subprocess.Popen[bytes], str]:
    home = PREFECT_HOME.value()
    remedy = (
        f"check that {home} is writable and its prefect.db whole, or set PREFECT_API_URL to the "
        "address of a server"
    )
    with (
        translated("the run's own Prefect server", remedy, lambda _: SourceError),
        tempfile.TemporaryFile() as errors,
    ):
        home.mkdir(parents=True, exist_ok=True)
        # Two servers must not migrate one database at once.
        with FileLock(home / "taxi-duration-server.lock", timeout=START_SECONDS):
            process, url = _start(errors)
            # For a process that exits elsewhere; Prefect hands over its last lines before this.
            atexit.register(_end, process)
            meanwhile()
            try:
                httpx.get(f"{url}/health", timeout=START_SECONDS).raise_for_status()
            except httpx.HTTPError as error:
                _end(process)
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines() or [str(error)]
                raise SourceError(
                    f"the run's own Prefect server did not start ({said[-1]})", remedy
                ) from error
    return process, url


def _start(errors: IO[bytes]) -> tuple[subprocess.Popen[bytes], str]:
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(listening.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **settings, **ENVIRONMENT},
            pass_fds=[listening.fileno()],
            start_new_session=True,  # out of reach of a terminal's Ctrl-C
        )
        # Requests wait in the socket's queue until the server answers them, or its process ends.
        return process, f"http://127.0.0.1:{listening.getsockname()[1]}/api"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a server end, and wait for that; it is not killed, as it may be migrating a database."""
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=END_SECONDS)  # closes its input


@contextmanager
def have_heartbeats() -> Iterator[None]:
    """Have the flow run started here send heartbeats to a server that stays, as deployed ones do.

    Not if the user set another frequency, which such a server would take for silence.
    """
    if is_temporary():
        yield
        return
    with temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_SECONDS}):
        frequency = PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value()
        with tags(*([TAG] if frequency == HEARTBEAT_SECONDS else [])):
            yield
