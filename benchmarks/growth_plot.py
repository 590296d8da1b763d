"""The picture of growth: seconds and peak memory, by rows and by months."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.ways import COURSE, FLOOR, OURS, OURS_EXTENDED, VECTORISED

STYLES = {
    OURS: ("#0072b2", "o"),
    OURS_EXTENDED: ("#009e73", "s"),
    VECTORISED: ("#e69f00", "^"),
    COURSE: ("#d55e00", "D"),
    FLOOR: ("#666666", "v"),
}
"""Colours that stay apart for the colour-blind (Okabe and Ito), and a marker each."""


class Curve(NamedTuple):
    """A way: its sizes, seconds and MiB, point by point."""

    way: str
    sizes: Sequence[float]
    seconds: Sequence[float]
    peak_mib: Sequence[float]


def draw_growth(by_rows: Sequence[Curve], by_months: Sequence[Curve], path: Path) -> None:
    """Write the picture as PNG; its background is opaque, so that it reads on dark pages too."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained", facecolor="white")
    for column, (curves, unit) in enumerate(
        ((by_rows, "million rows of the training month"), (by_months, "months of the window"))
    ):
        seconds, memory = axes[0, column], axes[1, column]
        for curve in curves:
            colour, marker = STYLES[curve.way]
            style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.5}
            seconds.plot(curve.sizes, curve.seconds, label=curve.way.replace("`", ""), **style)
            memory.plot(curve.sizes, [mib / 1024 for mib in curve.peak_mib], **style)
        memory.set_ylim(0.1, 5)
        for axis, quantity in ((seconds, "seconds"), (memory, "peak memory, GiB")):
            axis.set(xlabel=unit, ylabel=quantity, xscale="log", yscale="log")
            sizes = sorted({size for curve in curves for size in curve.sizes})
            axis.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.minorticks_off()
            axis.yaxis.set_major_formatter("{x:g}")
            axis.grid(visible=True, color="#dddddd", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)
