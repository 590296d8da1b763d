import itertools
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.data.month import Month, newest_published
from taxi_duration.errors import InputError

months = st.builds(Month, st.integers(2020, 2100), st.integers(1, 12))


@pytest.mark.parametrize(
    ("year", "month", "message"),
    [
        (2023, 0, "month 0 is not a month: give a number from 1 to 12."),
        (2023, 13, "month 13 is not a month"),
        (21, 1, "year 21 has no trip records: they begin in 2009: did you mean 2021?"),
        (2008, 12, "year 2008 has no trip records: they begin in 2009: give a later one."),
        (2023, True, "month True is not a whole number"),
        (2023.0, 1, "year 2023.0 is not a whole number"),
    ],
)
def test_what_is_no_month_is_refused(year: int, month: int, message: str) -> None:
    with pytest.raises(InputError) as raised:
        Month(year, month)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "text", ["2023-1", "2023-001", "23-01", "2023/01", " 2023-01", "2023-1_", ""]
)
def test_only_four_and_two_digits_parse(text: str) -> None:
    with pytest.raises(InputError, match=r"is not of the form YYYY-MM: give one such as 2023-01"):
        Month.parse(text)


@given(months)
def test_text_round_trips(month: Month) -> None:
    assert Month.parse(str(month)) == month


@given(months, st.integers(-120, 120))
def test_shift_and_since_are_inverse(month: Month, months_later: int) -> None:
    shifted = month.shift(months_later)
    assert shifted.since(month) == months_later
    assert shifted.shift(-months_later) == month


@given(months, st.integers(1, 60))
def test_a_window_is_consecutive_and_ends_with_the_month(month: Month, length: int) -> None:
    window = month.window(length)
    assert window[-1] == month
    assert [later.since(earlier) for earlier, later in itertools.pairwise(window)] == [1] * (
        length - 1
    )


def test_a_month_is_expected_two_full_months_after_it_ended() -> None:
    assert Month(2023, 1).published_by == date(2023, 4, 1)
    assert Month(2022, 11).published_by == date(2023, 2, 1)


@given(st.dates(date(2012, 1, 1), date(2090, 12, 31)))
def test_the_newest_published_month_is_the_last_one_due(today: date) -> None:
    newest = newest_published(today)
    assert newest.published_by <= today < newest.next.published_by


def test_file_names_are_the_tlcs() -> None:
    assert Month(2023, 1).file_name("green") == "green_tripdata_2023-01.parquet"
