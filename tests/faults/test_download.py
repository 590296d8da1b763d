"""What a server answers in place of a month, and transfers that end early, late or never."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import cast

import pytest

from taxi_duration.data.month import Month, newest_published
from taxi_duration.data.tlc import locate_month
from taxi_duration.errors import SourceError, TransientSourceError
from taxi_duration.files import hash_file
from tests.support.downloads import FILE, GREEN, JANUARY, SIDECAR, list_names, locate, refuse
from tests.support.web import (
    Answer,
    Tlc,
    answer_status,
    halt_after,
    hang,
    reset_after,
    send_chunked,
    send_part,
    send_unannounced,
    serve_tlc,
    trickle,
)

# Statuses


TODAY = datetime.now(UTC).date()
THIS_MONTH = Month.of(TODAY)


@pytest.mark.parametrize(
    ("month", "why"),
    [
        (THIS_MONTH.shift(-1), r"{0} is not published yet; expect it by \d{{4}}-\d\d-01: choose"),
        (newest_published(TODAY), "{0} is not published yet, though it is due: choose"),
        (THIS_MONTH.shift(-5), "{0} is not published yet, though it is due: choose"),
        (THIS_MONTH.shift(-6), "access to {0}, which should long be published, is denied: choose"),
        (JANUARY, "access to {0}, which should long be published, is denied: choose another m"),
    ],
    ids=["not due", "just due", "late", "too late", "old"],
)
def test_forbidden_month(month: Month, why: str, tlc: Tlc, data: Path) -> None:
    tlc.always = answer_status(403)
    message = f"{tlc.url}/{month.file_name('green')} answered 403 Forbidden: {why.format(month)}"
    with pytest.raises(SourceError, match=message) as caught:
        locate_month(GREEN, month, data, False)
    assert type(caught.value) is SourceError
    assert tlc.requests == [month.file_name("green")]
    assert list_names(data) == []


def test_absent_month(tlc: Tlc, data: Path) -> None:
    message = f"{tlc.url}/{FILE} answered 404 Not Found: there is no such file: choose another m"
    refuse(data, SourceError, message)
    assert tlc.requests == [FILE]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_status_that_passes(status: int, tlc: Tlc, data: Path) -> None:
    tlc.always = answer_status(status)
    message = rf"{FILE} answered {status} .*: the server is busy or failing: try again later"
    refuse(data, TransientSourceError, message)


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 410, 416, 451])
def test_status_that_stays(status: int, tlc: Tlc, month: bytes, data: Path) -> None:
    tlc.always = answer_status(status)
    message = rf"answered {status} .*: it should answer 200: check TAXI_DURATION_TLC_URL"
    refuse(data, SourceError, message)
    assert tlc.requests == [FILE]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("2", 2),
        ("100000", 120),
        ("9" * 400, 120),
        ("Sun, 20 Mar 2095 12:00:00 GMT", 120),
        ("Mon, 20 Mar 2023 12:00:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("\N{SUPERSCRIPT TWO}", 0),
        ("Mon, 20 Mar 2023 12:00:00 -0000", 0),
        ("Mon, 20 Mar 99999999999999999999 12:00:00 GMT", 0),
        ("Mon, 20 Mar 2023 12:00:00 +99999999999999", 0),
    ],
)
def test_wait_the_server_asks_for(asked: str, seconds: float, tlc: Tlc, data: Path) -> None:
    tlc.always = answer_status(429, Retry_After=asked)
    error = refuse(data, TransientSourceError, "answered 429 Too Many Requests")
    assert cast(TransientSourceError, error).wait_seconds == seconds


def test_wait_the_server_dates(tlc: Tlc, data: Path) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    tlc.always = answer_status(429, Retry_After=until)
    error = refuse(data, TransientSourceError, "answered 429")
    assert 0 < cast(TransientSourceError, error).wait_seconds <= 60


# Transfers that end early, late or never


@pytest.mark.parametrize(
    "make",
    [
        lambda month: send_part(len(month) - 1),
        lambda month: send_part(0),
        lambda month: reset_after(1000),
        lambda month: send_chunked(month[:1000], is_whole=False),
        lambda month: send_chunked(month, is_whole=False),
        lambda month: send_chunked(month[:1000], is_whole=True),
        lambda month: send_unannounced(month[:1000]),
        lambda month: send_unannounced(month[:4]),
    ],
    ids=[
        "a byte short", "no byte", "reset", "chunks cut", "last chunk cut", "short chunks",
        "unannounced and cut", "four bytes",
    ],
)  # fmt: skip
def test_transfer_that_is_cut(
    make: Callable[[bytes], Answer], tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.answers = [make(month)]
    refuse(data, TransientSourceError, rf"{tlc.url}/{FILE} (did not answer|sent [\d,]+ byte)")
    assert tlc.requests == [FILE]
    assert locate(data).path.read_bytes() == month


@pytest.mark.parametrize("make", [send_unannounced, lambda body: send_chunked(body, is_whole=True)])
def test_transfer_of_unannounced_length(
    make: Callable[[bytes], Answer], tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.answers = [make(month)]
    assert locate(data).path.read_bytes() == month
    assert json.loads((data / SIDECAR).read_text("utf-8"))["etag"] == ""
    assert locate(data).sha256 == hash_file(data / FILE)
    assert "if-none-match" not in tlc.headers[1]


def test_server_that_never_answers(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_READ_SECONDS", "0.2")
    tlc.always = hang
    refuse(data, TransientSourceError, r"did not answer \(ReadTimeout: .*\): check the netwo")
    assert tlc.requests == [FILE]


def test_server_that_stops_sending(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_READ_SECONDS", "0.2")
    tlc.always = halt_after(1000)
    refuse(data, TransientSourceError, r"did not answer \(ReadTimeout: ")


def test_transfer_that_is_too_slow(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_GRACE_SECONDS", "0.2")
    tlc.always = trickle
    message = (
        r"sent \d+ bytes in \d+\.\d s, which is slower than the 20,000 a second of TAXI_DURATION_TR"
        "ANSFER_SLOWEST_BYTES_A_SECOND: nothing was kept; try again"
    )
    refuse(data, TransientSourceError, message)


def test_transfer_that_takes_too_long(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_DEADLINE_SECONDS", "0.3")
    tlc.always = trickle
    message = r"more than the 0\.3 of TAXI_DURATION_TRANSFER_DEADLINE_SECONDS"
    refuse(data, TransientSourceError, message)


def test_nobody_listens(
    tlc: Tlc, data: Path, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", unused_url)
    message = rf"{unused_url}/{FILE} did not answer \(ConnectError: .*refused\): check the network"
    refuse(data, TransientSourceError, message)
    assert tlc.requests == []


@pytest.fixture
def unused_url(tmp_path: Path) -> str:
    """The address of a server that is gone."""
    with serve_tlc(tmp_path) as gone:
        return gone.url
