"""docs/scaling.md plans with the figures that were measured, and they bear out what it says."""

import re
from pathlib import Path

from benchmarks.__main__ import RESULTS
from benchmarks.month_cost import BEGIN, END, PAGE

MEASURED = (RESULTS / "month_cost.md").read_text("utf-8")
TEXT = Path(__file__).parents[1].joinpath(PAGE).read_text("utf-8")


def test_the_page_holds_the_measured_figures() -> None:
    shown = TEXT.split(BEGIN)[1].split(END)[0].strip()
    assert len(shown) > 1000
    assert shown in MEASURED


def test_what_the_page_says_follows_from_them() -> None:
    peaks = [int(peak) for peak in re.findall(r"\| [\d.]+ \| [\d.]+ \| (\d+) \|$", MEASURED, re.M)]
    assert len(peaks) == 12
    assert max(peaks) < 2048
    plan = [row.split(" | ") for row in MEASURED.splitlines() if " since " in row]
    assert len(plan) == 4
    for *_, download, on_workers, _in_the_run, _dollars in plan[1:]:
        assert float(on_workers) / 2 < float(download)  # on a laptop of two cores
    sizes = re.findall(r"File: ([\d.]+) MB\. Sums in `models/sums`: ([\d.]+) MB\.", MEASURED)
    (usual, usual_sums), (large, large_sums), (green, green_sums) = (
        (float(file), float(sums)) for file, sums in sizes
    )
    assert green < green_sums
    assert usual_sums < usual < 2 * usual_sums
    assert 3 * large_sums < large
