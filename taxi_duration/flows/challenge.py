"""Whom a candidate faces, the champion of its cab type or nobody, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import get_run_logger, task

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import is_synthetic
from taxi_duration.data.schema import Cab
from taxi_duration.errors import ModelError, SourceError, TransientSourceError
from taxi_duration.evaluation.gate import Opponent, Verdict, judge
from taxi_duration.evaluation.report import Report
from taxi_duration.flows.tasks import IN_MEMORY, RETRIES, Validation
from taxi_duration.registry.champion import Promotion, promote_candidate
from taxi_duration.registry.resolve import FoundModel, load_champion
from taxi_duration.registry.runs import TrackedRun
from taxi_duration.reports.render import explain_promotion
from taxi_duration.settings import GateSettings


@dataclass(frozen=True)
class Challenge:
    """A candidate's champion to beat, and how.

    Args:
        champion: None if there is none.
        unavailable: why it could not be had, if that is why there is none.
        is_champion: whether this training is the champion already, and faces nobody.
    """

    settings: GateSettings
    champion: FoundModel | None = None
    unavailable: str | None = None
    is_champion: bool = False

    @property
    def opponent(self) -> Opponent | None:
        """The champion without its model."""
        champion = self.champion
        if champion is None or champion.version is None:
            return None
        return Opponent(champion.version, champion.model_id, champion.months, champion.is_synthetic)


@task(name="find-champion", **IN_MEMORY, **RETRIES)
def find_challenge(cab: Cab, model_id: str, settings: GateSettings) -> Challenge:
    """Find out whom a training faces; one that is champion already faces nobody.

    Args:
        model_id: the training's identity.

    Raises:
        TransientSourceError: the store is locked or does not answer.
    """
    try:
        champion = load_champion(cab)
    except TransientSourceError:
        raise
    except (SourceError, ModelError) as error:
        get_run_logger().warning("no champion to compare with: %s", error)
        return Challenge(settings, None, str(error))
    if champion and champion.model_id == model_id:
        get_run_logger().info("this training is champion already, version %s", champion.version)
        return Challenge(settings, is_champion=True)
    return Challenge(settings, champion)


@task(name="judge-candidate", **IN_MEMORY)
def judge_candidate(
    months: Sequence[Month], validation: Validation, challenge: Challenge
) -> Verdict:
    """Have the gate say whether the model becomes champion."""
    verdict = judge(
        validation.errors,
        validation.analysis,
        [str(month) for month in months],
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
    champion = report.champion
    promotion = promote_candidate(
        cab,
        version=tracked.version,
        model_id=report.model_id,
        against=champion.model_id if champion else None,
        reason=explain_promotion(report) if report.gate else "",
    )
    get_run_logger().info("%s", promotion)
    return promotion
