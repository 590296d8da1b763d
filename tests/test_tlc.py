import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect import flow

from taxi_duration import tlc
from taxi_duration.disk import hash_file
from taxi_duration.errors import DataError, SourceError, TransientSourceError
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.pipeline import RETRIES, download_month
from taxi_duration.tlc import locate_month
from taxi_duration.trips import CABS
from tests.months import write_month
from tests.servers import find_free_port

GREEN = CABS["green"]
JANUARY = Month(2023, 1)
FILE = JANUARY.file_name("green")


class Tlc:
    """A web server that holds months and can be told to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.statuses: list[int] = []
        self.bytes_kept_back = 0
        self.hang = threading.Event()
        self.hang.set()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.hang.wait(60)
        name = request.path.removeprefix("/trip-data/")
        self.requests.append(name)
        body = self.files.get(name, b"")
        status = self.statuses.pop(0) if self.statuses else (200 if body else 404)
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"etag-of-the-tlc"')
        request.end_headers()
        request.wfile.write(body[: len(body) - self.bytes_kept_back])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tlc]:
    served = Tlc()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{web.server_port}/trip-data"
        monkeypatch.setenv("TAXI_DURATION_TLC_URL", url)
        yield served
        served.hang.set()
        web.shutdown()
        thread.join()


@pytest.fixture
def month(tmp_path: Path, server: Tlc) -> bytes:
    """The bytes of a month that the server holds."""
    content = write_month(tmp_path / "made" / FILE).read_bytes()
    server.files[FILE] = content
    return content


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def locate(data: Path, offline: bool = False) -> MonthFile:
    return locate_month(GREEN, JANUARY, data, offline)


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_month_arrives_whole_with_a_sidecar(server: Tlc, month: bytes, data: Path) -> None:
    file = locate(data)
    assert file == MonthFile(JANUARY, data / FILE, hash_file(data / FILE))
    assert (data / FILE).read_bytes() == month
    assert list_names(data) == [FILE, f"{FILE}.json"]
    assert json.loads((data / f"{FILE}.json").read_text("utf-8")) == {
        "source": tlc.month_url(GREEN, JANUARY),
        "etag": '"etag-of-the-tlc"',
        "size": len(month),
        "sha256": file.sha256,
    }


def test_month_that_is_here_is_not_asked_for_again(server: Tlc, month: bytes, data: Path) -> None:
    assert locate(data) == locate(data)
    assert server.requests == [FILE]


def test_a_users_own_file_is_taken_as_it_is(server: Tlc, month: bytes, data: Path) -> None:
    write_month(data / FILE, minutes=20)
    assert locate(data).sha256 == hash_file(data / FILE)
    assert list_names(data) == [FILE]
    assert server.requests == []


@pytest.mark.parametrize("status", [403, 404])
def test_month_the_tlc_does_not_give(status: int, server: Tlc, data: Path) -> None:
    server.statuses = [status]
    with pytest.raises(
        SourceError, match=rf"{FILE} answered {status} .* has not published 2023-01"
    ):
        locate(data)
    assert list_names(data) == []


def test_status_that_is_no_answer(server: Tlc, month: bytes, data: Path) -> None:
    server.statuses = [301]
    with pytest.raises(SourceError, match=r"answered 301 .* check TAXI_DURATION_TLC_URL") as caught:
        locate(data)
    assert not isinstance(caught.value, TransientSourceError)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_busy_server_is_worth_another_try(status: int, server: Tlc, data: Path) -> None:
    server.statuses = [status]
    with pytest.raises(TransientSourceError, match=f"answered {status} .* try again later"):
        locate(data)
    assert list_names(data) == []


def test_short_body_leaves_nothing(server: Tlc, month: bytes, data: Path) -> None:
    server.bytes_kept_back = 100
    with pytest.raises(
        TransientSourceError, match=rf"{FILE} did not answer \(RemoteProtocolError.*received"
    ):
        locate(data)
    assert list_names(data) == []


def test_body_that_is_not_parquet_leaves_nothing(server: Tlc, data: Path) -> None:
    server.files[FILE] = b"<html>Sign in to the wifi</html>"
    with pytest.raises(DataError, match=f"{FILE} is not a parquet file"):
        locate(data)
    assert list_names(data) == []


def test_parquet_of_something_else_leaves_nothing(server: Tlc, tmp_path: Path, data: Path) -> None:
    made = write_month(tmp_path / "made.parquet", without="DOLocationID")
    server.files[FILE] = made.read_bytes()
    with pytest.raises(DataError, match="column DOLocationID is missing; the columns are lpep_"):
        locate(data)
    assert list_names(data) == []


def test_altered_bytes_are_noticed(server: Tlc, month: bytes, data: Path) -> None:
    fetched = locate(data).sha256
    altered = bytearray(month)
    altered[len(altered) // 4] ^= 1
    (data / FILE).write_bytes(altered)
    found = hash_file(data / FILE)
    with pytest.raises(DataError, match=rf"has sha256 {found}, but {fetched} .* Delete it and run"):
        locate(data)


def test_offline_asks_nobody(server: Tlc, month: bytes, data: Path) -> None:
    address = tlc.month_url(GREEN, JANUARY)
    with pytest.raises(
        DataError, match=rf"{FILE} is missing and offline is set: download {address}"
    ):
        locate(data, offline=True)
    assert server.requests == []


def test_nobody_listens(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", f"http://127.0.0.1:{find_free_port()}")
    with pytest.raises(TransientSourceError, match=r"did not answer \(ConnectError.*with offline"):
        locate(data)
    assert list_names(data) == []


def test_server_that_hangs(
    server: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.hang.clear()
    monkeypatch.setattr(tlc, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(TransientSourceError, match=r"did not answer \(ReadTimeout"):
        locate(data)


@pytest.mark.parametrize("address", ["not an address", "ftp://127.0.0.1/trip-data", "http://[::1"])
def test_mirror_that_is_no_address(
    address: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", address)
    with pytest.raises(
        SourceError, match=r"is not an address .* set TAXI_DURATION_TLC_URL"
    ) as caught:
        locate(data)
    assert not isinstance(caught.value, TransientSourceError)


@flow
def download(data: Path) -> MonthFile:
    """The task as the flows run it, without the pauses between its tries."""
    task = download_month.with_options(retry_delay_seconds=0)
    return task(lambda _: locate(data), JANUARY)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("prefect_api")
def test_task_tries_again_until_the_server_recovers(server: Tlc, month: bytes, data: Path) -> None:
    server.statuses = [500, 500, 200]
    assert download(data).path == data / FILE
    assert server.requests == [FILE] * 3


@pytest.mark.usefixtures("prefect_api")
def test_task_gives_up_after_five_tries(server: Tlc, month: bytes, data: Path) -> None:
    server.statuses = [503] * 9
    with pytest.raises(TransientSourceError, match="answered 503"):
        download(data)
    assert len(server.requests) == 5


@pytest.mark.usefixtures("prefect_api")
def test_task_does_not_repeat_what_cannot_help(server: Tlc, data: Path) -> None:
    with pytest.raises(SourceError, match="answered 404"):
        download(data)
    assert server.requests == [FILE]


def test_tries_are_spaced_exponentially_with_jitter() -> None:
    assert download_month.retry_delay_seconds == [2, 4, 8, 16]
    assert download_month.retry_jitter_factor == 1
    assert download_month.retry_condition_fn is RETRIES["retry_condition_fn"]
