"""Bodies that are no month, redirects elsewhere, and servers that are not who they should be."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_duration.data.schema import CABS
from taxi_duration.data.tlc import locate_month
from taxi_duration.errors import DataError, InputError, SourceError, StorageError
from tests.support.downloads import FILE, JANUARY, list_names, refuse
from tests.support.web import (
    PAGE,
    Handler,
    Tlc,
    answer_status,
    promise,
    send_encoded,
    serve_tlc,
)

# Bodies that are no month


def write_bomb(path: Path) -> Path:
    """A file of half a megabyte that holds 300 million rows."""
    rows, groups = 30_000_000, 10
    null = pa.nulls(rows, pa.int64())
    with pq.ParquetWriter(path, pa.schema([("PULocationID", pa.int64())])) as writer:
        for _ in range(groups):
            writer.write_table(pa.table({"PULocationID": null}), row_group_size=rows)
    return path


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    content = write_bomb(tmp_path_factory.mktemp("bomb") / FILE).read_bytes()
    assert len(content) < 1_000_000
    return content


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _: PAGE, "is not a parquet file"),
        (lambda _: b"", "is not a parquet file"),
        (gzip.compress, "is not a parquet file"),
        (lambda _: b"PAR1" * 3, "is not a parquet file"),
        (lambda month: month[:1000] + b"PAR1", "is not a parquet file"),
    ],
    ids=["page", "nothing", "gz file", "magic alone", "cut and mended"],
)
def test_body_that_is_no_month(
    make: Callable[[bytes], bytes], why: str, tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.files[FILE] = make(month)
    error = refuse(data, DataError, f"^{tlc.url}/{FILE} sent no month of green trips: {FILE} {why}")
    assert str(data) not in str(error)
    assert tlc.requests == [FILE]


def test_body_of_more_rows_than_a_month_has(bomb: bytes, tlc: Tlc, data: Path) -> None:
    tlc.files[FILE] = bomb
    message = f"sent no month of green trips: {FILE} claims 300,000,000 rows; a month has at most"
    refuse(data, DataError, message)


def test_months_of_another_cab(tlc: Tlc, month: bytes, data: Path) -> None:
    name = JANUARY.file_name("yellow")
    tlc.files[name] = month
    message = f"{name} sent no month of yellow trips: {name}: .*tpep_pickup_datetime is missing"
    with pytest.raises(DataError, match=message):
        locate_month(CABS["yellow"], JANUARY, data, False)
    assert list_names(data) == []


def test_encoded_body_is_refused_unread(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tlc.always = send_encoded
    monkeypatch.setattr("taxi_duration.data.transfer.Transfer.receive", pytest.fail)
    message = "sent a body encoded as gzip, which was not asked for: check TAXI_DURATION_TLC_URL"
    refuse(data, SourceError, message)


def test_body_that_is_announced_too_large_is_refused_unread(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.always = promise(4_000_000_001)
    message = (
        f"{FILE} is larger than the 4,000,000,000 bytes allowed: find out what it is, or raise "
        "TAXI_DURATION_TRANSFER_MOST_BYTES"
    )
    refuse(data, SourceError, message)


def test_body_that_grows_too_large(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_for_ever(request: Handler) -> None:
        request.start(200)
        while True:
            request.wfile.write(bytes(1000))

    monkeypatch.setenv("TAXI_DURATION_TRANSFER_MOST_BYTES", "100000")
    tlc.always = send_for_ever
    refuse(data, SourceError, f"{FILE} is larger than the 100,000 bytes allowed")


def test_body_that_the_disk_has_no_room_for_is_refused_unread(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_MOST_BYTES", str(10**16))
    tlc.always = promise(10**15)
    message = (
        rf"{FILE} has 1,000,000,000,000,000 bytes and the disk of {data} has [\d,]+ free: make "
        "room, or name another data directory"
    )
    refuse(data, StorageError, message)


# Redirects


@pytest.fixture
def elsewhere(tmp_path: Path, month: bytes) -> Iterator[Tlc]:
    """A second server, which must not be asked though it has the month."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    with serve_tlc(directory) as server:
        server.files[FILE] = month
        yield server


@pytest.mark.parametrize(
    "location",
    ["{elsewhere}/{file}", "//127.0.0.1:{port}/trip-data/{file}", "http://127.0.0.1:{port}/x",
     "http://{here}/trip-data/{file}", "file:///etc/passwd", "ftp://{here}/{file}",
     "https://{here}@evil.example/{file}", "https://user:SECRET@evil.example/{file}"],
)  # fmt: skip
def test_redirect_elsewhere_is_not_followed(
    location: str, tlc: Tlc, elsewhere: Tlc, month: bytes, data: Path
) -> None:
    target = location.format(
        elsewhere=elsewhere.url, port=elsewhere.port, here=f"127.0.0.1:{tlc.port}", file=FILE
    )
    tlc.always = answer_status(302, Location=target)
    message = (
        f"{tlc.url}/{FILE} redirects to [^ ]+, which is another host and was not asked: check "
        "TAXI_DURATION_TLC_URL"
    )
    error = refuse(data, SourceError, message)
    assert "SECRET" not in str(error)
    assert tlc.requests == [FILE]
    assert elsewhere.requests == []


def test_redirects_in_a_circle(tlc: Tlc, month: bytes, data: Path) -> None:
    tlc.always = answer_status(302, Location=f"/trip-data/{FILE}")
    refuse(data, SourceError, f"{FILE} redirects more than 3 times")
    assert tlc.requests == [FILE] * 4


def test_body_of_a_redirect_is_left_unread(tlc: Tlc, month: bytes, data: Path) -> None:
    def redirect_for_ever(request: Handler) -> None:
        request.start(302, Location=f"/trip-data/{FILE}", Transfer_Encoding="chunked")
        while not request.tlc.released.is_set():
            request.wfile.write(b"1\r\n.\r\n")

    tlc.answers = [redirect_for_ever]
    assert locate_month(CABS["green"], JANUARY, data, False).path.read_bytes() == month


# Who the server is


def test_certificate_that_nobody_vouches_for(
    tlc: Tlc, elsewhere: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(elsewhere.authority))
    message = (
        f"{FILE} does not prove who it is .*CERTIFICATE_VERIFY_FAILED.*: check the network, or "
        "name the authority that vouches for a mirror in SSL_CERT_FILE"
    )
    refuse(data, SourceError, message)
    assert tlc.requests == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authority_that_cannot_be_read(
    content: str | None,
    tlc: Tlc,
    month: bytes,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = tmp_path / "authority.pem"
    if content:
        authority.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    message = f"SSL_CERT_FILE is '{authority}', which holds no certificates .*: correct or unset it"
    refuse(data, InputError, message)
    assert tlc.requests == []
