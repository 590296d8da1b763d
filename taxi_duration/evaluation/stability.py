"""Population stability: how much the trips of two months differ, and when to warn of it.

Two profiles are compared by the population stability index of each count, and by the zone pairs
that only one of them knows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from taxi_duration.model.month_sums import QUANTITIES, Counts, Profile
from taxi_duration.settings import StabilityLimits, name_variable

EMPTY_SHARE = 1e-4
"""Added to each bin's share, since the index of an empty one would be infinite."""
UNSEEN_PAIRS = "unseen_pairs"

Shift = dict[str, float]
"""Each of `QUANTITIES` -> its stability index, and `UNSEEN_PAIRS` -> a share of trips."""


def measure_psi(counts: Counts, others: Counts) -> float:
    """Return the population stability index of two sets of trips, counted into the same bins.

    With p and q the shares of a bin, the sum of (p - q) ln(p / q) over the bins: the divergence of
    Jeffreys (1946). Credit scoring, where it has its name, takes less than 0.1 for no change and
    more than 0.25 for another population (Siddiqi, Credit Risk Scorecards, 2006). To each share
    `EMPTY_SHARE` is added first.

    >>> measure_psi(np.array([40, 60]), np.array([4, 6]))
    0.0
    >>> round(measure_psi(np.array([50, 50]), np.array([80, 20])), 4)
    0.4157
    """
    ours, theirs = _share(counts), _share(others)
    return float(((ours - theirs) * np.log(ours / theirs)).sum())


def _share(counts: Counts) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = counts / counts.sum() + EMPTY_SHARE
    return shares / (1 + len(counts) * EMPTY_SHARE)


def compare_profiles(profile: Profile, reference: Profile) -> Shift:
    """Compare trips with others, each at least one.

    Returns:
        The index of each quantity, and the share of trips whose zone pair the others do not have.
    """
    ours, theirs = profile.counts, reference.counts
    shift = {name: measure_psi(ours[name], theirs[name]) for name in QUANTITIES}
    unseen = profile.pairs[reference.pairs == 0].sum()
    return {**shift, UNSEEN_PAIRS: float(unseen / profile.pairs.sum())}


def compare_months(
    training: Mapping[str, Profile], validation_month: str, validation: Profile
) -> dict[str, Shift]:
    """Compare the validation month with the training window, and its months with each other.

    A training month is compared with the others of the window: it is a part of the whole, which is
    the nearer to it the fewer months there are.

    Args:
        training: month -> profile, oldest first.

    Returns:
        By month: of the training months, if there are several, and of the validation month.
    """
    window = sum(training.values(), Profile())
    shifts = {
        month: compare_profiles(profile, window - profile)
        for month, profile in training.items()
        if len(training) > 1
    }
    return {**shifts, validation_month: compare_profiles(validation, window)}


def warn_of_shifts(shifts: Mapping[str, Shift], limits: StabilityLimits) -> list[str]:
    """Return a sentence on each shift beyond a limit: what it means and what to do.

    Args:
        shifts: as `compare_months` returns them, the validation month last.
    """
    *_, validation_month = shifts
    warnings = []
    for month, shift in shifts.items():
        beyond = [
            f"{name} {shift[name]:.4f}" for name in QUANTITIES if shift[name] > limits.most_index
        ]
        others, remedy = (
            (
                "the training window's",
                "what was learned may not hold for them: train on months that are more like it",
            )
            if month == validation_month
            else (
                "those of the window's other months",
                "a window without it, or without the others, may fit the months to come better",
            )
        )
        if beyond:
            warnings.append(
                f"{month}: its trips are not like {others}, by a population stability index of "
                f"{', '.join(beyond)}; {name_variable(StabilityLimits, 'most_index')} allows "
                f"{limits.most_index:g}. Look at its file first; if its trips are so, {remedy}."
            )
    unseen = shifts[validation_month][UNSEEN_PAIRS]
    if unseen > limits.most_unseen_pairs:
        warnings.append(
            f"{validation_month}: {unseen:.2%} of its trips are of zone pairs that the training "
            f"window does not have; {name_variable(StabilityLimits, 'most_unseen_pairs')} allows "
            f"{100 * limits.most_unseen_pairs:.4g}%. The model has no coefficient for such a pair: "
            "train on more months."
        )
    return warnings
