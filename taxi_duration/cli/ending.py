"""How a command ends: errors in one line, exit codes, signals, and the pages to open."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from uuid import UUID

from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from taxi_duration.errors import TaxiDurationError, hide_credentials, translated
from taxi_duration.flows.server import is_temporary
from taxi_duration.reports.terminal import find_program


class Stopped(SystemExit):
    """A signal asked the process to end."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.number = number


def end_in_one_line(run: Callable[[], object]) -> int:
    """Run something, and print an error of ours or a signal that ended it in one line.

    Nothing is printed for a reader that has left, as `head` does.

    Returns:
        The exit code: what `run` returned, if that is a number; else 0, that of the error, or 128
        and the signal's number, as in a shell.
    """
    try:
        with stop_on_signals():
            code = run()
            print(end="", flush=True)
    except TaxiDurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # What is still to be written would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, Stopped) as stopped:
        number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
        print(
            f"error: stopped by {number.name}: nothing was left half-written; run it again.",
            file=sys.stderr,
        )
        return 128 + number
    return code if isinstance(code, int) else 0


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stopped where a signal would end Python on the spot, its server left behind.

    In a flow Prefect does so for SIGTERM, reports the flow run as crashed or cancelled, and then
    has the handler installed here called. A signal that is ignored (as by nohup) stays so.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(signal.Signals(number))

    replaced = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def server_errors() -> AbstractContextManager[None]:
    """Turn what Prefect raises of a server that does not answer, or refuses, into a SourceError."""
    address = "of this run" if is_temporary() else hide_credentials(PREFECT_API_URL.value() or "")
    return translated(
        f"Prefect server {address}",
        "check PREFECT_API_URL and PREFECT_API_AUTH_STRING, or unset both for a server that lasts "
        "as long as the run",
    )


THEN_OPEN = f",\n{' ' * 31}then open "


def describe_mlflow_page(page: str, tracking_uri: str) -> str:
    """Return how to open a page of MLflow, whose server has to be started for a local store."""
    if tracking_uri.startswith("http"):
        return page
    store = shlex.quote(tracking_uri)
    return f"{find_program('mlflow')} ui --backend-store-uri {store}{THEN_OPEN}{page}"


def describe_artifact_page(artifact_id: UUID) -> str:
    """Return how to open an artifact in Prefect's pages, whose server may end with the run."""
    server = None if is_temporary() else PREFECT_UI_URL.value()
    start = "" if server else f"{find_program('prefect')} server start{THEN_OPEN}"
    return f"{start}{server or 'http://127.0.0.1:4200'}/artifacts/artifact/{artifact_id}"
