"""Alerts of runs that fail or crash: by the automations of a server that stays, or by the run.

A server that stays has two automations: one notifies of bad ends, one marks runs Crashed whose
heartbeats stopped. Both are found by name, so creating them again changes nothing. Where the server
ends with the run, the flows' hook `tell` notifies instead; it is silent otherwise, so that nobody
is told twice.
"""

from __future__ import annotations

import socket
from base64 import b64encode
from datetime import timedelta
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import httpx
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.types import SecretDict

from taxi_duration.errors import InputError, hide_credentials
from taxi_duration.flows.options import FLOWS
from taxi_duration.flows.server import TAG, is_temporary
from taxi_duration.settings import AlertSettings, check_alert_url, name_variable, read_settings

SUBJECT = "{flow} run {run} is {state}"
TEXT = "{flow} run {run} is {state}: {message}\n{link}"
"""What automations and the hook send, as `subject` and `text` of a JSON object."""

URL_VARIABLE = name_variable(AlertSettings, "url")

DEFAULT_BLOCK = "taxi-duration-alerts"
TELLING = "nyc-taxi-duration: tell of failed and crashed runs"
CRASHING = "nyc-taxi-duration: crash runs whose heartbeats stopped"

SILENT = timedelta(seconds=90)
"""After its last heartbeat a run is dead: two may be lost or late. A process dies after its last
one, and the server looks every 5 seconds, so that two minutes hold."""

TOLD = timedelta(minutes=1)
"""How long a run is not told of again: a busy server evaluates an event twice, if its database is
locked in the middle."""

LATER_SERVER = "http://127.0.0.1:4200"
"""Where a server started later, as `prefect server start`, shows the run."""


def read_webhook(given: str | None) -> str:
    """Return the address to notify, from the command line or else the environment.

    Raises:
        InputError: there is none, or it is not a web address; the message does not repeat it.
    """
    if given is None:
        url = read_settings(AlertSettings).url
        if url is None:
            raise InputError(
                "nobody to notify", f"give --webhook or --block, or set {URL_VARIABLE}"
            )
        return url.get_secret_value()
    try:
        return check_alert_url(given)
    except ValueError as error:
        raise InputError(f"--webhook: {error}", "correct it") from None


def check_lasting_server() -> None:
    """Check that a server is configured, which does not end with this command.

    Raises:
        InputError: there is none.
    """
    if not PREFECT_API_URL.value():
        raise InputError(
            "PREFECT_API_URL is not set, and automations need a server that stays",
            "start one with `prefect server start` and set its address. Runs without one notify "
            f"{URL_VARIABLE} themselves",
        )


def save_webhook(name: str, url: str) -> str:
    """Save a block that posts a notification's subject and text as JSON, over any before.

    Returns:
        The block as `TYPE/NAME`.
    """
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    secrets = {"address": parts._replace(netloc=place).geturl()}
    headers = {}
    if login:
        # Not in the address, which the server logs when a notification is not taken.
        secrets["login"] = b64encode(unquote(login).encode()).decode()
        headers["Authorization"] = "Basic {{login}}"
    block = CustomWebhookNotificationBlock(
        name=name,
        # Secrets alone are kept encrypted and shown as dots.
        url="{{address}}",
        secrets=SecretDict(secrets),
        json_data={"subject": "{{subject}}", "text": "{{body}}"},
        headers=headers,
        cookies=None,
    )
    block.save(name, overwrite=True)
    return f"{block.get_block_type_slug()}/{name}"


def watch(block: str) -> list[str]:
    """Create or update the automations on the configured server.

    Args:
        block: the notification block, as `TYPE/NAME`.

    Returns:
        The automations' names.

    Raises:
        InputError: the server has no such block, or not one that notifies.
    """
    with get_client(sync_client=True) as client:
        automations = [make_telling(_find_block(client, block)), make_crashing()]
        for automation in automations:
            _save(client, automation)
    return [automation.name for automation in automations]


def make_telling(block_id: UUID) -> AutomationCore:
    """Return the automation that notifies of runs that failed, timed out or crashed."""
    values = {
        "flow": "{{ flow.name }}",
        "run": "{{ flow_run.name }}",
        "state": "{{ flow_run.state.name }}",
    }
    # By the address this server is reached at from here; it may know itself as 127.0.0.1.
    server = hide_credentials(PREFECT_UI_URL.value() or "")
    link = f"{server}/runs/flow-run/{{{{ flow_run.id }}}}"
    text = TEXT.format(**values, message="{{ flow_run.state.message }}", link=link)
    return AutomationCore(
        name=TELLING,
        description=f"Made by `python -m taxi_duration watch` for runs of {', '.join(FLOWS)}.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in ("Failed", "TimedOut", "Crashed")},
            match=ANY_RUN,
            match_related=OF_FLOWS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=TOLD,
        ),
        actions=[
            SendNotification(
                block_document_id=block_id, subject=SUBJECT.format(**values), body=text
            )
        ],
    )


def make_crashing() -> AutomationCore:
    """Return the automation that marks runs Crashed whose heartbeats stopped.

    The server refuses to crash a run that has already ended.
    """
    ends = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended")
    return AutomationCore(
        name=CRASHING,
        description="Made by `python -m taxi_duration watch`. A run's process was killed, or its "
        f"machine is gone: no heartbeat for {SILENT.total_seconds():g} seconds.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match=ANY_RUN,
            match_related=[OF_FLOWS, TAGGED],
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENT,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message="Its heartbeats stopped: its process was killed, or its machine is gone.",
                force=False,
            )
        ],
    )


ANY_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
OF_FLOWS = ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": FLOWS})
TAGGED = ResourceSpecification(
    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
)


def _find_block(client: SyncPrefectClient, block: str) -> UUID:
    type_slug, _, name = block.partition("/")
    if not type_slug or not name or "/" in name:
        raise InputError(
            f"--block {block!r} is not TYPE/NAME", "give one such as slack-webhook/ops"
        )
    try:
        document = client.read_block_document_by_name(name, type_slug, include_secrets=False)
    except ObjectNotFound:
        raise InputError(
            f"block {block!r} is not saved on this server",
            "give one that `prefect block ls` lists, as TYPE/NAME",
        ) from None
    schema = document.block_schema
    if schema is None or "notify" not in schema.capabilities:
        raise InputError(
            f"block {block!r} cannot notify", "give one of a type such as slack-webhook"
        )
    return document.id


def _save(client: SyncPrefectClient, automation: AutomationCore) -> None:
    found = client.read_automations_by_name(automation.name)
    if not found:
        client.create_automation(automation)
    # An update makes the server forget whose heartbeats it waits for.
    elif found[0].model_dump(exclude={"id"}) != automation.model_dump():
        client.update_automation(found[0].id, automation)
    for double in found[1:]:
        client.delete_automation(double.id)


def tell(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Post the run's name, state and message to the alert address, if there is one.

    A hook of a flow whose server ends with it: it raises nothing, and returns after
    `AlertSettings.deadline_seconds` even if the address answers later or never.
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
        log.warning("%s was not told of this run: %s", URL_VARIABLE, failure)


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
