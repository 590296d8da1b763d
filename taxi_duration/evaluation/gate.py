"""The gate: whether a candidate is better than the champion, the baselines and chance.

Candidate and champion are evaluated on the same trips. How sure one can be that the candidate's
RMSE is lower is found by a paired bootstrap (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993): trips are resampled, with both models' errors on them, and the improvement is
measured again each time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from taxi_duration.evaluation.residuals import CHAMPION, MODEL, ErrorAnalysis, Part, SliceErrors
from taxi_duration.model.features import Floats
from taxi_duration.regression.metrics import Evaluation, GroupErrors
from taxi_duration.settings import GateSettings, name_variable

RESAMPLES = 999
BATCH = 50
"""Resamples that are drawn at a time, which bounds the memory."""

PROMOTED, NOT_PROMOTED, NOT_JUDGED = "promoted", "not promoted", "not judged"
"""What a verdict, or none, is called."""

BASELINES = {"zone_pair_median": "the zone-pair median's", "mean": "the training mean's"}


@dataclass(frozen=True)
class Opponent:
    """The champion that a candidate is judged against.

    Args:
        version: its number, of the registered model.
        months: its training months, such as "2023-01", oldest first.
        is_synthetic: whether their trips are made up.
    """

    version: str
    model_id: str
    months: tuple[str, ...]
    is_synthetic: bool = False


class Champion(Part):
    """The champion that the model was judged against, and its errors on the same trips."""

    version: str = Field(description="version of the registered model")
    model_id: str = Field(description="model id, such as green/2023-01-0a1b2c3d")
    months: list[str] = Field(description="its training months, oldest first")
    is_synthetic: bool = Field(description="whether its training trips are made up")
    is_seen: bool = Field(description="whether it was trained on the validation month too")
    rmse: float = Field(description="root mean squared error, minutes")
    mae: float = Field(description="mean absolute error, minutes")


class Bootstrap(Part):
    """By what share the model's RMSE is lower than the champion's, and how sure that is."""

    improvement: float = Field(
        description="1 minus the ratio of the two RMSE, a share; negative where the model is worse"
    )
    lowest: float | None = Field(
        description="lower bound of it at the confidence asked for; null where trips are too few"
    )
    resamples: int = Field(description="how often trips were resampled")
    blocks: int = Field(description="blocks of trips that were resampled, of one or a few trips")


class NotFinite(Part):
    """The model's RMSE is not a number."""

    kind: Literal["not_finite"] = "not_finite"
    month: str = Field(description="validation month")
    rmse: str = Field(description="nan or inf")

    def __str__(self) -> str:
        return f"its RMSE on {self.month} is {self.rmse}, which is no number."


class NotBelowBaseline(Part):
    """A baseline is as good."""

    kind: Literal["not_below_baseline"] = "not_below_baseline"
    baseline: str = Field(description="mean or zone_pair_median")
    month: str = Field(description="validation month")
    rmse: float = Field(description="the model's RMSE, minutes")
    baseline_rmse: float = Field(description="the baseline's RMSE, minutes")

    def __str__(self) -> str:
        return (
            f"its RMSE of {self.rmse:.4f} minutes on {self.month} is not below "
            f"{BASELINES[self.baseline]} {self.baseline_rmse:.4f}."
        )


class Unavailable(Part):
    """The champion cannot be loaded."""

    kind: Literal["unavailable"] = "unavailable"
    cause: str = Field(description="sentence on why")

    def __str__(self) -> str:
        return f"it could not be compared with the champion: {self.cause}"


class Synthetic(Part):
    """The model was trained on made-up trips, the champion on real ones."""

    kind: Literal["synthetic"] = "synthetic"
    version: str = Field(description="the champion's version")

    def __str__(self) -> str:
        return (
            f"it was made of synthetic trips, and the champion, version {self.version}, of real "
            "ones: promote it by hand if you mean it, or keep the two in stores of their own."
        )


class Seen(Part):
    """The champion was trained on the validation month."""

    kind: Literal["seen"] = "seen"
    version: str = Field(description="the champion's version")
    month: str = Field(description="validation month")

    def __str__(self) -> str:
        return (
            f"the champion, version {self.version}, was trained on {self.month} too, which would "
            "be no fair comparison: train on later months, or promote this version by hand."
        )


class Older(Part):
    """The champion was trained on later months."""

    kind: Literal["older"] = "older"
    version: str = Field(description="the champion's version")
    month: str = Field(description="validation month")
    trained_to: str = Field(description="the model's last training month")
    champion_trained_to: str = Field(description="the champion's last training month")

    def __str__(self) -> str:
        return (
            f"it was trained on months up to {self.trained_to}, and the champion, version "
            f"{self.version}, up to {self.champion_trained_to}: whoever is nearer to {self.month} "
            "is better on it, and the older model would be in use. Promote it by hand if you mean "
            "it."
        )


class NotBetter(Part):
    """The improvement over the champion is not surely above the margin."""

    kind: Literal["not_better"] = "not_better"
    version: str = Field(description="the champion's version")
    rmse: float = Field(description="the model's RMSE, minutes")
    champion_rmse: float = Field(description="the champion's RMSE, minutes")
    improvement: float = Field(description="share by which the RMSE is lower")
    lowest: float | None = Field(description="lower bound of the improvement; null if unknown")
    margin: float = Field(description="share that the lower bound must exceed")
    confidence: float = Field(description="confidence of the lower bound, 0.5 to 0.99")

    def __str__(self) -> str:
        word = "lower" if self.improvement >= 0 else "higher"
        compared = (
            f"its RMSE of {self.rmse:.4f} minutes is {abs(self.improvement):.2%} {word} than the "
            f"{self.champion_rmse:.4f} of the champion, version {self.version}"
        )
        if self.lowest is None:
            return f"{compared}, and there are too few trips to say more."
        margin, confidence = (
            name_variable(GateSettings, each) for each in ("margin", "confidence")
        )
        bound = (
            f"the improvement is at least {self.lowest:.2%}, and"
            if self.lowest >= 0
            else f"it is worse by at most {-self.lowest:.2%}, and the improvement"
        )
        return (
            f"{compared}; with a confidence of {100 * self.confidence:.4g}% ({confidence}) {bound} "
            f"must be more than {100 * self.margin:.4g}% ({margin})."
        )


class WorseSlice(Part):
    """On a slice the model is worse than the champion by more than the limit."""

    kind: Literal["worse_slice"] = "worse_slice"
    slice_kind: str = Field(description="what trips differ in, such as hour")
    slice_name: str = Field(description="the slice, such as night, 0 to 5")
    trips: int = Field(description="trips of the slice")
    rmse: float = Field(description="the model's RMSE, minutes")
    champion_rmse: float = Field(description="the champion's RMSE, minutes")
    limit: float | None = Field(
        description="share by which it may be worse; null after the first slice, to say it once"
    )

    def __str__(self) -> str:
        rise = f"{self.rise:.1%} higher" if self.champion_rmse else "higher"
        variable = name_variable(GateSettings, "most_slice_worsening")
        allowed = "" if self.limit is None else f"; {variable} allows {100 * self.limit:.4g}%"
        return (
            f"on {self.trips:,} trips of {self.slice_kind} {self.slice_name} its RMSE of "
            f"{self.rmse:.2f} minutes is {rise} than the champion's {self.champion_rmse:.2f}"
            f"{allowed}."
        )

    @property
    def rise(self) -> float:
        """The share by which the RMSE is above the champion's; infinite if that has no errors."""
        return self.rmse / self.champion_rmse - 1 if self.champion_rmse else math.inf


Finding = Annotated[
    NotFinite | NotBelowBaseline | Unavailable | Synthetic | Seen | Older | NotBetter | WorseSlice,
    Field(discriminator="kind"),
]
"""What speaks against a promotion; as text it is the sentence for users."""


class Verdict(Part):
    """The gate's verdict on a candidate, and the numbers it rests on."""

    is_promoted: bool = Field(description="whether the gate found it better")
    reasons: list[str] = Field(description="sentences on why it is not promoted")
    findings: list[Finding] = Field(
        default_factory=list, description="the same as kinds and numbers"
    )
    champion: Champion | None = Field(description="whom it was judged against; null if nobody")
    unavailable: str | None = Field(description="why the champion could not be loaded")
    bootstrap: Bootstrap | None = Field(description="null where the two were not compared")
    settings: GateSettings = Field(description="the gate's limits: shares, confidence and trips")

    def __str__(self) -> str:
        return PROMOTED if self.is_promoted else f"{NOT_PROMOTED}: {' '.join(self.reasons)}"


def conclude(
    findings: Sequence[Finding],
    settings: GateSettings,
    champion: Champion | None = None,
    unavailable: str | None = None,
    bootstrap: Bootstrap | None = None,
) -> Verdict:
    """Return the verdict that follows from what was found: without findings, a promotion."""
    return Verdict(
        is_promoted=not findings,
        reasons=[str(finding) for finding in findings],
        findings=list(findings),
        champion=champion,
        unavailable=unavailable,
        bootstrap=bootstrap,
        settings=settings,
    )


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
    """Decide whether a candidate becomes champion.

    Args:
        errors: predictor -> its errors on the validation month: the model, the baselines and the
            champion.
        months: the training months, oldest first, and the validation month, such as "2023-02".
        opponent: the champion; without one, the baselines are all there is to beat.
        unavailable: a sentence on why the champion could not be loaded; then nobody is promoted.
        is_synthetic: whether the months' trips are made up; a model of such trips never replaces
            a champion of real ones.
    """
    *train, month = months
    ours = errors[MODEL]
    if not math.isfinite(ours.rmse):
        return conclude([NotFinite(month=month, rmse=str(ours.rmse))], settings)
    findings: list[Finding] = [
        NotBelowBaseline(
            baseline=name, month=month, rmse=ours.rmse, baseline_rmse=errors[name].rmse
        )
        for name in BASELINES
        if not ours.rmse < errors[name].rmse
    ]
    if unavailable:
        findings.append(Unavailable(cause=unavailable))
    if opponent is None or unavailable:
        return conclude(findings, settings, unavailable=unavailable)
    version, theirs = opponent.version, errors[CHAMPION]
    is_alike = is_synthetic == opponent.is_synthetic
    is_seen = is_alike and month in opponent.months
    champion = Champion(
        version=version,
        model_id=opponent.model_id,
        months=list(opponent.months),
        is_synthetic=opponent.is_synthetic,
        is_seen=is_seen,
        rmse=theirs.rmse,
        mae=theirs.mae,
    )
    if is_synthetic and not is_alike:
        findings.append(Synthetic(version=version))
    if is_seen:
        return conclude([*findings, Seen(version=version, month=month)], settings, champion)
    if is_alike and train[-1] < opponent.months[-1]:
        findings.append(
            Older(
                version=version,
                month=month,
                trained_to=train[-1],
                champion_trained_to=opponent.months[-1],
            )
        )
    bootstrap = resample(analysis.blocks[MODEL], analysis.blocks[CHAMPION], settings.confidence)
    if bootstrap.lowest is None or not bootstrap.lowest > settings.margin:
        findings.append(
            NotBetter(
                version=version,
                rmse=ours.rmse,
                champion_rmse=theirs.rmse,
                improvement=bootstrap.improvement,
                lowest=bootstrap.lowest,
                margin=settings.margin,
                confidence=settings.confidence,
            )
        )
    findings += find_worse_slices(analysis, settings)
    return conclude(findings, settings, champion, bootstrap=bootstrap)


def resample(ours: GroupErrors, theirs: GroupErrors, confidence: float) -> Bootstrap:
    """Bootstrap the improvement of one RMSE over another on the same blocks of trips.

    The draws are the same each time, and do not depend on the order of the trips.
    """
    used = ours.rows > 0
    squares = ours.squares[used], theirs.squares[used]
    improvement, blocks = float(_improve(*squares, axis=-1)), int(np.count_nonzero(used))
    if blocks < 2:
        return Bootstrap(improvement=improvement, lowest=None, resamples=0, blocks=blocks)
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
    return Bootstrap(
        improvement=improvement,
        lowest=float(drawn.confidence_interval.low),
        resamples=RESAMPLES,
        blocks=blocks,
    )


def _improve(ours: Floats, theirs: Floats, axis: int) -> Floats:
    """Return 1 minus the ratio of two RMSE, from squared errors; 0 against a perfect model."""
    ours_total, theirs_total = ours.sum(axis=axis), theirs.sum(axis=axis)
    ratios = np.divide(
        ours_total, theirs_total, out=np.ones_like(theirs_total), where=theirs_total > 0
    )
    improvement: Floats = 1 - np.sqrt(ratios)
    return improvement


def find_worse_slices(analysis: ErrorAnalysis, settings: GateSettings) -> list[WorseSlice]:
    """Return the slices where the model is worse than the champion by more than the limit."""
    worse = [each for each in analysis.measure_slices() if is_beyond(each, settings)]
    return [
        WorseSlice(
            slice_kind=each.kind,
            slice_name=each.name,
            trips=each.trips,
            rmse=each.rmse,
            champion_rmse=each.champion_rmse or 0.0,
            limit=None if place else settings.most_slice_worsening,
        )
        for place, each in enumerate(worse)
    ]


def is_beyond(part: SliceErrors, settings: GateSettings) -> bool:
    """Return whether a slice is worse than the champion's by more than the settings allow."""
    if part.champion_rmse is None:
        return False
    most = part.champion_rmse * (1 + settings.most_slice_worsening)
    return part.trips >= settings.fewest_slice_trips and part.rmse > most
