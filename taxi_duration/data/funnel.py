"""What became of a month's rows, rule by rule, and how much of that is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from taxi_duration.errors import DataError
from taxi_duration.settings import Thresholds, name_variable

OUTSIDE_MONTH = "picked up outside the month"
ENDS_TOO_SOON = "drop-off not after pick-up"
OUTSIDE_HOUR = "not within 1 to 60 minutes"
ZONE_MISSING = "zone missing"
NO_SUCH_ZONE = "zone not 1 to 265"

LIMITS = {
    OUTSIDE_MONTH: "most_outside_month",
    ENDS_TOO_SOON: "most_negative_durations",
    OUTSIDE_HOUR: "fewest_within_hour",
    ZONE_MISSING: "most_null_zones",
    NO_SUCH_ZONE: "most_zones_out_of_range",
}
"""Rule of the data contract -> the threshold that says how many rows may break it."""


def find_limit(rule: str, thresholds: Thresholds) -> float:
    """The share of a month's rows that may break a rule.

    >>> find_limit("not within 1 to 60 minutes", Thresholds())
    0.15
    """
    share: float = getattr(thresholds, LIMITS[rule])
    # Rounded, or 1 - 0.9 would be less than 10 of 100 rows.
    return round(1 - share, 12) if LIMITS[rule].startswith("fewest") else share


@dataclass(frozen=True)
class RowFunnel:
    """What became of a month's rows: read, dropped by each rule in order, kept.

    `noted` counts kept rows with a known defect; they are kept because the figures this task
    is known by keep them. `broken` counts all rows that break a rule of the data contract, each
    rule by itself, so a row may count under several.
    """

    rows_read: int
    dropped: dict[str, int]
    rows_kept: int
    noted: dict[str, int]
    broken: dict[str, int]

    def __add__(self, other: RowFunnel) -> RowFunnel:
        return RowFunnel(
            self.rows_read + other.rows_read,
            _add(self.dropped, other.dropped),
            self.rows_kept + other.rows_kept,
            _add(self.noted, other.noted),
            _add(self.broken, other.broken),
        )

    def __str__(self) -> str:
        counts = {**self.dropped, **{f"{defect} (kept)": n for defect, n in self.noted.items()}}
        return f"kept {self.rows_kept:,} of {self.rows_read:,} trips; " + ", ".join(
            f"{count:,} {name}" for name, count in counts.items()
        )

    def check(self, thresholds: Thresholds | None = None) -> None:
        """Refuse a month of which nothing is left, or too much breaks the data contract.

        Args:
            thresholds: the contract's; None refuses only a month of which nothing is left.

        Raises:
            DataError: the message counts what was dropped, and why; or names every rule that
                too many rows break.
        """
        if not self.rows_kept:
            reasons = ", ".join(f"{n:,} {rule}" for rule, n in self.dropped.items() if n)
            raise DataError(
                f"no trip is left of {self.rows_read:,}: {reasons or 'the file has no rows'}. "
                "Choose another month, or fetch it again."
            )
        if thresholds is None:
            return
        too_many = []
        for rule, count in self.broken.items():
            share, limit = count / self.rows_read, find_limit(rule, thresholds)
            variable = name_variable(Thresholds, LIMITS[rule])
            if share > limit:
                too_many.append(
                    f"{rule}: {count:,} of {self.rows_read:,} rows ({share:.2%}, where {variable} "
                    f"allows {100 * limit:.4g}%)"
                )
        if too_many:
            raise DataError(
                f"the data contract is broken, {'; '.join(too_many)}. Is it another file? Choose "
                "another month, or fetch it again; if trips were like this, change the limit."
            )


def _add(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    return {name: count + theirs[name] for name, count in ours.items()}


def check_row_count(rows: int, earlier_rows: Sequence[int], thresholds: Thresholds) -> None:
    """Refuse a month with far fewer or more rows than the earlier months that are known.

    Raises:
        DataError: its rows are too few or too many beside the median of theirs.
    """
    if not earlier_rows:
        return
    usual = median(earlier_rows)
    for field, is_broken, limit, word in (
        ("fewest_rows", rows < thresholds.fewest_rows * usual, thresholds.fewest_rows, "under"),
        ("most_rows", rows > thresholds.most_rows * usual, thresholds.most_rows, "over"),
    ):
        if is_broken:
            raise DataError(
                f"{rows:,} rows are {word} {limit:g} times {usual:,.0f}, the median of the "
                f"{len(earlier_rows)} earlier months that are here. Is it another file, or a part "
                "of one? Fetch it again; if there were so many trips, change "
                f"{name_variable(Thresholds, field)}."
            )
