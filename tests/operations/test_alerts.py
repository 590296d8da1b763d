"""Who is told when a run ends badly: by the server's automations, or by the run's own hook."""

import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Completed, Crashed, Failed, Running

import orchestrate
from taxi_duration.flows.server import TAG
from taxi_duration.operations import alerts
from taxi_duration.operations.alerts import tell
from tests.conftest import REPOSITORY, connected_to
from tests.support.watched import Receiver, forget_automations, receive, watch

BLOCK = "custom-webhook/taxi-duration-alerts"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


@pytest.fixture
def server(prefect_server: str) -> Iterator[str]:
    """The server, left without automations."""
    with connected_to(prefect_server):
        yield prefect_server
        forget_automations()


def test_bad_ends_are_told_once_and_good_ones_not(server: str, receiver: Receiver) -> None:
    assert watch("--webhook", receiver.url("/hook?token=abc", login="me:pa%24s@")) == 0
    with get_client(sync_client=True) as client:

        def end(name: str, *states: State[Any]) -> FlowRun:
            run = client.create_flow_run(orchestrate.main_flow, name=name)
            for state in states:
                client.set_flow_run_state(run.id, state, force=True)
            return run

        end("good", Running(), Completed(message="well"))
        # Failed twice, as when the server evaluates the event twice.
        failed = end(
            "failed", Running(), Failed(message="no trip is left"), Failed(message="again")
        )
        end("crashed", Running(), Crashed(message="of a signal"))
        # The server tells in the order of the events: whatever was told twice came before this one.
        end("last", Running(), Failed(message="as the last"))

    told = receiver.wait_for("main-flow run last is Failed")
    link = f"{server.removesuffix('/api')}/runs/flow-run/{failed.id}"
    assert told[0].content == {
        "subject": "main-flow run failed is Failed",
        "text": f"main-flow run failed is Failed: no trip is left\n{link}",
    }
    assert [each.content["subject"] for each in told[1:]] == [
        "main-flow run crashed is Crashed",
        "main-flow run last is Failed",
    ]
    assert {(each.path, each.login, each.kind) for each in told} == {
        ("/hook?token=abc", "Basic bWU6cGEkcw==", "application/json")
    }


def test_watching_twice_leaves_one_of_each(
    server: str, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch("--webhook", receiver.url("/one?token=abc", login="me:word@")) == 0
    before = read_automations()
    assert watch("--webhook", receiver.url("/two")) == 0
    assert read_automations() == before
    assert len(before) == 2
    block = CustomWebhookNotificationBlock.load("taxi-duration-alerts")
    assert block.secrets.get_secret_value() == {"address": receiver.url("/two")}
    output, errors = capsys.readouterr()
    assert output == 2 * (
        f"saved block {BLOCK} for 127.0.0.1\n"
        "saved automation 'nyc-taxi-duration: tell of failed and crashed runs'\n"
        "saved automation 'nyc-taxi-duration: crash runs whose heartbeats stopped'\n"
    )
    assert errors == ""


def test_what_somebody_changed_is_put_right(server: str, receiver: Receiver) -> None:
    assert watch("--webhook", receiver.url()) == 0
    made = read_automations()
    with get_client(sync_client=True) as client:
        (crashing,) = client.read_automations_by_name(alerts.CRASHING)
        client.pause_automation(crashing.id)
        other = alerts.make_crashing()
        other.trigger.within = timedelta(seconds=10)  # type: ignore[union-attr]
        client.create_automation(other)
    assert watch("--webhook", receiver.url()) == 0
    assert [(name, content) for name, _, content in read_automations()] == [
        (name, content) for name, _, content in made
    ]


def read_automations() -> list[tuple[str, UUID, dict[str, Any]]]:
    """Name, id and content of ours."""
    with get_client(sync_client=True) as client:
        return [
            (name, each.id, each.model_dump(exclude={"id"}))
            for name in (alerts.CRASHING, alerts.TELLING)
            for each in client.read_automations_by_name(name)
        ]


# Slack's block loads a module of Python's that goes away, by which time Slack's does without.
@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_block_of_another_kind_is_told_instead(server: str) -> None:
    SlackWebhook(url="https://hooks.slack.com/services/T0/B0/X0").save("ops", overwrite=True)
    assert watch("--block", "slack-webhook/ops") == 0
    with get_client(sync_client=True) as client:
        block = client.read_block_document_by_name("ops", "slack-webhook")
        (telling,) = client.read_automations_by_name(alerts.TELLING)
    assert [action.block_document_id for action in telling.actions] == [block.id]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("ops", "--block 'ops' is not TYPE/NAME: give one such as slack-webhook/ops."),
        ("/ops", "--block '/ops' is not TYPE/NAME: give one such as slack-webhook/ops."),
        (
            "slack-webhook/not-there",
            "block 'slack-webhook/not-there' is not saved on this server: give one that "
            "`prefect block ls` lists, as TYPE/NAME.",
        ),
        (
            "secret/quiet",
            "block 'secret/quiet' cannot notify: give one of a type such as slack-webhook.",
        ),
    ],
)
def test_block_that_cannot_be_told(
    block: str, message: str, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Secret(value="quiet").save("quiet", overwrite=True)
    assert watch("--block", block) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert read_automations() == []


@pytest.mark.parametrize(
    "url",
    ["", "ftp://me:word@host/", "http://", "me:word@host", "http://h:word/", "http://a b/word",
     "https://[::1/word", "http://host/\nword", "//host/word"],
)  # fmt: skip
def test_webhook_that_is_no_address_is_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert watch("--webhook", url) == 2
        output, errors = capsys.readouterr()
        assert re.fullmatch(r"error: --webhook: .+ https://hooks\.example\.org/taxi: .+\n", errors)
        monkeypatch.setenv("TAXI_DURATION_ALERT_URL", url)
        assert watch() == 2
        more_output, more_errors = capsys.readouterr()
    assert more_errors.startswith("error: TAXI_DURATION_ALERT_URL: ")
    assert output == more_output == ""
    assert "word" not in errors + more_errors


def test_watching_needs_a_server_that_stays_and_an_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert watch("--webhook", "http://127.0.0.1:9/") == 2
    assert "error: PREFECT_API_URL is not set, and automations need" in capsys.readouterr().err
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert watch() == 2
    assert capsys.readouterr().err == (
        "error: nobody to notify: give --webhook or --block, or set TAXI_DURATION_ALERT_URL.\n"
    )


@pytest.fixture
def ended() -> Iterator[FlowRun]:
    """A flow run whose server is none of the tests'."""
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield FlowRun(flow_id=uuid4(), name="quiet-owl")


def test_hook_tells_of_a_crash_without_passwords(
    receiver: Receiver, ended: FlowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_ALERT_URL", receiver.url())
    tell(orchestrate.main_flow, ended, Crashed(message="of http://me:word@host/"))
    assert (
        receiver.told[0]
        .content["text"]
        .startswith("main-flow run quiet-owl is Crashed: of http://host/\n")
    )


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/hook?token=abc", 500, "the answer was 500"),
        ("/hook?token=abc", 302, "the answer was 302"),
        ("/never", 200, "no answer in 0.5 s"),
        (None, 200, "ConnectError"),
    ],
)
def test_hook_that_cannot_tell_says_so_in_one_line_and_lets_the_run_end(
    path: str | None,
    status: int,
    why: str,
    receiver: Receiver,
    ended: FlowRun,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.status = status
    url = "http://127.0.0.1:9/" if path is None else receiver.url(path, login="me:word@")
    monkeypatch.setenv("TAXI_DURATION_ALERT_URL", url)
    monkeypatch.setenv("TAXI_DURATION_ALERT_DEADLINE_SECONDS", "0.5")
    with caplog.at_level(logging.WARNING, "prefect.flow_runs"):
        tell(orchestrate.main_flow, ended, Failed(message="broken"))
    assert [record.getMessage() for record in caplog.records] == [
        f"TAXI_DURATION_ALERT_URL was not told of this run: {why}"
    ]


def test_hook_with_a_setting_that_is_none_lets_the_run_end(
    ended: FlowRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TAXI_DURATION_ALERT_DEADLINE_SECONDS", "soon")
    with caplog.at_level(logging.WARNING, "prefect.flow_runs"):
        tell(orchestrate.main_flow, ended, Failed())
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "nobody was told of this run: TAXI_DURATION_ALERT_DEADLINE_SECONDS is 'soon': "
    )


@pytest.mark.parametrize("file", ["prefect.yaml", "deployment.yaml"])
def test_deployments_are_tagged_to_be_watched(file: str) -> None:
    declared = yaml.safe_load((REPOSITORY / file).read_text("utf-8"))["deployments"]
    assert declared
    assert all(TAG in deployment["tags"] for deployment in declared)
