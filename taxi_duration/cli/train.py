"""The command line that both flow files end in: run a flow, print its figures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from typing import Any, TypeVar

import httpx
from prefect.exceptions import PrefectException

from taxi_duration.cli.ending import (
    describe_artifact_page,
    describe_mlflow_page,
    end_in_one_line,
    server_errors,
)
from taxi_duration.cli.flags import make_parser
from taxi_duration.errors import TaxiDurationError
from taxi_duration.flows.options import Options, read_options
from taxi_duration.flows.server import have_heartbeats, have_prefect_server
from taxi_duration.flows.tasks import ARTIFACT_KEY
from taxi_duration.flows.train import TrainedRun
from taxi_duration.registry.runs import REGISTERED_MODEL
from taxi_duration.reports.render import outline

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
    with have_prefect_server(import_ahead), have_heartbeats(), errors_in_one_line():
        try:
            return flow(**options.model_dump())
        # Nothing else: what the flow's own code raises is not the server's fault.
        except (httpx.HTTPError, PrefectException, RuntimeError):
            with server_errors():
                raise


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
    """Return the figures of a run, and where its model, MLflow run and artifact are."""
    report, tracked = trained.report, trained.tracked
    return f"""
{report.cab} trips, {report.features} features, trained on \
{", ".join(report.train.months)}, validated on {report.validation.month}
{outline(report, str(trained.promotion) if trained.promotion else None)}
  model             {trained.model_location}
                    to use it: taxi_duration.load_model({str(trained.model_directory)!r})
  MLflow run        {tracked.run_id}, version {tracked.version} of {REGISTERED_MODEL}
                    to see it: {describe_mlflow_page(tracked.url, tracked.tracking_uri)}
  Prefect artifact  {ARTIFACT_KEY}
                    to see it: {describe_artifact_page(trained.artifact_id)}
"""
