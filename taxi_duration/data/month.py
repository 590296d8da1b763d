"""A calendar month of trips: the unit the TLC publishes and the pipeline trains on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from taxi_duration.errors import InputError

FIRST_YEAR = 2009
"""Trip records begin in January 2009 (TLC Trip Record Data page)."""

PUBLICATION_LAG_MONTHS = 2
"""The TLC publishes "with a two-month delay" (TLC Trip Record Data page)."""


@dataclass(frozen=True, order=True)
class Month:
    """A year and a month, 1 to 12, ordered by time.

    Raises:
        InputError: a part is no whole number, the year precedes 2009, or the month is not 1..12.

    >>> Month(2023, 12).shift(1)
    Month(year=2024, month=1)
    >>> str(Month.parse("2023-01"))
    '2023-01'
    """

    year: int
    month: int

    def __post_init__(self) -> None:
        for name, value in (("year", self.year), ("month", self.month)):
            if type(value) is not int:
                raise InputError(f"{name} {value!r} is not a whole number", "give one")
        if not FIRST_YEAR <= self.year <= 9999:
            is_short = 9 <= self.year <= 99
            raise InputError(
                f"year {self.year} has no trip records: they begin in {FIRST_YEAR}",
                f"did you mean {2000 + self.year}?" if is_short else "give a later one",
            )
        if not 1 <= self.month <= 12:
            raise InputError(f"month {self.month} is not a month", "give a number from 1 to 12")

    def __str__(self) -> str:
        return f"{self.year}-{self.month:02d}"

    @classmethod
    def parse(cls, text: str) -> Month:
        """Return the month of a text `YYYY-MM`.

        Raises:
            InputError: the text is shorter, longer or of another form.
        """
        match = re.fullmatch(r"([0-9]{4})-([0-9]{2})", text)
        if match is None:
            raise InputError(
                f"month {text!r} is not of the form YYYY-MM", "give one such as 2023-01"
            )
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, day: date) -> Month:
        """Return the month that `day` lies in."""
        return cls(day.year, day.month)

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    @property
    def next(self) -> Month:
        return self.shift(1)

    @property
    def published_by(self) -> date:
        """The day from which the file can be expected: two full months after the month ended."""
        return self.shift(1 + PUBLICATION_LAG_MONTHS).first_day

    def shift(self, months: int) -> Month:
        """Return the month that is `months` later (earlier when negative)."""
        years, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(years, month + 1)

    def since(self, earlier: Month) -> int:
        """Return how many months after `earlier` this one is."""
        return (self.year - earlier.year) * 12 + self.month - earlier.month

    def window(self, length: int) -> tuple[Month, ...]:
        """Return the `length` months that end with this one, oldest first.

        >>> [str(month) for month in Month(2023, 1).window(2)]
        ['2022-12', '2023-01']
        """
        return tuple(self.shift(offset) for offset in range(1 - length, 1))

    def file_name(self, cab: str) -> str:
        """Return the TLC's name of the month's file: `green_tripdata_2023-01.parquet`."""
        return f"{cab}_tripdata_{self}.parquet"


def newest_published(today: date) -> Month:
    """Return the latest month whose file can be expected to be out on `today`.

    >>> str(newest_published(date(2023, 6, 1))), str(newest_published(date(2023, 5, 31)))
    ('2023-03', '2023-02')
    """
    return Month.of(today).shift(-1 - PUBLICATION_LAG_MONTHS)
