"""Command lines: the one that both flow files end in."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from pydantic import BaseModel

from taxi_duration.errors import SourceError, TaxiDurationError, hide_credentials
from taxi_duration.flows.embedded_server import have_prefect_server
from taxi_duration.flows.heartbeats import have_heartbeats
from taxi_duration.flows.options import Options, read_options
from taxi_duration.flows.pipeline import TrainedRun
from taxi_duration.flows.tasks import ARTIFACT_KEY
from taxi_duration.registry.tracking import REGISTERED_MODEL
from taxi_duration.reports.render import outline
from taxi_duration.reports.terminal import find_program as find_program

IMPORTED_AHEAD = ("sklearn.linear_model", "mlflow.sklearn")
"""Not skops: its import sets the process's warning filters aside and back hundreds of times, while
another thread does the same, and warnings that were silenced get out."""


Result = TypeVar("Result")


def import_ahead() -> None:
    """Import what the end of a run needs, while its beginning waits for the server."""
    for name in IMPORTED_AHEAD:
        import_module(name)


def run_from_command_line(
    flow: Callable[..., TrainedRun],
    kind: type[Options],
    prepare: Callable[[Options, date], object],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a training flow with options from the command line.

    Args:
        kind: the options the flow takes; one flag a field.
        prepare: raises when the options cannot be met on the given day.
        arguments: as `sys.argv[1:]`, which is the default.

    Returns:
        The exit code: 0, or that of the error whose message was printed.
    """
    given = vars(make_parser(kind, flow.__doc__ or "").parse_args(arguments))
    return end_in_one_line(lambda: print(summarise(run_flow(flow, kind, prepare, given))))


def run_flow(
    flow: Callable[..., Result],
    kind: type[Options],
    prepare: Callable[[Options, date], object],
    given: Mapping[str, Any],
) -> Result:
    """Run a flow with options that are checked before Prefect is asked anything.

    Args:
        kind, prepare: as in `run_from_command_line`.
        given: values by field name, as text.
    """
    options = read_options(kind, given)
    prepare(options, date.today())
    with (
        have_prefect_server(import_ahead),
        have_heartbeats(),
        errors_in_one_line(),
        name_server_errors(),
    ):
        return flow(**options.model_dump())


class Stopped(SystemExit):
    """A signal asked the process to end."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.number = number


def end_in_one_line(run: Callable[[], object]) -> int:
    """Run to an end that is told in one line, whether it is an error of ours or a signal.

    Nothing is said to a reader who has left, as `head` does.

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


@contextmanager
def name_server_errors() -> Iterator[None]:
    """Turn what Prefect says of a server that does not answer, or refuses, into an error of ours.

    Raises:
        SourceError: that error.
    """
    try:
        yield
    except (httpx.TransportError, PrefectHTTPStatusError, RuntimeError) as error:
        # At its first request Prefect wraps it in a RuntimeError.
        reason = error.__cause__ if isinstance(error, RuntimeError) else error
        if not isinstance(reason, httpx.TransportError | PrefectHTTPStatusError):
            raise
        server = hide_credentials(PREFECT_API_URL.value() or "of this run")
        if (
            isinstance(reason, PrefectHTTPStatusError)
            and reason.response.status_code == httpx.codes.UNAUTHORIZED
        ):
            raise SourceError(
                f"Prefect server {server} asks for a password (401 Unauthorized): set "
                "PREFECT_API_AUTH_STRING to the PREFECT_SERVER_API_AUTH_STRING it was started with."
            ) from error
        said = hide_credentials(str(reason)).split(" - For more information")[0]
        raise SourceError(
            f"Prefect server {server} failed ({said}): check PREFECT_API_URL, or unset it for a "
            "server that lasts as long as the run."
        ) from error


def make_parser(kind: type[BaseModel], description: str) -> argparse.ArgumentParser:
    """A parser of the flags of some options."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0], allow_abbrev=False)
    add_flags(parser, kind)
    return parser


def add_flags(
    parser: argparse.ArgumentParser, kind: type[BaseModel], flags: Mapping[str, str] | None = None
) -> None:
    """Add a flag for each field of some options, its text and default taken from there.

    Values stay text: `read_options` reads them, as strictly as those of a deployment.

    Args:
        flags: names of those that are not named after their field.
    """
    for name, field in kind.model_fields.items():
        shown = (flags or {}).get(name, name).replace("_", "-")
        flag, text = f"--{shown}", field.description or ""
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        is_silent = field.is_required() or field.default is None
        parser.add_argument(
            flag,
            dest=name,
            metavar=shown.replace("-", "_").upper(),
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=text if is_silent else f"{text} (default: {field.default})",
        )


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Keep Prefect from printing tracebacks for our own errors, whose message says it all."""

    def drop_traceback(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], TaxiDurationError):
            record.exc_info = None
        return True

    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addFilter(drop_traceback)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop_traceback)


def summarise(trained: TrainedRun) -> str:
    """The figures of a run, where its model, MLflow run and artifact are, and how to open them."""
    report, tracked = trained.report, trained.tracked
    return f"""
{report["cab"]} trips, {report["features"]} features, trained on \
{", ".join(report["train"]["months"])}, validated on {report["validation"]["month"]}
{outline(report, str(trained.promotion) if trained.promotion else None)}
  model             {trained.model_location}
                    to use it: taxi_duration.load_model({str(trained.model_directory)!r})
  MLflow run        {tracked.run_id}, version {tracked.version} of {REGISTERED_MODEL}
                    to see it: {describe_mlflow_page(tracked.url, tracked.tracking_uri)}
  Prefect artifact  {ARTIFACT_KEY}
                    to see it: {describe_artifact_page(trained.artifact_id)}
"""


THEN_OPEN = f",\n{' ' * 31}then open "


def describe_mlflow_page(page: str, tracking_uri: str) -> str:
    """How to open a page of MLflow, whose server has to be started first if it is a local store."""
    if tracking_uri.startswith("http"):
        return page
    store = shlex.quote(tracking_uri)
    return f"{find_program('mlflow')} ui --backend-store-uri {store}{THEN_OPEN}{page}"


def describe_artifact_page(artifact_id: UUID) -> str:
    """How to open an artifact in Prefect's pages, whose server may have ended with the run."""
    server = PREFECT_UI_URL.value() if PREFECT_API_URL.value() else None
    start = "" if server else f"{find_program('prefect')} server start{THEN_OPEN}"
    return f"{start}{server or 'http://127.0.0.1:4200'}/artifacts/artifact/{artifact_id}"
