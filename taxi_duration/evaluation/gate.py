"""The gate: whether a candidate is better than the champion, the baselines and chance.

Both are scored on the same trips. How sure one can be that the candidate's RMSE is lower is found
by a paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993): trips are
drawn anew, with both models' errors on them, and the improvement is measured again and again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from taxi_duration.evaluation.residuals import CHAMPION, MODEL, SLICES, ErrorAnalysis
from taxi_duration.model.features import Floats
from taxi_duration.regression.metrics import Evaluation, GroupErrors
from taxi_duration.settings import GateSettings, name_variable

RESAMPLES = 999
BATCH = 50
"""Resamples that are drawn at a time, which bounds the memory."""

BASELINES = {"zone_pair_median": "the zone-pair median's", "mean": "the training mean's"}


@dataclass(frozen=True)
class Opponent:
    """The champion that a candidate is judged against.

    Args:
        version: its number, of the registered model.
        months: what it was trained on, such as "2023-01".
        is_synthetic: whether those held made-up trips.
    """

    version: str
    model_id: str
    months: tuple[str, ...]
    is_synthetic: bool = False


@dataclass(frozen=True)
class Bootstrap:
    """By what share a model's RMSE is lower than the champion's, and the least of that.

    Args:
        improvement: 1 less the ratio of the two; negative where the model is worse.
        lowest: its lower bound at the confidence asked for; None where trips are too few.
        blocks: what was drawn: blocks of trips, each a trip or a few.
    """

    improvement: float
    lowest: float | None
    resamples: int
    blocks: int


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate, and with which numbers.

    Args:
        reasons: sentences on why it is not promoted; none when it is.
        unavailable: why the champion could not be had, if there may be one.
        champion_errors: None without a champion.
    """

    reasons: tuple[str, ...]
    settings: GateSettings
    opponent: Opponent | None = None
    unavailable: str | None = None
    champion_errors: Evaluation | None = None
    is_seen: bool = False
    bootstrap: Bootstrap | None = None

    @property
    def is_promoted(self) -> bool:
        return not self.reasons

    def __str__(self) -> str:
        return "promoted" if self.is_promoted else f"not promoted: {' '.join(self.reasons)}"

    def describe(self) -> dict[str, Any]:
        """The verdict as the report has it."""
        champion = None
        if self.opponent and self.champion_errors:
            champion = {
                **asdict(self.opponent),
                "months": list(self.opponent.months),
                "is_seen": self.is_seen,
                "rmse": self.champion_errors.rmse,
                "mae": self.champion_errors.mae,
            }
        return {
            "is_promoted": self.is_promoted,
            "reasons": list(self.reasons),
            "champion": champion,
            "unavailable": self.unavailable,
            "bootstrap": asdict(self.bootstrap) if self.bootstrap else None,
            "settings": self.settings.model_dump(),
        }


def judge(
    errors: Mapping[str, Evaluation],
    analysis: ErrorAnalysis,
    months: Sequence[str],
    settings: GateSettings,
    opponent: Opponent | None,
    unavailable: str | None = None,
    *,
    is_synthetic: bool = False,
) -> Verdict:
    """Say whether a candidate becomes champion.

    Args:
        errors: by predictor, on the month's trips: the model, the baselines, and the champion.
        months: those it was trained on, oldest first, and that month, such as "2023-02".
        opponent: the champion; without one, the baselines are all there is to beat.
        unavailable: a sentence on why the champion could not be had; then nobody is promoted.
        is_synthetic: whether the months' trips are made up; who is good at those is not put in the
            place of a champion of real ones.
    """
    *train, month = months
    ours = errors[MODEL]
    if not math.isfinite(ours.rmse):
        return Verdict((f"its RMSE on {month} is {ours.rmse}, which is no number.",), settings)
    reasons = [
        f"its RMSE of {ours.rmse:.4f} minutes on {month} is not below {name} "
        f"{errors[each].rmse:.4f}."
        for each, name in BASELINES.items()
        if not ours.rmse < errors[each].rmse
    ]
    if unavailable:
        reasons.append(f"it could not be compared with the champion: {unavailable}")
    if opponent is None or unavailable:
        return Verdict(tuple(reasons), settings, unavailable=unavailable)
    theirs, is_alike = errors[CHAMPION], is_synthetic == opponent.is_synthetic
    if is_synthetic and not is_alike:
        reasons.append(
            f"it was made of synthetic trips, and the champion, version {opponent.version}, of "
            "real ones: promote it by hand if you mean it, or keep the two in stores of their own."
        )
    is_seen = is_alike and month in opponent.months
    if is_seen:
        reasons.append(
            f"the champion, version {opponent.version}, was trained on {month} too, which would "
            f"be no fair comparison: train on later months, or promote this version by hand."
        )
        return Verdict(tuple(reasons), settings, opponent, None, theirs, is_seen)
    if is_alike and train[-1] < opponent.months[-1]:
        reasons.append(
            f"it was trained on months up to {train[-1]}, and the champion, version "
            f"{opponent.version}, up to {opponent.months[-1]}: whoever is nearer to {month} is "
            "better on it, and the older model would be in use. Promote it by hand if you mean it."
        )
    bootstrap = resample(analysis.blocks[MODEL], analysis.blocks[CHAMPION], settings.confidence)
    if bootstrap.lowest is None or not bootstrap.lowest > settings.margin:
        reasons.append(_describe_lack(ours, theirs, opponent, bootstrap, settings))
    reasons += find_worse_slices(analysis, settings)
    return Verdict(tuple(reasons), settings, opponent, None, theirs, is_seen, bootstrap)


def _describe_lack(
    ours: Evaluation,
    theirs: Evaluation,
    opponent: Opponent,
    bootstrap: Bootstrap,
    settings: GateSettings,
) -> str:
    change = abs(bootstrap.improvement)
    word = "lower" if bootstrap.improvement >= 0 else "higher"
    compared = (
        f"its RMSE of {ours.rmse:.4f} minutes is {change:.2%} {word} than the {theirs.rmse:.4f} of "
        f"the champion, version {opponent.version}"
    )
    if bootstrap.lowest is None:
        return f"{compared}, and there are too few trips to say more."
    margin, confidence = (name_variable(GateSettings, each) for each in ("margin", "confidence"))
    bound = (
        f"the improvement is at least {bootstrap.lowest:.2%}, and"
        if bootstrap.lowest >= 0
        else f"it is worse by at most {-bootstrap.lowest:.2%}, and the improvement"
    )
    return (
        f"{compared}; with a confidence of {100 * settings.confidence:.4g}% ({confidence}) {bound} "
        f"must be more than {100 * settings.margin:.4g}% ({margin})."
    )


def resample(ours: GroupErrors, theirs: GroupErrors, confidence: float) -> Bootstrap:
    """Bootstrap the improvement of one RMSE over another on the same blocks of trips.

    The draws are the same each time, and do not depend on the order of the trips.
    """
    used = ours.rows > 0
    squares = ours.squares[used], theirs.squares[used]
    improvement, blocks = float(_improve(*squares, axis=-1)), int(np.count_nonzero(used))
    if blocks < 2:
        return Bootstrap(improvement, None, 0, blocks)
    from scipy import stats  # here, since it takes half a second

    drawn = stats.bootstrap(
        squares,
        _improve,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=confidence,
        alternative="greater",
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Bootstrap(improvement, float(drawn.confidence_interval.low), RESAMPLES, blocks)


def _improve(ours: Floats, theirs: Floats, axis: int) -> Floats:
    """1 less the ratio of two RMSE, from squared errors; none over a model without errors."""
    ours_total, theirs_total = ours.sum(axis=axis), theirs.sum(axis=axis)
    ratios = np.divide(
        ours_total, theirs_total, out=np.ones_like(theirs_total), where=theirs_total > 0
    )
    improvement: Floats = 1 - np.sqrt(ratios)
    return improvement


def find_worse_slices(analysis: ErrorAnalysis, settings: GateSettings) -> list[str]:
    """Sentences on the slices where a model is worse than the champion by more than the limit.

    The first of them says what the limit is.
    """
    variable = name_variable(GateSettings, "most_slice_worsening")
    allowed = f"; {variable} allows {100 * settings.most_slice_worsening:.4g}%"
    found = [
        f"{begin_slice_reason(each['kind'], each['name'], each['trips'])} its RMSE of "
        f"{each['rmse']:.2f} minutes is {_name_rise(each['rmse'], each['champion_rmse'])} than the "
        f"champion's {each['champion_rmse']:.2f}"
        for each in describe_slices(analysis)
        if is_beyond(each, settings.model_dump())
    ]
    return [f"{said}{'' if place else allowed}." for place, said in enumerate(found)]


def is_beyond(part: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a slice is worse than the champion's by more than the gate's settings allow.

    Args:
        part, settings: a slice, and the gate's settings, as the report has them.
    """
    most: float = part["champion_rmse"] * (1 + settings["most_slice_worsening"])
    return bool(part["trips"] >= settings["fewest_slice_trips"] and part["rmse"] > most)


def begin_slice_reason(kind: str, name: str, trips: int) -> str:
    """What a sentence on a slice that is worse begins with, so that it is known among others.

    >>> begin_slice_reason("hour", "night, 0 to 5", 1234)
    'on 1,234 trips of hour night, 0 to 5'
    """
    return f"on {trips:,} trips of {kind} {name}"


def _name_rise(model: float, champion: float) -> str:
    return f"{model / champion - 1:.1%} higher" if champion else "higher"


def describe_slices(analysis: ErrorAnalysis) -> list[dict[str, Any]]:
    """The errors of each slice that has trips, as the report has them."""
    ours, theirs = analysis.slices[MODEL], analysis.slices.get(CHAMPION)
    return [
        {
            "kind": each.kind,
            "name": each.name,
            "trips": int(ours.rows[place]),
            "rmse": float(ours.rmse[place]),
            "mae": float(ours.mae[place]),
            "mean_residual": float(ours.mean_residual[place]),
            "champion_rmse": float(theirs.rmse[place]) if theirs else None,
        }
        for place, each in enumerate(SLICES)
        if ours.rows[place]
    ]
