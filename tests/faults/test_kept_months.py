"""A month that was fetched before, damaged here, replaced there, or no longer to be had."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import pandas as pd
import pytest

from taxi_duration.data import cache
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.tlc import locate_month
from taxi_duration.errors import DataError, StorageError, TransientSourceError
from taxi_duration.files import hash_file
from tests.support.downloads import FILE, GREEN, SIDECAR, list_names, locate, refuse
from tests.support.months import write_month
from tests.support.web import (
    PAGE,
    Answer,
    Handler,
    Tlc,
    answer_status,
    make_etag,
    promise,
    send_encoded,
    send_part,
    send_unannounced,
    serve,
)


def flip_bit(path: Path) -> str:
    """Alter a data page; the sha256 the file has then."""
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    return hash_file(path)


def say_changed(tlc: Tlc, data: Path, found: str, expected: str) -> str:
    return (
        f"{data / FILE} has sha256 {found}, but {expected} was fetched from {tlc.url}/{FILE}: its "
        "bytes changed on this disk, and it is fetched again."
    )


def test_real_month_with_a_flipped_bit(tlc: Tlc, data: Path, real_data: Path) -> None:
    february = Month(2023, 2)
    name = february.file_name("green")
    tlc.files[name] = (real_data / name).read_bytes()
    first = locate_month(GREEN, february, data, False)
    found = flip_bit(first.path)
    assert found != first.sha256
    again = locate_month(GREEN, february, data, False)
    assert again.path.read_bytes() == tlc.files[name]
    notice, kept = again.notices
    assert notice.startswith(f"{first.path} has sha256 {found}, but {first.sha256} was fetched")
    assert notice.endswith("its bytes changed on this disk, and it is fetched again.")
    assert kept == f"What was there is kept as {name}.altered-1."
    assert hash_file(data / f"{name}.altered-1") == found
    assert "if-none-match" not in tlc.headers[1]


def test_altered_month_offline(tlc: Tlc, fetched: MonthFile, data: Path) -> None:
    found = flip_bit(data / FILE)
    before = (data / SIDECAR).read_bytes()
    with pytest.raises(DataError) as caught:
        locate(data, offline=True)
    assert str(caught.value) == (
        f"{say_changed(tlc, data, found, fetched.sha256)} But that may not be (offline is set, or "
        f"{data} is read-only): run where it may, or, to use it as a file of your own, delete "
        f"{SIDECAR}."
    )
    assert (hash_file(data / FILE), (data / SIDECAR).read_bytes()) == (found, before)
    assert tlc.requests == []


def test_sidecar_that_is_gone(tlc: Tlc, fetched: MonthFile, data: Path) -> None:
    (data / SIDECAR).unlink()
    file = locate(data)
    assert file.sha256 == fetched.sha256
    assert file.notices == (
        f"{FILE} has no sidecar: it is used as the file of your own that it seems to be.",
    )
    assert list_names(data) == [FILE]
    assert tlc.requests == []


def change(**values: object) -> Callable[[str], bytes]:
    return lambda sidecar: json.dumps({**json.loads(sidecar), **values}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda sidecar: sidecar.encode()[:-20],
        lambda _: b"\xff\xfe garbage \x00",
        lambda _: b"null",
        lambda _: b"[1, 2]",
        lambda _: b"{}",
        lambda _: b"[" * 100_000,
        lambda sidecar: sidecar.encode("utf-16"),
        change(more=1),
        change(sha256=None),
        change(etag=5),
        change(rows="12"),
        change(rows=True),
        change(source=["x"]),
    ],
)
def test_sidecar_that_is_garbage(
    damage: Callable[[str], bytes], tlc: Tlc, fetched: MonthFile, data: Path
) -> None:
    good = (data / SIDECAR).read_bytes()
    (data / SIDECAR).write_bytes(damage(good.decode()))
    with pytest.raises(DataError, match=rf"{SIDECAR} cannot be read \(.*\), so {FILE}, for which"):
        locate(data, offline=True)
    file = locate(data)
    (notice,) = file.notices
    assert notice.startswith(f"{data / SIDECAR} cannot be read (")
    assert notice.endswith(f"), so {FILE}, for which nothing vouches, is fetched again.")
    assert (data / SIDECAR).read_bytes() == good
    assert list_names(data) == [FILE, SIDECAR]
    assert tlc.requests == [FILE]
    assert "if-none-match" not in tlc.headers[0]


def test_file_placed_over_a_fetched_one_is_kept_aside(
    tlc: Tlc, fetched: MonthFile, data: Path
) -> None:
    for number in (1, 2):
        placed = write_month(data / FILE, minutes=10 + number).read_bytes()
        assert locate(data).notices[1] == f"What was there is kept as {FILE}.altered-{number}."
        assert (data / f"{FILE}.altered-{number}").read_bytes() == placed
        assert (data / FILE).read_bytes() == tlc.files[FILE]


def test_file_placed_while_the_month_arrives_is_the_users(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    def answer_late(request: Handler) -> None:
        write_month(data / FILE, minutes=20)
        serve(request)

    tlc.answers = [answer_late]
    file = locate(data)
    assert file.sha256 == hash_file(data / FILE) != hashlib.sha256(month).hexdigest()
    assert file.notices == (
        f"{FILE} has no sidecar: it is used as the file of your own that it seems to be.",
    )
    assert list_names(data) == [FILE]


def test_file_that_cannot_be_read_is_fetched_again(
    tlc: Tlc, fetched: MonthFile, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cache, "hash_file", fail)
    with pytest.raises(DataError, match=rf"{FILE} cannot be read \(Input/output error\), and is"):
        locate(data, offline=True)
    assert locate(data).notices == (
        f"{data / FILE} cannot be read (Input/output error), and is fetched again.",
        f"What was there is kept as {FILE}.altered-1.",
    )
    (data / SIDECAR).unlink()
    with pytest.raises(DataError, match=rf"{FILE} cannot be read \(Input/output error\): put a go"):
        locate(data)


def test_month_published_anew_without_a_row_is_not_taken(
    tlc: Tlc, fetched: MonthFile, data: Path, tmp_path: Path
) -> None:
    path = write_month(tmp_path / "empty.parquet")
    pd.read_parquet(path).iloc[:0].to_parquet(path)
    tlc.files[FILE] = path.read_bytes()
    file = locate(data)
    assert file.sha256 == fetched.sha256 == hash_file(data / FILE)
    (notice,) = file.notices
    assert "no trip is left of 0: the file has no rows" in notice
    assert notice.endswith(f"The {FILE} that is here, verified by its sha256, is used instead.")


def test_sidecar_from_another_source(tlc: Tlc, fetched: MonthFile, data: Path) -> None:
    sidecar = (data / SIDECAR).read_text("utf-8")
    (data / SIDECAR).write_text(sidecar.replace(tlc.url, "https://mirror.example"))
    assert locate(data) == fetched
    written = json.loads((data / SIDECAR).read_text("utf-8"))
    assert written == {
        **json.loads(sidecar), "previous_sha256": fetched.sha256, "previous_rows": 12,
    }  # fmt: skip
    assert "if-none-match" not in tlc.headers[0]


@pytest.mark.parametrize("etag", ["\N{LATIN SMALL LETTER E WITH ACUTE}", '"a\tb"', "x" * 5000])
def test_etag_of_any_text(etag: str, tlc: Tlc, month: bytes, data: Path) -> None:
    tlc.always = lambda request: request.answer(200, month, ETag=etag)
    first = locate(data)
    assert locate(data) == first
    assert len(tlc.requests) == 2


def test_month_that_is_still_the_published_one(tlc: Tlc, fetched: MonthFile, data: Path) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    assert locate(data) == fetched
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    assert tlc.requests == [FILE]
    assert tlc.headers[0]["if-none-match"] == make_etag(tlc.files[FILE])


def test_sidecar_of_tomorrow_is_asked_after_all_the_same(
    tlc: Tlc, fetched: MonthFile, data: Path
) -> None:
    tomorrow = time.time() + 86_400
    os.utime(data / f"{FILE}.json", (tomorrow, tomorrow))
    assert locate(data) == fetched
    assert tlc.requests == [FILE]


def test_month_that_was_published_anew_in_parts(
    tlc: Tlc, fetched: MonthFile, data: Path, tmp_path: Path
) -> None:
    tlc.files[FILE] = write_month(tmp_path / "anew.parquet", minutes=20).read_bytes()
    tlc.answers = [send_part(1000)]
    kept = locate(data)
    assert kept.sha256 == fetched.sha256 == hash_file(data / FILE)
    (notice,) = kept.notices
    assert notice.startswith(f"{tlc.url}/{FILE} did not answer (RemoteProtocolError: ")
    assert notice.endswith(f" The {FILE} that is here, verified by its sha256, is used instead.")
    new = locate(data)
    assert new.sha256 == hash_file(data / FILE) != fetched.sha256
    assert new.notices == (
        f"{FILE} was published anew: sha256 {fetched.sha256} of 12 rows gave way to {new.sha256} "
        "of 12.",
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (send_unannounced(PAGE), "sent no month of green trips: {file} is not a parquet file"),
        (answer_status(503), "answered 503 Service Unavailable: the server is busy or failing"),
        (answer_status(403), "answered 403 Forbidden: access to 2023-01, which should long be p"),
        (answer_status(404), "answered 404 Not Found: there is no such file"),
        (answer_status(302, Location="https://elsewhere.example"), "redirects to https://elsewh"),
        (promise(10**15), "is larger than the 4,000,000,000 bytes allowed"),
        (send_encoded, "sent a body encoded as gzip"),
    ],
    ids=["broken", "down", "forbidden", "gone", "redirected", "oversize", "encoded"],
)
def test_verified_month_is_used_when_the_source_fails(
    answer: Answer, why: str, tlc: Tlc, fetched: MonthFile, data: Path
) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    tlc.always = answer
    file = locate(data)
    assert (file.path, file.sha256) == (fetched.path, fetched.sha256)
    (notice,) = file.notices
    assert notice.startswith(f"{tlc.url}/{FILE} {why.format(file=FILE)}")
    assert notice.endswith(f" The {FILE} that is here, verified by its sha256, is used instead.")
    assert tlc.requests == [FILE]
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_altered_month_when_the_source_fails(tlc: Tlc, fetched: MonthFile, data: Path) -> None:
    found = flip_bit(data / FILE)
    tlc.always = answer_status(503, Retry_After="4")
    with pytest.raises(TransientSourceError) as caught:
        locate(data)
    assert str(caught.value) == (
        f"{say_changed(tlc, data, found, fetched.sha256)} {tlc.url}/{FILE} answered 503 Service "
        "Unavailable: the server is busy or failing: try again later."
    )
    assert caught.value.wait_seconds == 4
    assert hash_file(data / FILE) == found
    assert list_names(data) == [FILE, SIDECAR]


def test_disk_that_is_full_at_the_last_moment(
    tlc: Tlc,
    fetched: MonthFile,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tlc.files[FILE] = write_month(tmp_path / "anew.parquet", minutes=20).read_bytes()
    before = {path.name: path.read_bytes() for path in data.iterdir()}

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "flush_to_disk", fail)
    message = (
        rf"writing {data / FILE} failed \(No space left on device\): free space on its disk, "
        "give yourself permission, or name another directory. Nothing was left half-written"
    )
    with pytest.raises(StorageError, match=message):
        locate(data)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_lock_that_is_held_for_ever(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LOCK_MARGIN_SECONDS", 0)
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_DEADLINE_SECONDS", "0.1")
    data.mkdir()
    message = f"{FILE} has been locked for 0 s by another process, which is fetching it: see"
    with filelock.FileLock(data / f".{FILE}.lock"):
        refuse(data, TransientSourceError, message)
    assert tlc.requests == []
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_DEADLINE_SECONDS", "30")
    fetched = locate(data)
    assert fetched.path.read_bytes() == month
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_DEADLINE_SECONDS", "0.1")
    with filelock.FileLock(data / f".{FILE}.lock"):
        file = locate(data)
    assert file.sha256 == fetched.sha256
    (notice,) = file.notices
    assert notice.startswith(message)
    assert notice.endswith("verified by its sha256, is used instead.")
