"""Plots: of a run as SVG in the page's own colours or as one PNG, and of a backfill by month.

Equal figures give equal bytes. Nothing here uses pyplot, which keeps figures and picks a screen.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from taxi_duration.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.4, 4.2)
"""Inches of a plot; its text has 10 points."""

DOTS_AN_INCH = 90

FAINTEST, FULLEST = 0.12, 0.95
"""Opacity of a square with a single trip, and of the one with the most."""


MOST_LABELS = 6
"""Months that have room below a plot."""

FEWEST_IN_BAND = 20
"""Trips without which a band of predicted minutes has no quantiles to speak of."""


@dataclass(frozen=True)
class Colours:
    """What a plot is drawn in."""

    ink: str
    faint: str
    first: str
    second: str
    heat: str


ON_WHITE = Colours("#1c2430", "#8a93a1", "#1f66c1", "#b45309", heat="#1f66c1")

NAMES = {"ink": "--ink", "faint": "--faint", "first": "--first", "second": "--second"}
"""The CSS variables that a page sets."""

STAND_INS = Colours("#010203", "#010204", "#010205", "#010206", heat="#3b82e0")
"""Replaced by the variables; a picture inside has no variables, and its hue is for both pages."""

LOCK = Lock()
"""Held while drawing: matplotlib's settings are the whole process's."""


def draw_svg(report: Report, name: str) -> str:
    """Draw one of `PLOTS` as an SVG element, in colours that are the page's CSS variables."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = io.StringIO()
    settings = _make_settings(STAND_INS) | {"svg.fonttype": "none", "svg.hashsalt": name}
    with LOCK, rc_context(settings):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.125, 0.125, 0.855, 0.855))
        PLOTS[name](axes, report, STAND_INS)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return _adopt(drawn.getvalue(), name)


def _adopt(svg: str, name: str) -> str:
    """Make a file's SVG one element of a page among others."""
    element = svg[svg.index("<svg") :]
    _, _, content = element.partition(">")
    content = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", content, flags=re.DOTALL)
    used = {*re.findall(r'(?:href="|url\()#([^")]+)', content)}
    content = re.sub(
        r' id="([^"]+)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "",
        content,
    )
    content = re.sub(r'(href="|url\()#', rf"\1#{name}-", content)
    for field, variable in NAMES.items():
        content = content.replace(getattr(STAND_INS, field), f"var({variable})")
    width, height = (f"{72 * inches:g}" for inches in SIZE)
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{content.rstrip()}'


def draw_png(report: Report, names: Sequence[str]) -> bytes:
    """Draw several of `PLOTS` as one PNG, two in a row, each with its title above it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = -(-len(names) // 2)
    drawn = io.BytesIO()
    with LOCK, rc_context(_make_settings(ON_WHITE)):
        figure = Figure(figsize=(2 * SIZE[0], rows * SIZE[1]), dpi=DOTS_AN_INCH, facecolor="white")
        for place, name in enumerate(names):
            row, column = divmod(place, 2)
            axes = figure.add_axes(
                (
                    (column + 0.115) / 2,
                    (rows - row - 1 + 0.13) / rows,
                    0.855 / 2,
                    0.79 / rows,
                )
            )
            axes.set_title(TITLES[name], loc="left")
            PLOTS[name](axes, report, ON_WHITE)
        figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def _make_settings(colours: Colours) -> dict[Any, Any]:
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": colours.faint,
        "axes.labelcolor": colours.ink,
        "axes.titlecolor": colours.ink,
        "text.color": colours.ink,
        "xtick.color": colours.faint,
        "ytick.color": colours.faint,
        "xtick.labelcolor": colours.ink,
        "ytick.labelcolor": colours.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": colours.faint,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.labelcolor": colours.ink,
        "lines.linewidth": 1.8,
    }


def _plot_density(axes: Axes, report: Report, colours: Colours) -> None:
    from matplotlib.colors import to_rgb

    counts = np.array(report.density.counts)
    most = report.density.step_minutes * len(counts)
    shares = np.log(np.maximum(counts, 1)) / np.log(max(counts.max(), 2))
    picture = np.empty((*counts.shape, 4))
    picture[..., :3] = to_rgb(colours.heat)
    picture[..., 3] = np.where(counts, FAINTEST + (FULLEST - FAINTEST) * shares, 0)
    axes.imshow(
        picture, origin="lower", extent=(0, most, 0, most), interpolation="none", aspect="auto"
    )
    axes.plot([0, most], [0, most], color=colours.ink, linewidth=0.9, linestyle=(0, (5, 3)))
    axes.set(xlabel="predicted minutes", ylabel="actual minutes")
    axes.set(xticks=range(0, most + 1, 10), yticks=range(0, most + 1, 10))


def _plot_residuals(axes: Axes, report: Report, colours: Colours) -> None:
    bands = [band for band in report.residuals.by_predicted if band.trips >= FEWEST_IN_BAND]
    middles = [(band.start + band.end) / 2 for band in bands]

    def take(name: str) -> list[float]:
        return [getattr(band, name) for band in bands]

    for lowest, highest, opacity, label in (
        ("p5", "p95", 0.16, "5 to 95 %"),
        ("p25", "p75", 0.34, "25 to 75 %"),
    ):
        axes.fill_between(
            middles, take(lowest), take(highest),
            color=colours.first, alpha=opacity, linewidth=0, label=label,
        )  # fmt: skip
    axes.plot(middles, take("p50"), color=colours.first, label="median", marker="o", markersize=3)
    axes.axhline(0, color=colours.ink, linewidth=0.9, linestyle=(0, (5, 3)))
    axes.set(xlabel="predicted minutes", ylabel="residual, minutes")
    axes.legend(loc="best")


def _plot_minutes_per_mile(axes: Axes, report: Report, colours: Colours) -> None:
    styles = ((colours.first, "-", "o"), (colours.second, "--", "s"))
    by_kind = report.coefficients.minutes_per_mile
    for (kind, minutes), (colour, line, mark) in zip(by_kind.items(), styles, strict=True):
        axes.plot(
            range(len(minutes)), minutes,
            color=colour, linestyle=line, marker=mark, markersize=4, label=kind,
        )  # fmt: skip
    axes.set(xlabel="hour of the day", ylabel="minutes a mile", xticks=range(0, 24, 3))
    axes.legend(loc="best")


def _plot_past(axes: Axes, report: Report, colours: Colours) -> None:
    ours = report.validation
    months = [*(each.month for each in report.past), ours.month]
    errors = [*(each.rmse for each in report.past), ours.rmse]
    places = range(len(months))
    axes.plot(places, errors, color=colours.first, marker="o", markersize=4)
    axes.plot(places[-1:], errors[-1:], color=colours.second, marker="D", markersize=7)
    side, edge = (-9, "top") if errors[-2:][0] > errors[-1] else (9, "bottom")  # off the line
    axes.annotate(
        "this one", (places[-1], errors[-1]), (0, side), textcoords="offset points",
        ha="center", va=edge, color=colours.second,
    )  # fmt: skip
    step = -(-len(months) // MOST_LABELS)
    shown = places[::-step]
    axes.set_xticks(shown, [months[place] for place in shown])
    axes.margins(x=0.08, y=0.2)
    axes.set(xlabel="validation month", ylabel="RMSE, minutes")


PLOTS: dict[str, Callable[[Axes, Report, Colours], None]] = {
    "density": _plot_density,
    "residuals": _plot_residuals,
    "minutes_per_mile": _plot_minutes_per_mile,
    "past": _plot_past,
}

TITLES = {
    "density": "Actual against predicted",
    "residuals": "Residuals by predicted minutes",
    "minutes_per_mile": "One more mile, by hour",
    "past": "RMSE by validation month",
}


SERIES = {
    "model": ("model", "C0"),
    "zone_pair_median": ("zone-pair median", "C1"),
    "mean": ("training mean", "C7"),
    "champion": ("champion", "C2"),
}
"""Predictors of a backfill: what a reader sees each called, and its colour."""

MOST_TICKS = 10


def plot_rmse_by_month(
    months: Sequence[str], series: Mapping[str, Sequence[float | None]]
) -> bytes:
    """Draw a PNG of the RMSE of each predictor by validation month.

    Args:
        months: validation months, oldest first.
        series: one of `SERIES` -> its RMSE in minutes by month, None where it was not evaluated.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    picture = io.BytesIO()
    with LOCK, rc_context():
        figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
        axes = figure.subplots()
        for name, values in series.items():
            label, colour = SERIES[name]
            errors = [float("nan") if value is None else value for value in values]
            axes.plot(months, errors, "o-", color=colour, label=label)
        axes.set_ylim(bottom=0)
        axes.set(ylabel="RMSE, minutes", xlabel="validation month")
        axes.set_xticks(range(0, len(months), -(-len(months) // MOST_TICKS)))
        axes.grid(alpha=0.3)
        axes.legend(loc="best")
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
