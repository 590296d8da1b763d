import re
import struct
from typing import Any

import pytest

from taxi_duration.evaluation.report import Report
from taxi_duration.reports.plots import PLOTS, draw_png, draw_svg, plot_rmse_by_month
from tests.support.reports import DEGENERATE, MANY_MONTHS, make_judged_report
from tests.support.trained import alter

PNG = b"\x89PNG\r\n\x1a\n"
MONTHS = [f"{year}-{month:02}" for year in range(2020, 2024) for month in range(1, 13)]


def plot(number: int, champion_from: int | None = None) -> bytes:
    """Plot series at figures of their own; a champion in the later months."""
    series: dict[str, list[float | None]] = {
        "model": [4.0 + place / 100 for place in range(number)],
        "zone_pair_median": [6.6] * number,
    }
    if champion_from is not None:
        series["champion"] = [None if place < champion_from else 5.5 for place in range(number)]
    return plot_rmse_by_month(MONTHS[:number], series)


@pytest.mark.parametrize("number", [1, 40])
def test_a_plot_by_month_has_the_same_size_and_bytes_every_time(number: int) -> None:
    picture = plot(number, champion_from=number // 2)
    assert picture.startswith(PNG)
    assert struct.unpack(">II", picture[16:24]) == (880, 440)
    assert plot(number, champion_from=number // 2) == picture


def test_plots_of_other_figures_differ() -> None:
    assert len({plot(3), plot(4), plot(3, champion_from=1)}) == 3


@pytest.fixture(scope="module")
def report() -> Report:
    return make_judged_report()


def test_plots_are_drawn_in_the_pages_colours(report: Report) -> None:
    drawn = {name: draw_svg(report, name) for name in PLOTS}
    assert not re.findall(r"#[0-9a-f]{6}\b", "".join(drawn.values()))
    assert {*re.findall(r"var\((--\w+)\)", drawn["residuals"])} == {"--ink", "--faint", "--first"}


@pytest.mark.parametrize("parts", DEGENERATE.values(), ids=DEGENERATE)
def test_whatever_there_is_to_plot_is_plotted(report: Report, parts: dict[str, Any]) -> None:
    assert draw_png(alter(report, **parts), [*PLOTS]).startswith(PNG)


def test_every_month_label_is_at_its_own_point(report: Report) -> None:
    drawn = draw_svg(alter(report, past=MANY_MONTHS), "past")
    labels = re.findall(r">(\d{4}-\d\d)</text>", drawn)
    assert {*labels} <= {"2025-02", *(each["month"] for each in MANY_MONTHS)}
    assert "2025-02" in labels
    assert 4 <= len({*labels}) == len(labels) <= 6
