"""Telling of a run that failed or crashed where no automation can: its server ends with it.

A server that stays tells through the automations of `watching`, also of runs whose process is no
more; these hooks are silent then, so that nobody is told twice.
"""

from __future__ import annotations

import socket
from threading import Thread
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger

from taxi_duration.errors import InputError, hide_credentials
from taxi_duration.flows.server import is_temporary
from taxi_duration.settings import AlertSettings, name_variable, read_settings

SUBJECT = "{flow} run {run} is {state}"
TEXT = "{flow} run {run} is {state}: {message}\n{link}"
"""What automations and hooks send: as `subject` and `text` of a JSON object."""

LATER_SERVER = "http://127.0.0.1:4200"
"""Where a server started later, as `prefect server start`, shows the run."""


def tell(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Post the run's name, state and message to the alert address, if there is one.

    A hook of a flow: it raises nothing, and returns after `AlertSettings.deadline_seconds` even if
    the address answers later or never.
    """
    if not is_temporary():
        return
    log = flow_run_logger(flow_run, flow)  # a crashed run has left its context
    try:
        settings = read_settings(AlertSettings)
    except InputError as error:
        log.warning("nobody was told of this run: %s", error)
        return
    if settings.url is None:
        return
    values = {"flow": flow.name, "run": flow_run.name, "state": state.name}
    link = (
        f"{LATER_SERVER}/runs/flow-run/{flow_run.id} on {socket.gethostname()}, "
        "after `prefect server start`"
    )
    payload = {
        "subject": SUBJECT.format(**values),
        "text": TEXT.format(**values, message=hide_credentials(state.message or ""), link=link),
    }
    failure = _post(settings.url.get_secret_value(), payload, settings.deadline_seconds)
    if failure:
        variable = name_variable(AlertSettings, "url")
        log.warning("%s was not told of this run: %s", variable, failure)


def _post(url: str, payload: dict[str, str], seconds: float) -> str | None:
    """Post JSON in a thread of its own, since no setting of httpx bounds the whole.

    Returns:
        Why it was not taken, without the address; None if it was.
    """
    failures: list[str | None] = [f"no answer in {seconds:g} s"]

    def post() -> None:
        try:
            response = httpx.post(url, json=payload, timeout=seconds)
        except Exception as error:
            # Its text may hold the address.
            failures.append(type(error).__name__)
        else:
            taken = response.is_success
            failures.append(None if taken else f"the answer was {response.status_code}")

    thread = Thread(target=post, daemon=True)
    thread.start()
    thread.join(seconds)
    return failures[-1]
