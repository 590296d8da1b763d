"""Walk-forward evaluation: models of consecutive windows, each validated on the month after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """RMSE (minutes) on a validation month: of a model trained on the months before, and others."""

    validation: str
    train: tuple[str, ...]
    trips: int
    model: float
    zone_pair_median: float
    mean: float
    champion: float | None
    model_id: str
    """`<cab>/<last training month>-<id>`, its directory below the models directory."""
    champion_version: str | None = None
    champion_is_seen: bool = False
    """Whether the champion was trained on the validation month."""
    warnings: tuple[str, ...] = ()
    """On how the months' trips differ."""


SERIES = {
    "model": "model",
    "zone_pair_median": "zone-pair median",
    "mean": "training mean",
    "champion": "champion",
}
"""Predictors that are compared, as fields of `Step`, and their names for a reader."""


def list_series(steps: Sequence[Step]) -> dict[str, list[float | None]]:
    """Return each predictor's RMSE (minutes) by month, None where it was not evaluated.

    A predictor that was evaluated on no month is left out.
    """
    found = {name: [getattr(step, name) for step in steps] for name in SERIES}
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def list_rows(steps: Sequence[Step]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table that is shown everywhere, as text."""
    series = list_series(steps)
    versions = {step.champion_version for step in steps if step.champion_version}
    named = {**SERIES, "champion": f"champion, version {', '.join(sorted(versions))}"}
    header = ["validated on", "trained on", "trips", *(named[name] for name in series)]
    rows = []
    for place, step in enumerate(steps):
        first, last = step.train[0], step.train[-1]
        trained = first if first == last else f"{first} to {last}"
        figures = [values[place] for values in series.values()]
        shown = ["" if figure is None else f"{figure:.4f}" for figure in figures]
        if step.champion_is_seen:
            shown[-1] += " (trained on it)"
        rows.append([step.validation, trained, f"{step.trips:,}", *shown])
    return header, rows
