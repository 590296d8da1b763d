"""What a part of the benchmark found, as markdown."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from benchmarks.measure import Measurement, find_median

LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy")


@dataclass(frozen=True)
class Target:
    """What was to be reached, and what was: both are multiples of something, or minutes."""

    text: str
    bound: float
    measured: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        if self.at_least:
            return self.measured >= self.bound
        return self.measured <= self.bound


@dataclass(frozen=True)
class Part:
    """One part's report in markdown without its heading, its targets, and answers that differ."""

    name: str
    title: str
    text: str
    targets: Sequence[Target] = ()
    differences: Sequence[str] = field(default=())

    def render(self, command: str) -> str:
        """The report as its file holds it."""
        targets = f"\n{render_targets(self.targets)}\n" if self.targets else ""
        text = self.text.strip()
        return f"# {self.title}\n\n{text}\n{targets}\n{describe_machine()} Made by `{command}`.\n"


def render_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_targets(targets: Iterable[Target]) -> str:
    """The targets beside what was measured."""
    rows = []
    for target in targets:
        sign = "≥" if target.at_least else "≤"
        met = "yes" if target.is_met else "**no**"
        rows.append([target.text, f"{sign} {target.bound:g}", f"{target.measured:.2f}", met])
    return render_table(["target", "bound", "measured", "met"], rows)


def render_measurements(
    measured: Mapping[str, Sequence[Measurement]], reference: str, *, scored: bool = True
) -> str:
    """A row a way: RMSE, median seconds and peak memory, and both as multiples of a reference's."""
    medians = {name: find_median(runs) for name, runs in measured.items()}
    base, rows = medians[reference], []
    for name, median in medians.items():
        times = [run.seconds for run in measured[name]]
        spread = f"{median.seconds:.3f} ({min(times):.3f} to {max(times):.3f})"
        rows.append(
            [
                name,
                *([show_minutes(median.rmse)] if scored else []),
                spread,
                f"{median.seconds / base.seconds:.2f}x",
                f"{median.peak_mib:.0f} ({median.idle_mib:.0f})",
                f"{median.peak_mib / base.peak_mib:.2f}x",
            ]
        )
    heads = ["way", *(["validation RMSE, minutes"] if scored else [])]
    figures = ["seconds (range)", "time", "peak MiB (before the clock)", "memory"]
    return render_table([*heads, *figures], rows)


def show_minutes(rmse: float) -> str:
    """Minutes to the sixth decimal; a dash for a way that has no answer."""
    return "-" if math.isnan(rmse) else f"{rmse:.6f}"


def count(number: int, noun: str) -> str:
    """`1 round`, `3 rounds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def describe_machine() -> str:
    """Cores, system, and the versions of what was measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}."
    )
