"""Validation RMSE on green months, step by step: ours, the course's and boosting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import Data
from benchmarks.measure import Measurement, measure_way, note, run_apart
from benchmarks.speed import check_exactness
from benchmarks.tables import Part, render_table, show_minutes
from benchmarks.ways import (
    BOOSTING,
    BOOSTING_CATEGORIES,
    CONVERGED,
    COURSE,
    OURS,
    OURS_EXTENDED,
    XGBOOST,
)

WINDOWS = (1, 3)
FITTED_WAYS = (OURS, COURSE, OURS_EXTENDED, XGBOOST, BOOSTING, BOOSTING_CATEGORIES)


class Step(NamedTuple):
    """A window of training months and the month after it."""

    train: tuple[str, ...]
    validate: str

    @property
    def title(self) -> str:
        first, last = self.train[0], self.train[-1]
        return f"{first if first == last else f'{first} to {last}'} → {self.validate}"


Scores = dict[Step, dict[str, Measurement]]


def measure_accuracy(data: Data) -> Part:
    """Walk forward through the months with each window that they allow."""
    differences, sections = [], []
    for window in WINDOWS:
        steps = [step for months in data.steps for step in list_steps(months, window)]
        if not steps:
            continue
        ways = (*FITTED_WAYS, CONVERGED) if window == 1 else FITTED_WAYS
        scores = {step: measure_step(step, ways, data) for step in steps}
        if window == 1:
            for step, measured in scores.items():
                pair = {way: [measured[way]] for way in (OURS, CONVERGED)}
                differences += check_exactness(step.title, pair)
        title = "One month" if window == 1 else f"{window} months"
        sections.append(f"## {title} of training\n\n{render_scores(scores)}")
    text = f"""
Root mean squared error in minutes on the month after the training window, all trips of 1 to 60
minutes. The form of `extended` was found looking at 2021-02, 2023-02 and 2023-03; its coefficients
and its alpha come from the training window alone. {data.green_title}. XGBoost has the
course's parameters, features and 100 rounds; HistGradientBoosting 300 iterations of 127 leaves on
pick-up zone, drop-off zone, distance, hour and weekday, its zones as numbers, or as categories
(the better one, where at most 255 of them are told apart). Seconds are means of one run a step,
from the files to the RMSE, imports excluded.

{(chr(10) * 2).join(sections)}
"""
    return Part("accuracy", "Accuracy", text, differences=differences)


def list_steps(months: Sequence[str], window: int) -> list[Step]:
    """Every window of so many months that has a month after it."""
    return [
        Step(tuple(months[end - window : end]), months[end]) for end in range(window, len(months))
    ]


def measure_step(step: Step, ways: Sequence[str], data: Data) -> dict[str, Measurement]:
    """Fit and score each way once, each in a process of its own."""
    train: list[Path] = [data.find_green(month) for month in step.train]
    validate = data.find_green(step.validate)
    measured = {}
    for way in ways:
        measured[way] = run_apart(measure_way, way, train, validate)
        note(f"{step.title}, {way}: RMSE {measured[way].rmse:.4f}, {measured[way].seconds:.1f} s")
    return measured


def render_scores(scores: Scores) -> str:
    """A row a way, a column a step, then the mean and how far `extended` is ahead."""
    ways = list(next(iter(scores.values())))
    ours = statistics.mean(measured[OURS_EXTENDED].rmse for measured in scores.values())
    rows = []
    for way in ways:
        runs = [measured[way] for measured in scores.values()]
        mean = statistics.mean(run.rmse for run in runs)
        rows.append(
            [
                way,
                *(show_minutes(run.rmse) for run in runs),
                f"{mean:.4f}",
                "" if way == OURS_EXTENDED else show_lead(ours, mean),
                f"{statistics.mean(run.seconds for run in runs):.2f}",
            ]
        )
    heads = ["way", *(step.title for step in scores), "mean", "ours, `extended`, is", "seconds"]
    return render_table(heads, rows)


def show_lead(ours: float, other: float) -> str:
    """By how much of the other's RMSE ours is lower or higher."""
    return f"{abs(ours / other - 1):.1%} {'lower' if ours < other else 'higher'}"
