"""Where a model errs on a month's trips, beside the champion on the same trips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from taxi_duration.data.clean import Trips
from taxi_duration.evaluation.residuals import Residuals
from taxi_duration.evaluation.slices import SLICES, find_slices
from taxi_duration.model.baselines import make_keys
from taxi_duration.model.encoding import Codes, Floats
from taxi_duration.regression.metrics import GroupErrors

MODEL, CHAMPION = "model", "champion"
"""What the two are called among a month's predictors."""

BLOCKS = 1 << 14
"""Trips are dealt into so many blocks; what is drawn again and again is blocks, not trips."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2 to the 64th over the golden ratio: multiplying by it spreads keys over the high bits (Knuth,
The Art of Computer Programming, volume 3, section 6.4)."""


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """Of no trips by default.

    Args:
        slices: errors by slice, of the model and of the champion if there is one.
        blocks: of both by block of trips, only if there is a champion.
        residuals: the model's.
    """

    slices: Mapping[str, GroupErrors] = field(default_factory=dict)
    blocks: Mapping[str, GroupErrors] = field(default_factory=dict)
    residuals: Residuals = field(default_factory=Residuals)

    @classmethod
    def of(cls, trips: Trips, predicted: Mapping[str, Floats]) -> ErrorAnalysis:
        """Of cleaned trips, and the minutes that `MODEL` and perhaps `CHAMPION` predict for them.

        Other predictors are passed over.
        """
        minutes = trips["minutes"]
        residuals = {
            name: minutes - predicted[name] for name in (MODEL, CHAMPION) if name in predicted
        }
        kinds = find_slices(trips)
        slices = {}
        for name, each in residuals.items():
            first, *others = [GroupErrors.of(codes, len(SLICES), each) for codes in kinds]
            slices[name] = sum(others, first)
        blocks = {}
        if CHAMPION in residuals:
            dealt = deal_into_blocks(trips)
            blocks = {name: GroupErrors.of(dealt, BLOCKS, each) for name, each in residuals.items()}
        return cls(slices, blocks, Residuals.of(trips, predicted[MODEL]))

    def __add__(self, other: ErrorAnalysis) -> ErrorAnalysis:
        return ErrorAnalysis(
            _add(self.slices, other.slices),
            _add(self.blocks, other.blocks),
            self.residuals + other.residuals,
        )


def deal_into_blocks(trips: Trips) -> Codes:
    """A block for each trip, by what the trip is, so that the order of trips changes nothing."""
    keys = make_keys(trips) ^ (trips["pickup"].view(np.int64) << np.int64(16))
    mixed = keys.view(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX
    blocks: Codes = (mixed >> np.uint64(64 - (BLOCKS.bit_length() - 1))).astype(np.int32)
    return blocks


def _add(
    ours: Mapping[str, GroupErrors], theirs: Mapping[str, GroupErrors]
) -> dict[str, GroupErrors]:
    return {
        name: ours[name] + theirs[name]
        if name in ours and name in theirs
        else {**ours, **theirs}[name]
        for name in {**ours, **theirs}
    }
