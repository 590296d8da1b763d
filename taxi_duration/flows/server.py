"""The server that Prefect starts for a run that has none: it ends when the run's process does."""

from __future__ import annotations

import atexit
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from threading import Thread
from types import FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
    temporary_settings,
)

from taxi_duration.errors import InputError, SourceError

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

EMBEDDED_SERVER = {
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED: False,
}
"""Its first start migrates a database and outlasts the default of 20 seconds; its analytics would
need the internet; and nobody is left to listen for heartbeats when it ends with the run, which
would wait a second for them; nor for automations, if its database is that of a server that stays
at other times: the flows' hooks tell instead."""

MOST_STARTS = 2
"""Prefect starts it again, without end, not only when its port turns out to be taken."""

WATCH = 'while read -r told; do server=$told; done; if [ -n "$server" ]; then kill "$server"; fi'
"""Told pids, or an empty line when nothing is left to end. Its input ends when the process at the
other end does, whatever ended that."""

TELL_AND_RUN = "trap '' PIPE; echo $$ >&0; exec \"$@\" </dev/null"
"""Input 0 is the watcher's pipe, open for writing: shells know no number above 9, and Popen passes
no chosen one."""


@contextmanager
def have_prefect_server(meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let Prefect use the configured server, or start one that ends with this process.

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
            "PREFECT_API_URL is not set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is false: set "
            "the address of a Prefect server, or allow the run to start one."
        )
    # Here, since the whole server is imported with it.
    from prefect.server.api.server import SubprocessASGIServer

    with temporary_settings(set_defaults=EMBEDDED_SERVER):
        _start(SubprocessASGIServer(), meanwhile)
        yield


@contextmanager
def lend_embedded_server() -> Iterator[None]:
    """Let processes that this one starts use its embedded server, if that is the one it uses."""
    if PREFECT_API_URL.value():
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer

    with temporary_settings({PREFECT_API_URL: SubprocessASGIServer().api_url}):
        yield


def _start(server: SubprocessASGIServer, meanwhile: Callable[[], object]) -> None:
    failures: list[Exception] = []

    def start() -> None:
        # The server inherits this: a terminal's Ctrl-C and hang-up reach it too, and it must
        # outlive the run, which reports to it how it ended.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            server.start()
        except Exception as error:
            failures.append(error)

    _have_watched(server)
    # In a thread, for the mask to be its own and for this one to hear signals meanwhile.
    starter = Thread(target=copy_context().run, args=(start,), daemon=True)
    starter.start()
    meanwhile()
    starter.join()
    if failures:
        raise SourceError(
            f"the run's own Prefect server did not start ({failures[0]}): check that "
            f"{PREFECT_HOME.value()} is writable and its prefect.db whole, or set PREFECT_API_URL "
            "to the address of a server."
        ) from failures[0]


def _have_watched(server: SubprocessASGIServer) -> None:
    """Have Prefect start the server's process through a shell that first tells a watcher of it.

    Prefect ends its server as Python exits, which SIGKILL does not wait for. If the run told the
    watcher, a SIGKILL just before that would leave a server that nobody ends; the shell holds the
    watcher's input open until it has told.
    """
    watcher = _start_watcher()
    started: list[subprocess.Popen[bytes] | None] = []

    def start_process(args: Sequence[str], **named: Any) -> subprocess.Popen[bytes]:
        if len(started) == MOST_STARTS:
            raise RuntimeError(f"it ended {MOST_STARTS} times while starting")
        started.append(None)
        command = ["/bin/sh", "-c", TELL_AND_RUN, "sh", *args]
        started[-1] = process = subprocess.Popen(command, stdin=watcher.stdin, **named)
        return process

    def dismiss() -> None:
        have_ended = all(process and process.poll() is not None for process in started)
        watcher.communicate(b"\n" if have_ended else None)

    # Prefect's own method, whose command and environment stay Prefect's, with another Popen.
    run = type(server)._run_uvicorn_command
    names = {**run.__globals__, "subprocess": SimpleNamespace(Popen=start_process)}
    vars(server)[run.__name__] = MethodType(FunctionType(run.__code__, names), server)
    # Runs after the end of the server, which is registered later.
    atexit.register(dismiss)


def _start_watcher() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", WATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # out of reach of what a terminal sends to this one's group
    )
