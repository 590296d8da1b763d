"""Plots: RMSE by month, as a picture and as text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from taxi_duration.evaluation.walk_forward import SERIES, Step, list_series

COLOURS = {"model": "C0", "zone_pair_median": "C1", "mean": "C7", "champion": "C2"}
MARKS = {"model": "M", "zone_pair_median": "z", "mean": "-", "champion": "C"}
"""One character each, to be told apart in black and white."""

TEXT_SIZE = (76, 18)
"""Columns and lines, for a terminal of 80."""


def plot_rmse_by_month(steps: Sequence[Step]) -> bytes:
    """A PNG of the RMSE (minutes) of each predictor by validation month."""
    # Here, and not pyplot, which keeps figures and picks a screen: runs have neither.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    months = [step.validation for step in steps]
    for name, values in list_series(steps).items():
        figures = [float("nan") if value is None else value for value in values]
        axes.plot(months, figures, "o-", color=COLOURS[name], label=SERIES[name])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("RMSE, minutes")
    axes.set_xlabel("validation month")
    axes.set_xticks(_spread(len(steps), most=10))
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    picture = io.BytesIO()
    # Without metadata, the same steps give the same bytes.
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def draw_rmse_by_month(steps: Sequence[Step]) -> str:
    """The same as lines of text, without colours; the model's mark covers others."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(width=False, height=False)  # else to the terminal's
    plotext.plotsize(*TEXT_SIZE)
    series = list_series(steps)
    for name, values in reversed(series.items()):
        points = [(place, value) for place, value in enumerate(values) if value is not None]
        places, figures = zip(*points, strict=True)
        plotext.scatter(places, figures, marker=MARKS[name])
    shown = _spread(len(steps), most=7)
    plotext.xticks(shown, [steps[place].validation for place in shown])
    plotext.title("RMSE in minutes, by validation month")
    text: str = plotext.uncolorize(plotext.build())
    # Of its own, since plotext would lay it over the points.
    legend = "   ".join(f"{MARKS[name]} {SERIES[name]}" for name in series)
    return "\n".join([*(line.rstrip() for line in text.splitlines()), f"      {legend}"])


def _spread(number: int, most: int) -> list[int]:
    """Places of a row of so many, evenly spread from the first, and no more than `most`."""
    return [*range(0, number, -(-number // most))]
