"""How often the flows ask for a month: in one run for all, without the pauses between tries."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow

from taxi_duration.data.parquet import MonthFile
from taxi_duration.errors import DataError, SourceError, TransientSourceError
from taxi_duration.files import hash_file
from taxi_duration.flows.tasks import download_month
from tests.conftest import connected_to
from tests.support.downloads import FILE, JANUARY, SIDECAR, list_names, locate
from tests.support.months import write_month
from tests.support.web import (
    PAGE,
    Answer,
    answer_status,
    reset_after,
    send_part,
    send_unannounced,
    serve_tlc,
)


@dataclass
class Scenario:
    """How the server answers, and what the task made of it."""

    answers: tuple[Answer, ...] = ()
    always: Answer | None = None
    is_fetched: bool = False
    """Whether the month is there before."""
    result: object = None
    requests: int = 0
    waits: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def make_scenarios() -> dict[str, Scenario]:
    fail, busy = answer_status(500), answer_status(429, Retry_After="3")
    return {
        "500, 500, 200": Scenario((fail, fail)),
        "503 for ever": Scenario(always=answer_status(503)),
        "403": Scenario(always=answer_status(403)),
        "404": Scenario(always=answer_status(404)),
        "a small wait": Scenario((busy,)),
        "a huge wait": Scenario((answer_status(429, Retry_After="86400"),)),
        "waits for ever": Scenario(always=busy),
        "a short body once": Scenario((send_part(1000),)),
        "short bodies for ever": Scenario(always=send_part(1000)),
        "a reset once": Scenario((reset_after(1000),)),
        "a page for a month": Scenario(always=send_unannounced(PAGE)),
        "every fault once": Scenario((fail, busy, send_part(0), reset_after(1000))),
        "503 for ever, and a month": Scenario(always=answer_status(503), is_fetched=True),
    }


@pytest.fixture(scope="module")
def tried(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Scenario]]:
    scenarios = make_scenarios()
    directory = tmp_path_factory.mktemp("tried")
    waits: list[float] = []
    task = download_month.with_options(retry_delay_seconds=0)

    @flow
    def try_all(tlc: Any) -> None:
        for name, scenario in scenarios.items():
            data = directory / name
            if scenario.is_fetched:
                tlc.always = None
                locate(data)
                tlc.requests.clear()
            tlc.answers, tlc.always = [*scenario.answers], scenario.always
            state = task(lambda *_, data=data: locate(data), JANUARY, return_state=True)
            scenario.result = state.result(raise_on_failure=False)
            scenario.requests, scenario.waits = len(tlc.requests), [*waits]
            scenario.names = list_names(data)
            tlc.requests.clear()
            waits.clear()

    with (
        pytest.MonkeyPatch.context() as patch,
        serve_tlc(directory) as tlc,
        connected_to(prefect_server),
    ):
        for variable, value in tlc.environment.items():
            patch.setenv(variable, value)
        patch.setenv("TAXI_DURATION_TRANSFER_LONGEST_WAIT_SECONDS", "7")
        patch.setattr("taxi_duration.flows.tasks.time", SimpleNamespace(sleep=waits.append))
        tlc.files[FILE] = write_month(directory / "made" / FILE).read_bytes()
        try_all(tlc)
        yield scenarios


@pytest.mark.parametrize(
    ("name", "requests", "waits"),
    [
        ("500, 500, 200", 3, []),
        ("a small wait", 2, [3]),
        ("a huge wait", 2, [7]),
        ("a short body once", 2, []),
        ("a reset once", 2, []),
        ("every fault once", 5, [3]),
        ("503 for ever, and a month", 1, []),
    ],
)
def test_task_that_gets_its_month(
    name: str, requests: int, waits: list[float], tried: dict[str, Scenario]
) -> None:
    scenario = tried[name]
    assert isinstance(scenario.result, MonthFile)
    assert scenario.result.sha256 == hash_file(scenario.result.path)
    assert len(scenario.result.notices) == scenario.is_fetched
    assert (scenario.requests, scenario.waits) == (requests, waits)
    assert scenario.names == [FILE, SIDECAR]


@pytest.mark.parametrize(
    ("name", "requests", "waits", "kind", "message"),
    [
        ("503 for ever", 5, [], TransientSourceError, "answered 503 Service Unavailable"),
        ("short bodies for ever", 5, [], TransientSourceError, "IncompleteRead|1,000 bytes|peer"),
        ("waits for ever", 5, [3] * 4, TransientSourceError, "answered 429 Too Many Requests"),
        ("403", 1, [], SourceError, "answered 403 Forbidden"),
        ("404", 1, [], SourceError, "answered 404 Not Found"),
        ("a page for a month", 1, [], DataError, "sent no month of green trips"),
    ],
)
def test_task_that_gives_up(
    name: str,
    requests: int,
    waits: list[float],
    kind: type[Exception],
    message: str,
    tried: dict[str, Scenario],
) -> None:
    scenario = tried[name]
    assert type(scenario.result) is kind
    assert re.search(message, str(scenario.result))
    assert (scenario.requests, scenario.waits) == (requests, waits)
    assert scenario.names == []
