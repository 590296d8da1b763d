"""Whom a candidate faces: the champion of its cab type, or nobody."""

from __future__ import annotations

from dataclasses import dataclass

from taxi_duration.contract import Cab
from taxi_duration.errors import ModelError, SourceError, hide_credentials
from taxi_duration.features import FeatureSet
from taxi_duration.gate import Opponent
from taxi_duration.registry import Champion, load_champion, load_version, settle
from taxi_duration.report import Report
from taxi_duration.settings import GateSettings
from taxi_duration.store import identify_model


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
        return Opponent(champion.version, champion.model_id, champion.months)


def find_challenge(
    cab: Cab, outline: Report, features: FeatureSet, settings: GateSettings
) -> Challenge:
    """Find out whom a training faces, before it is trained.

    A run that is repeated after its model became champion faces whom it faced then, not itself:
    so it finds what it did, and does the rest.

    Args:
        outline: the training's, as `outline_report` gives it.
    """
    try:
        settle(cab)
        champion = load_champion(cab)
        if champion and _identify(outline, features, settings, champion.against) == (
            champion.model_id
        ):
            before = champion.against
            champion = load_version(cab, before) if before else None
    except (SourceError, ModelError) as error:
        return Challenge(settings, None, hide_credentials(str(error)))
    return Challenge(settings, champion)


def _identify(
    outline: Report, features: FeatureSet, settings: GateSettings, against: str | None
) -> str:
    """The identity that the training has if it is judged against a model."""
    champion = {"model_id": against} if against else None
    gate = {"settings": settings.model_dump(), "champion": champion, "unavailable": None}
    return identify_model({**outline, "gate": gate}, features)
