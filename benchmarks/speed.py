"""From two months' files to a validation RMSE: seconds and peak memory of ours and the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.data import Data, Plan
from benchmarks.measure import Measurement, find_median, measure_way, run_apart, take_turns
from benchmarks.tables import Part, Target, count, render_measurements
from benchmarks.ways import (
    CONVERGED,
    COURSE,
    FLOOR,
    OURS,
    OURS_EXTENDED,
    VECTORISED,
    VECTORISED_CONVERGED,
)

AGREEMENT_MINUTES = 1e-6
"""By how much the RMSE of ours and of the converged course may differ."""

YELLOW_AGREEMENT_MINUTES = 1e-4
"""Wider: at the same tolerance, iterations over fifty thousand columns end farther from the answer.
"""

YELLOW_WAYS = (OURS, OURS_EXTENDED, COURSE, VECTORISED, FLOOR)
GREEN_WAYS = (OURS, OURS_EXTENDED, COURSE, CONVERGED, VECTORISED, FLOOR)


def measure_speed(data: Data, plan: Plan) -> Part:
    """Measure on a generated yellow pair, and on the pair of green months the task is known by."""
    rows = plan.yellow_rows
    train, validate = data.make_yellow(list(zip(("2023-01", "2023-02"), rows, strict=True)))
    yellow = measure_pair(YELLOW_WAYS, train, validate, plan.rounds)
    runs = {
        VECTORISED_CONVERGED: partial(
            run_apart, measure_way, VECTORISED_CONVERGED, [train], validate
        )
    }
    yellow |= take_turns(runs, 1)
    green_train, green_validate = data.green_pair
    green = measure_pair(GREEN_WAYS, green_train, green_validate, plan.rounds)
    text = f"""
From two files on disk to a validation RMSE, imports excluded; medians of
{count(plan.rounds, "round")}, x is times ours. How it is measured: `benchmarks/measure.py`; the
ways: `benchmarks/ways.py`. The floor is pyarrow reading the five needed columns and nothing else.

## Generated yellow months: {rows[0]:,} + {rows[1]:,} rows

{render_measurements(yellow, OURS)}

The converged way (once, however many the rounds) shows whether ours is the least-squares answer;
their RMSE differ by {find_difference(yellow, VECTORISED_CONVERGED):.1e} minutes.

## {data.green_title}: `{green_train.name}` and `{green_validate.name}`

{render_measurements(green, OURS)}

RMSE of ours and of the converged course differ by {find_difference(green):.1e} minutes.

## Targets, on the yellow months
"""
    return Part(
        "speed",
        "Speed and memory",
        text,
        make_targets(yellow),
        [
            *check_exactness(
                "Generated yellow months", yellow, VECTORISED_CONVERGED, YELLOW_AGREEMENT_MINUTES
            ),
            *check_exactness(data.green_title, green),
        ],
    )


def measure_pair(
    ways: Sequence[str], train: Path, validate: Path, rounds: int
) -> dict[str, list[Measurement]]:
    """Measure the ways in turn on one pair of months."""
    return take_turns(
        {way: partial(run_apart, measure_way, way, [train], validate) for way in ways}, rounds
    )


def make_targets(measured: dict[str, list[Measurement]]) -> list[Target]:
    """Hold the medians against what was to be reached."""
    median = {way: find_median(runs) for way, runs in measured.items()}
    ours, floor = median[OURS], median[FLOOR]
    seconds = {way: median[way].seconds for way in median}
    return [
        Target(
            "the course's way, times the seconds of ours",
            60,
            seconds[COURSE] / ours.seconds,
            at_least=True,
        ),
        Target(
            "peak memory of ours, times the course's", 0.25, ours.peak_mib / median[COURSE].peak_mib
        ),
        Target(
            "vectorised scikit-learn, times the seconds of ours",
            8,
            seconds[VECTORISED] / ours.seconds,
            at_least=True,
        ),
        Target("ours, `course`, times the floor", 6, ours.seconds / floor.seconds),
        Target(
            "ours, `extended` with its sweep of alpha, times the floor",
            10,
            seconds[OURS_EXTENDED] / floor.seconds,
        ),
    ]


def find_difference(
    measured: Mapping[str, Sequence[Measurement]], converged: str = CONVERGED
) -> float:
    """Minutes between the RMSE of ours and of a converged way."""
    return abs(measured[OURS][0].rmse - measured[converged][0].rmse)


def check_exactness(
    months: str,
    measured: Mapping[str, Sequence[Measurement]],
    converged: str = CONVERGED,
    agreement: float = AGREEMENT_MINUTES,
) -> list[str]:
    """Say so when the answers differ."""
    apart = find_difference(measured, converged)
    if apart <= agreement:  # false for NaN
        return []
    return [f"{months}: RMSE of {OURS} and of {converged} differ by {apart:.1e} minutes."]
