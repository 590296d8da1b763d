"""Whom a candidate faces, the champion of its cab type or nobody, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task

from taxi_duration.data.parquet import is_synthetic
from taxi_duration.data.schema import Cab
from taxi_duration.errors import ModelError, SourceError, TransientSourceError, hide_credentials
from taxi_duration.evaluation.gate import Opponent, Verdict, judge
from taxi_duration.evaluation.report import Report
from taxi_duration.flows.plan import Plan
from taxi_duration.flows.tasks import IN_MEMORY, RETRIES, Validation
from taxi_duration.model.directory import identify_model
from taxi_duration.model.features import FeatureSet
from taxi_duration.registry.registry import (
    Champion,
    Promotion,
    load_champion,
    load_version,
    promote_candidate,
    settle,
)
from taxi_duration.registry.tracking import TrackedRun
from taxi_duration.reports.render import explain_promotion
from taxi_duration.settings import GateSettings


@dataclass(frozen=True)
class Challenge:
    """A candidate's champion to beat, and how.

    Args:
        champion: None if there is none.
        unavailable: why it could not be had, if that is why there is none.
    """

    settings: GateSettings
    champion: Champion | None = None
    unavailable: str | None = None

    @property
    def opponent(self) -> Opponent | None:
        """The champion without its model."""
        champion = self.champion
        if champion is None:
            return None
        return Opponent(champion.version, champion.model_id, champion.months, champion.is_synthetic)


@task(name="find-champion", **IN_MEMORY, **RETRIES)
def find_challenge(
    cab: Cab, outline: Mapping[str, Any], features: FeatureSet, settings: GateSettings
) -> Challenge:
    """Find out whom a training faces, before it is trained.

    A run that is repeated after its model became champion faces whom it faced then, not itself:
    so it finds what it did, and does the rest.

    Args:
        outline: the training's, as `outline_report` gives it.

    Raises:
        TransientSourceError: the store is locked or does not answer.
    """
    try:
        settle(cab)
        champion = load_champion(cab)
        if champion and _identify(outline, features, settings, champion.against) == (
            champion.model_id
        ):
            champion = _find_faced(cab, champion)
    except TransientSourceError:
        raise
    except (SourceError, ModelError) as error:
        said = hide_credentials(str(error))
        get_run_logger().warning("no champion to compare with: %s", said)
        return Challenge(settings, None, said)
    return Challenge(settings, champion)


def _find_faced(cab: Cab, champion: Champion) -> Champion | None:
    """Whom a champion was judged against before it was one.

    Raises:
        ModelError: that version is deleted.
    """
    if champion.against is None:
        return None
    faced = load_version(cab, champion.against)
    if faced is None:
        raise ModelError(
            f"this training is the champion already, version {champion.version}, and "
            f"{champion.against}, which it was judged against, is deleted."
        )
    return faced


def _identify(
    outline: Mapping[str, Any], features: FeatureSet, settings: GateSettings, against: str | None
) -> str:
    """The identity that the training has if it is judged against a model."""
    champion = {"model_id": against} if against else None
    gate = {"settings": settings.model_dump(), "champion": champion, "unavailable": None}
    return identify_model({**outline, "gate": gate}, features)


@task(name="judge-candidate", **IN_MEMORY)
def judge_candidate(plan: Plan, validation: Validation, challenge: Challenge) -> Verdict:
    """Have the gate say whether the model becomes champion."""
    verdict = judge(
        validation.errors,
        validation.analysis,
        [str(month) for month in plan.months],
        challenge.settings,
        challenge.opponent,
        challenge.unavailable,
        is_synthetic=is_synthetic(validation.file.path.name),
    )
    bootstrap = verdict.bootstrap
    if bootstrap and bootstrap.lowest is not None:
        get_run_logger().info(
            "RMSE is %.2f%% below the champion's, at least %.2f%% with a confidence of %g%%",
            100 * bootstrap.improvement,
            100 * bootstrap.lowest,
            100 * challenge.settings.confidence,
        )
    get_run_logger().info("gate: %s", verdict)
    return verdict


@task(name="promote-champion", **IN_MEMORY, **RETRIES)
def promote_champion(cab: Cab, tracked: TrackedRun, report: Report) -> Promotion:
    """Make a model champion that the gate found better; trying again finds what was done."""
    champion = report["gate"]["champion"]
    promotion = promote_candidate(
        cab,
        version=tracked.version,
        model_id=report["model_id"],
        against=champion and champion["model_id"],
        reason=explain_promotion(report),
    )
    get_run_logger().info("%s", promotion)
    return promotion
