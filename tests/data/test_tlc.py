import json
from datetime import date
from pathlib import Path

import pytest

from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.tlc import check_months, locate_month
from taxi_duration.errors import DataError, InputError, SourceError
from taxi_duration.files import hash_file
from taxi_duration.flows.tasks import RETRIES, download_month
from tests.support.downloads import FILE, GREEN, JANUARY, list_names, locate
from tests.support.months import identify, write_month
from tests.support.web import Tlc, answer_status, make_etag


def test_month_arrives_whole_with_a_sidecar(tlc: Tlc, month: bytes, data: Path) -> None:
    file = locate(data)
    assert file == MonthFile(JANUARY, data / FILE, hash_file(data / FILE))
    assert (data / FILE).read_bytes() == month
    assert list_names(data) == [FILE, f"{FILE}.json"]
    assert json.loads((data / f"{FILE}.json").read_text("utf-8")) == {
        "source": f"{tlc.url}/{FILE}",
        "etag": make_etag(month),
        "last_modified": "Mon, 20 Mar 2023 12:00:00 GMT",
        "size": len(month),
        "sha256": file.sha256,
        "rows": 12,
        "previous_sha256": "",
        "previous_rows": 0,
    }


def test_bytes_are_asked_for_as_they_are(tlc: Tlc, month: bytes, data: Path) -> None:
    locate(data)
    assert tlc.headers[0]["accept-encoding"] == "identity"
    assert "if-none-match" not in tlc.headers[0]


def test_month_that_is_here_is_not_sent_again(tlc: Tlc, month: bytes, data: Path) -> None:
    first = locate(data)
    before = identify(first.path)
    assert locate(data) == first
    assert tlc.requests == [FILE] * 2
    assert tlc.headers[1]["if-none-match"] == make_etag(month)
    assert identify(first.path) == before


def test_month_that_was_published_anew_replaces_the_old(
    tlc: Tlc, month: bytes, data: Path, tmp_path: Path
) -> None:
    old = locate(data)
    tlc.files[FILE] = write_month(tmp_path / "anew.parquet", minutes=20).read_bytes()
    new = locate(data)
    assert new.path.read_bytes() == tlc.files[FILE]
    assert new.notices == (
        f"{FILE} was published anew: sha256 {old.sha256} of 12 rows gave way "
        f"to {new.sha256} of 12.",
    )
    assert locate(data).notices == ()


def test_fresh_month_is_sent_again_and_asked_after_later(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    first = locate(data)
    fresh = locate_month(GREEN, JANUARY, data, False, fresh=True)
    assert (first.was_there, fresh.was_there) == (False, False)
    assert (fresh.sha256, fresh.notices) == (first.sha256, ())
    assert locate(data).was_there
    asked = [headers.get("if-none-match") for headers in tlc.headers]
    assert asked == [None, None, make_etag(month)]


def test_fresh_month_that_cannot_be_had_is_an_error_and_the_old_one_stays(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    first = locate(data)
    before = identify(first.path)
    tlc.always = answer_status(404)
    with pytest.raises(SourceError, match=f"{FILE} .*404"):
        locate_month(GREEN, JANUARY, data, False, fresh=True)
    assert identify(first.path) == before
    assert locate_month(GREEN, JANUARY, data, True, fresh=True).path == first.path
    (notice,) = locate(data).notices
    assert notice.endswith(f"The {FILE} that is here, verified by its sha256, is used instead.")


def test_a_users_own_file_is_taken_though_all_is_to_be_fresh(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    before = identify(write_month(data / FILE, minutes=20))
    assert locate_month(GREEN, JANUARY, data, False, fresh=True).was_there
    assert (identify(data / FILE), tlc.requests) == (before, [])


def test_a_users_own_file_is_taken_as_it_is(tlc: Tlc, month: bytes, data: Path) -> None:
    write_month(data / FILE, minutes=20)
    file = locate(data)
    assert file.sha256 == hash_file(data / FILE)
    assert file.notices == (
        f"{FILE} has no sidecar: it is used as the file of your own that it seems to be.",
    )
    assert list_names(data) == [FILE]
    assert tlc.requests == []


def test_offline_asks_nobody(tlc: Tlc, month: bytes, data: Path) -> None:
    with pytest.raises(
        DataError, match=rf"{FILE} is missing and offline is set: download {tlc.url}/{FILE}"
    ):
        locate(data, offline=True)
    fetched = locate(data)
    assert locate(data, offline=True) == fetched
    assert tlc.requests == [FILE]


def test_redirect_on_the_same_host_is_followed(tlc: Tlc, month: bytes, data: Path) -> None:
    tlc.files["moved.parquet"] = month
    tlc.answers = [answer_status(302, Location="/trip-data/moved.parquet")]
    assert locate(data).path.read_bytes() == month
    assert tlc.requests == [FILE, "moved.parquet"]


def test_bytes_are_reported_as_they_arrive(tlc: Tlc, month: bytes, data: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    locate_month(GREEN, JANUARY, data, False, lambda *report: reports.append(report))
    assert reports[-1] == (len(month), len(month))
    assert reports == sorted(reports)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TLC_URL", "not an address", r"TLC_URL is 'not an address': it is no https address: c"),
        ("TLC_URL", "http://127.0.0.1/x", r"is 'http://127.0.0.1/x': it is no https address"),
        ("TLC_URL", "ftp://u:SECRET@127.0.0.1", r"is 'ftp://127.0.0.1': it is no https address"),
        ("TLC_URL", "https://[::1", "TLC_URL is 'https://.*Invalid IPv6 URL: correct or unset it"),
        ("TLC_URL", "https://elsewhere/x", r"its host is not among the allowed ones \(127.0.0.1\)"),
        (
            "TLC_HOSTS",
            "",
            r"its host is not among the allowed ones \(none\), which TAXI_DURATION_T",
        ),
        ("TRANSFER_READ_SECONDS", "0", "TRANSFER_READ_SECONDS is '0': Input should be greater tha"),
        ("TRANSFER_MOST_BYTES", "1e", "TRANSFER_MOST_BYTES is '1e': Input should be a valid inte"),
    ],
)
def test_setting_that_is_wrong_fails_before_any_work(
    variable: str,
    value: str,
    message: str,
    tlc: Tlc,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"TAXI_DURATION_{variable}", value)
    for act in (
        lambda: check_months(GREEN, [JANUARY], data, False, date(2024, 1, 1)),
        lambda: locate(data),
    ):
        with pytest.raises(InputError, match=message) as caught:
            act()
        assert "SECRET" not in str(caught.value)
    assert tlc.requests == []
    assert not data.exists()


def test_file_that_was_fetched_is_not_held_against_a_run_before_it_is_fetched_again(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    fetched = locate(data).path
    fetched.write_bytes(b"damaged")
    check_months(GREEN, [JANUARY], data, False, date(2024, 1, 1))
    (data / f"{FILE}.json").unlink()
    with pytest.raises(DataError, match="is not a parquet file"):
        check_months(GREEN, [JANUARY], data, False, date(2024, 1, 1))


def test_tries_are_spaced_exponentially_with_jitter() -> None:
    assert download_month.retry_delay_seconds == [2, 4, 8, 16]
    assert download_month.retry_jitter_factor == 1
    assert download_month.retry_condition_fn is RETRIES["retry_condition_fn"]
