"""Where the months come from, how much of them a run uses, and how often it measures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.measure import ROOT, SAMPLE, note

FIRST_YEAR = 2023
GENERATORS = (Path(__file__).with_name("months.py"), ROOT / "data" / "make_sample.py")
REAL_NAME = "green_tripdata_{}.parquet"
SAMPLE_NAME = "synthetic_green_tripdata_{}.parquet"
REAL_MONTHS = ("2021-01", "2021-02", *(f"2023-0{month}" for month in range(1, 7)))


@dataclass(frozen=True)
class Plan:
    """How much a run measures, and how often."""

    rounds: int = 3
    yellow_rows: tuple[int, int] = (3_400_000, 3_200_000)
    growth_rows: tuple[int, ...] = (400_000, 800_000, 1_700_000, 3_400_000, 6_800_000, 13_000_000)
    most_rows_course: int = 3_400_000
    """The course's way takes about a gigabyte for a million rows."""
    window_months: tuple[int, ...] = (1, 3, 6, 12, 24)
    window_rows: int = 3_400_000
    overhead_rounds: int = 5
    cost_rounds: int = 5
    largest_rows: int = 17_000_000
    scored_rows: int = 13_000_000
    cost_window: int = 12
    """Months whose sums are added up and solved."""


SMOKE = Plan(
    rounds=1,
    yellow_rows=(6000, 5000),
    growth_rows=(3000,),
    most_rows_course=3000,
    window_months=(1, 2),
    window_rows=4000,
    overhead_rounds=1,
    cost_rounds=1,
    largest_rows=7000,
    scored_rows=7000,
    cost_window=2,
)


@dataclass(frozen=True)
class Data:
    """The months at hand.

    Args:
        directory: where generated months are kept, and found again.
        real: the directory of real green months; None for the bundled synthetic sample.
    """

    directory: Path
    real: Path | None

    @property
    def green_title(self) -> str:
        return "Real green months" if self.real else "The synthetic sample"

    @property
    def green_pair(self) -> tuple[Path, Path]:
        """The training and validation month whose figure this task is known by."""
        first, second = ("2021-01", "2021-02") if self.real else ("2025-01", "2025-02")
        return self.find_green(first), self.find_green(second)

    @property
    def steps(self) -> list[tuple[str, ...]]:
        """Months that follow one another: the last validates the window of those before it."""
        if self.real is None:
            return [("2025-01", "2025-02")]
        return [("2021-01", "2021-02"), REAL_MONTHS[2:]]

    def find_green(self, month: str) -> Path:
        """The file of a green month, "2023-01"."""
        if self.real:
            return self.real / REAL_NAME.format(month)
        return SAMPLE / SAMPLE_NAME.format(month)

    def make_yellow(self, wanted: Sequence[tuple[str, int]]) -> list[Path]:
        """Generated yellow months of so many rows, made two at a time unless they are there."""
        # Months of another generator are other months, whatever their names.
        sources = b"".join(source.read_bytes() for source in GENERATORS)
        generator = hashlib.sha256(sources).hexdigest()[:8]
        paths = [
            self.directory / f"{generator}-{rows}" / f"synthetic_yellow_tripdata_{month}.parquet"
            for month, rows in wanted
        ]
        absent = [(p, *each) for p, each in zip(paths, wanted, strict=True) if not p.is_file()]
        if absent:
            note(f"generating {sum(rows for *_, rows in absent):,} rows in {len(absent)} months")
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
                for made in [processes.submit(write_month, *each) for each in absent]:
                    made.result()
        return paths


def write_month(path: Path, month: str, rows: int) -> None:
    """Make one month, importing what that takes in the process that does it."""
    from benchmarks import months

    months.write_month(path, month, rows)


def list_months(number: int) -> list[str]:
    """So many consecutive months: "2023-01", "2023-02" and on."""
    return [f"{FIRST_YEAR + index // 12}-{index % 12 + 1:02}" for index in range(number)]


def find_absent(real: Path) -> list[str]:
    """Which of the real months are not in a directory."""
    return [name for name in map(REAL_NAME.format, REAL_MONTHS) if not (real / name).is_file()]
