"""How a registered version becomes champion: by the gate, by a person, and back again.

Who is champion is said by an alias of MLflow's, and by nothing else; how it came to be, by the log
in `ledger`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from taxi_duration.data.schema import Cab
from taxi_duration.errors import InputError
from taxi_duration.registry.champions import (
    Champion,
    check_store,
    find_to_load,
    find_version,
    load_champion,
    load_or_name,
    load_version,
    name_command,
    read_number,
)
from taxi_duration.registry.history import History, Version, read_history, read_past
from taxi_duration.registry.ledger import Ledger
from taxi_duration.registry.mlflow_run import STAYS
from taxi_duration.registry.mlflow_store import hold_store, is_store_there
from taxi_duration.registry.promotions import (
    DONE,
    GATE,
    PROMOTE,
    ROLLBACK,
    find_latest,
    find_previous,
    list_passed,
)
from taxi_duration.registry.tracking import REGISTERED_MODEL
from taxi_duration.settings import resolve_tracking_uri

__all__ = [
    "Champion",
    "History",
    "Promotion",
    "Version",
    "find_version",
    "load_champion",
    "load_version",
    "promote",
    "promote_candidate",
    "read_history",
    "read_past",
    "rollback",
    "settle",
]


@dataclass(frozen=True)
class Promotion:
    """What became of a version that was to be champion, and the sentence that tells it."""

    is_champion: bool
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def promote_candidate(
    cab: Cab, version: str, model_id: str, against: str | None, reason: str
) -> Promotion:
    """Make a version champion that the gate found better, once, however often this is repeated.

    A training that was champion before is left to people, whoever it faces now and whatever code it
    was made by: who rolled it back did so for a reason.

    Args:
        against: the model id of the champion it was judged against, None if there was none.
        reason: a sentence, kept in the log.

    Raises:
        TransientSourceError: the store is locked or does not answer; asking again is safe.
        SourceError: the store refuses.
    """
    with hold_store(resolve_tracking_uri()) as client:
        ledger = Ledger.read(client, cab)
        ledger.settle()
        # One that is not of this pipeline has no id, and no candidate was judged against it.
        held = ledger.identify(ledger.champion) or ledger.champion
        if held == model_id:
            return Promotion(is_champion=True, sentence=str(find_latest(ledger.events)))
        if version not in ledger.versions:
            return Promotion(
                is_champion=False,
                sentence=f"version {version} was deleted in MLflow: it is no champion.",
            )
        training = ledger.find_training(version)
        was = [
            each.at
            for each in ledger.events
            if each.state == DONE
            and (each.model_id == model_id or ledger.is_same_training(each.version, training))
        ]
        if was and not ledger.is_same_training(ledger.champion, training):
            why = f"this training was champion before, since {was[-1]}, and was replaced"
        elif held != against:
            now = f"version {ledger.champion} ({held}) is champion" if held else "there is none"
            why = f"it was judged against {against or 'no champion'}, and {now} now"
        else:
            return Promotion(is_champion=True, sentence=str(ledger.record(GATE, version, reason)))
        sentence = f"version {version} stays a candidate: {why}. To have it all the same: "
        sentence += f"{name_command(f'promote {version}', cab)}."
        if not any(each.version == version for each in ledger.events):
            client.set_model_version_tag(REGISTERED_MODEL, version, STAYS, sentence)
    return Promotion(is_champion=False, sentence=sentence)


def promote(cab: Cab, version: str) -> Promotion:
    """Make a version champion, as a person wants it.

    Raises:
        InputError: there is no such version, or it is of another cab type.
        ModelError: it holds no model of ours that can be loaded.
        TransientSourceError, SourceError: the store fails.
    """
    number = read_number(version)
    with _hold(cab) as (uri, ledger):
        finished = ledger.settle()
        if ledger.champion != number:
            find_to_load(ledger.client, uri, cab, number, ledger.versions)
            return Promotion(
                is_champion=True, sentence=str(ledger.record(PROMOTE, number, "Promoted by hand."))
            )
    if finished and (finished.kind, finished.version) == (PROMOTE, number):
        return Promotion(is_champion=True, sentence=str(finished))
    return Promotion(
        is_champion=True, sentence=f"version {number} is champion already: nothing was changed."
    )


def rollback(cab: Cab, from_version: str | None = None) -> Promotion:
    """Make the previous champion champion again, and so on back with each call.

    A call that finds a rollback begun, and not finished, finishes that one and goes no further.

    Args:
        from_version: do nothing unless this is the champion, so that a repeated call rolls back
            once.

    Raises:
        InputError: no champion was before it that still exists.
        ModelError: the previous one cannot be loaded.
        TransientSourceError, SourceError: the store fails.
    """
    number = None if from_version is None else read_number(from_version)
    with _hold(cab) as (uri, ledger):
        stack = ledger.stack
        done = ledger.settle()
        if done is None or done.kind != ROLLBACK or number not in (None, done.previous):
            stack, champion = ledger.stack, ledger.champion
            if number not in (None, champion):
                now = f"version {champion} is champion" if champion else "there is no champion"
                return Promotion(
                    is_champion=False,
                    sentence=f"{now}, not version {number}: nothing was rolled back.",
                )
            previous = find_previous(stack, ledger.versions)
            past = _name_passed(list_passed(stack, previous))
            if previous is None:
                before = f" before version {champion}" if champion else ""
                raise InputError(
                    f"{cab.name} has had no champion{before}{past}: there is nothing to roll "
                    f"back to; {name_command('history', cab)} lists what can be promoted."
                )
            load_or_name(ledger.client, uri, cab, ledger.versions[previous])
            done = ledger.record(ROLLBACK, previous, f"Rolled back by hand{past}.")
    past = _name_passed(list_passed(stack, done.version))
    return Promotion(is_champion=True, sentence=f"{str(done).removesuffix('.')}{past}.")


def settle(cab: Cab) -> None:
    """Finish what a killed command or run began; a store that is not there is not made.

    Raises:
        TransientSourceError, SourceError: the store fails.
    """
    uri = resolve_tracking_uri()
    if is_store_there(uri):
        with hold_store(uri) as client:
            Ledger.read(client, cab).settle()


@contextmanager
def _hold(cab: Cab) -> Iterator[tuple[str, Ledger]]:
    """Lend the store's address and a cab type's ledger, to write to it.

    Raises:
        InputError: there is no store, which is not made for this.
    """
    uri = resolve_tracking_uri()
    check_store(uri)
    with hold_store(uri) as client:
        yield uri, Ledger.read(client, cab)


def _name_passed(versions: Sequence[str]) -> str:
    """What a rollback passed over, as the end of a sentence."""
    if not versions:
        return ""
    number = "versions" if versions[1:] else "version"
    are = "are" if versions[1:] else "is"
    return f", past {number} {' and '.join(versions)}, which {are} deleted in MLflow"
