import re
import struct

import pytest
from taxi_duration.reports.markdown import embed_png

from taxi_duration.data.month import Month
from taxi_duration.flows.walk_forward import Step
from taxi_duration.reports.plots import TEXT_SIZE, draw_rmse_by_month, plot_rmse_by_month
from tests.flows.test_walk_forward import make_step


def make_steps(number: int, champion_from: int | None = None) -> list[Step]:
    """Steps from 2020-02 on, each series at figures of its own; a champion in the later ones."""
    months = Month(2020, 1).shift(number).window(number)
    return [
        make_step(
            str(month),
            model=4.0 + place / 100,
            champion=None if champion_from is None or place < champion_from else 5.5,
        )
        for place, month in enumerate(months)
    ]


@pytest.mark.parametrize("number", [1, 2, 40])
def test_picture_is_a_png_of_the_same_size_and_bytes_every_time(number: int) -> None:
    picture = plot_rmse_by_month(make_steps(number, champion_from=number // 2))
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (880, 440)
    assert plot_rmse_by_month(make_steps(number, champion_from=number // 2)) == picture


def test_pictures_of_other_figures_differ() -> None:
    few = plot_rmse_by_month(make_steps(3))
    assert few != plot_rmse_by_month(make_steps(4))
    assert few != plot_rmse_by_month(make_steps(3, champion_from=1))


def test_markdown_holds_the_picture_itself() -> None:
    assert embed_png(b"\x00\xff", "RMSE") == "![RMSE](data:image/png;base64,AP8=)"


@pytest.mark.parametrize("number", [1, 2, 7])
def test_text_has_every_month_and_every_mark(number: int) -> None:
    drawn = draw_rmse_by_month(make_steps(number, champion_from=number - 1))
    plot, legend = drawn.rsplit("\n", 1)
    inside = "".join(re.findall("[│┤](.*)│", plot))
    assert {mark: inside.count(mark) for mark in "Mz-C"} == {
        "M": number, "z": number, "-": number, "C": 1,
    }  # fmt: skip
    assert all(step.validation in plot for step in make_steps(number))
    assert legend.strip() == "M model   z zone-pair median   - training mean   C champion"


def test_text_fits_a_terminal_however_many_the_months() -> None:
    for number in (1, 12, 40, 239):
        drawn = draw_rmse_by_month(make_steps(number))
        assert max(map(len, drawn.splitlines())) <= TEXT_SIZE[0]
        assert len(drawn.splitlines()) == TEXT_SIZE[1] + 1
        assert not [line for line in drawn.splitlines() if line != line.rstrip()]
        assert "\x1b" not in drawn


def test_months_shown_do_not_run_into_each_other() -> None:
    *_, months, _ = draw_rmse_by_month(make_steps(40)).splitlines()
    shown = months.split()
    assert shown[0] == "2020-02"
    assert 4 <= len(shown) <= 7
    assert all(len(month) == len("2020-02") for month in shown)


def test_the_models_mark_covers_a_champions_of_the_same_figure() -> None:
    drawn = draw_rmse_by_month([make_step("2023-02", champion=4.52288)])
    plot, _ = drawn.rsplit("\n", 1)
    assert ("M" in plot, "C" in plot) == (True, False)
