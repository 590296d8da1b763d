"""docs/scaling.md plans with the figures that were measured."""

import re
from pathlib import Path

from benchmarks.__main__ import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


def list_figures(text: str) -> list[str]:
    """The rows of tables in which a cell is a figure with decimals."""
    return re.findall(r"^\|.*\| \d+\.\d+ \|.*$", text, re.MULTILINE)


def test_the_page_holds_the_measured_figures() -> None:
    measured = list_figures((RESULTS / "month_cost.md").read_text("utf-8"))
    shown = list_figures(PAGE.read_text("utf-8"))
    assert len(shown) > 12
    assert shown == measured
