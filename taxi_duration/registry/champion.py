"""Who is champion, was it, and becomes it: by the gate, by a person, and back again.

Who is champion is said by an alias of MLflow's, set in one call, and by nothing else. How a version
became it, each time, is a tag of that version, `champion.1`, `champion.2` ..., which is written
before the alias: what is repeated after a crash writes the same tag and sets the alias.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import is_synthetic
from taxi_duration.data.schema import Cab
from taxi_duration.errors import InputError, SourceError, describe, hide_credentials
from taxi_duration.evaluation.gate import NOT_JUDGED, NOT_PROMOTED, PROMOTED
from taxi_duration.registry.resolve import find_model, load_version, name_command, read_aliases
from taxi_duration.registry.runs import (
    CHAMPION,
    HASHED,
    MODEL_ID,
    REGISTERED_MODEL,
    VERDICT,
    list_records,
    locate_page,
    name_alias,
    write_record,
)
from taxi_duration.registry.store import (
    EXPERIMENT,
    get_if_there,
    hold_store,
    is_store_there,
    reach_store,
)
from taxi_duration.settings import resolve_tracking_uri

GATE, PROMOTE, ROLLBACK = "gate", "promote", "rollback"

CHANGE = "champion."
"""Before a number, from 1: a tag of a version with how it became champion, as JSON."""

ROLLED_BACK = "rolled_back"
"""Tag of a version that a person took out of use: how, who and when. The gate leaves it alone."""

STAYS = "stays"
"""In a verdict: why a version that the gate found better is not champion all the same."""

UNKNOWN = "unknown"
"""When what was set or deleted on MLflow's page began or ended."""

MOST_REASON = 1000
MOST_EARLIER = 50
"""Champions that rollbacks can go back to; a tag has room for 5000 characters."""

PAGE = 1000
"""How many results are asked for at a time."""


@dataclass(frozen=True)
class Change:
    """How a version became champion.

    Args:
        at: when; ISO, UTC.
        previous: the champion before it, None if there was none.
        by: user@host.
        reason: a sentence.
        earlier: the champions that rollbacks from it can go back to, oldest first.
    """

    version: str
    at: str
    kind: str
    previous: str | None
    by: str
    reason: str
    earlier: tuple[str, ...] = ()

    def describe(self, past: str = "") -> str:
        """Return what it made of the champion, as a sentence.

        Args:
            past: which versions a rollback passed over, as the end of the sentence.

        >>> Change("3", "2026-01-02T03:04:05+00:00", GATE, "2", "", "").describe()
        'version 3 is champion now, in place of version 2.'
        """
        again = "again" if self.kind == ROLLBACK else "now"
        before = f", in place of version {self.previous}" if self.previous else "; there was none"
        return f"version {self.version} is champion {again}{before}{past}."


@dataclass(frozen=True)
class Period:
    """How long a version was champion; `until` is None while it is."""

    since: str
    until: str | None


@dataclass(frozen=True)
class Promotion:
    """What became of a version that was to be champion, and the sentence that tells it."""

    is_champion: bool
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Version:
    """What is known of a registered version without loading it.

    Args:
        validated_on, rmse: as it was judged last, else as its run has it; None if that is gone.
        page: None if its run is gone for good.
        against: the model id of the champion it was judged against last.
        periods: when it was champion, oldest first.
    """

    version: str
    model_id: str
    trained_on: tuple[str, ...]
    validated_on: str | None
    rmse: float | None
    verdict: str
    reasons: tuple[str, ...]
    against: str | None
    run_id: str | None
    page: str | None
    periods: tuple[Period, ...]
    is_synthetic: bool = False


@dataclass(frozen=True)
class History:
    """All versions of a cab type, oldest first, and all changes of champion that were made here.

    Args:
        store: its address, without passwords.
        champion: the number of the version in use; its alias, which may be no version of ours.
    """

    cab: str
    store: str
    champion: str | None
    versions: tuple[Version, ...]
    changes: tuple[Change, ...]

    def find(self, version: str | None) -> Version | None:
        """Return a version by its number."""
        return next((each for each in self.versions if each.version == version), None)

    def find_change(self, version: str) -> Change | None:
        """Return how a version became champion last; None if that was not done here."""
        return _find_last(self.changes, version)


@dataclass
class _Standing:
    """The versions of a cab type and its champion, as one look at the store found them.

    Args:
        champion: the version that the alias names, unless it is another cab type's.
        ids: the model ids of `versions`, by number.
        changes: oldest first, those of one version in the order of their tags.
    """

    client: mlflow.MlflowClient
    cab: Cab
    champion: str | None
    versions: dict[str, ModelVersion]
    ids: dict[str, str]
    changes: list[Change]

    @classmethod
    def read(cls, client: mlflow.MlflowClient, cab: Cab) -> _Standing:
        """Look at the store, and change nothing."""
        name = f"name = '{REGISTERED_MODEL}'"
        versions, ids = dict[str, ModelVersion](), dict[str, str]()
        champion = read_aliases(client).get(name_alias(CHAMPION, cab))
        for version in _search_all(client.search_model_versions, name):
            number, model_id = str(version.version), _identify(client, version)
            if model_id and model_id.startswith(f"{cab.name}/"):
                versions[number], ids[number] = version, model_id
            elif model_id and number == champion:
                champion = None
        changes = _drop_not_done(_read_changes(versions), champion)
        return cls(client, cab, champion, versions, ids, changes)

    @property
    def earlier(self) -> tuple[str, ...]:
        """The champions that a rollback can go back to, oldest first, deleted ones among them."""
        change = _find_last(self.changes, self.champion)
        if change:
            return change.earlier
        # Set elsewhere, after whoever became champion here last.
        return (*self.changes[-1].earlier, self.changes[-1].version) if self.changes else ()

    def crown(self, kind: str, number: str, reason: str, earlier: tuple[str, ...]) -> Change:
        """Make a version champion: first its tag, then the alias."""
        at = datetime.now(UTC).isoformat()
        change = Change(
            number, at, kind, self.champion, _describe_user(), reason[:MOST_REASON],
            earlier[-MOST_EARLIER:],
        )  # fmt: skip
        version = self.versions[number]
        records = list_records(version, CHANGE)
        place = len(records) + 1
        if records and _read_change(number, records[-1]) not in self.changes:
            place -= 1  # written before a crash, and not carried out
        record = asdict(change)
        del record["version"]
        write_record(self.client, version, CHANGE, place, record)
        if kind != GATE and ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(REGISTERED_MODEL, number, ROLLED_BACK)
        verdicts = list_records(version, VERDICT)
        if verdicts and STAYS in verdicts[-1]:
            del verdicts[-1][STAYS]
            write_record(self.client, version, VERDICT, len(verdicts), verdicts[-1])
        alias = name_alias(CHAMPION, self.cab)
        self.client.set_registered_model_alias(REGISTERED_MODEL, alias, number)
        return change

    def promote(self, kind: str, number: str, reason: str) -> Change:
        """Make a version champion in the place of the present one, if there is one."""
        earlier = (*self.earlier, self.champion) if self.champion else self.earlier
        return self.crown(kind, number, reason, earlier)

    def leave_to_people(self, how: str) -> None:
        """Mark the champion, which a person takes out of use, so that the gate never undoes it."""
        if self.champion in self.versions:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            mark = f"{how} by {_describe_user()} at {at}"
            self.client.set_model_version_tag(REGISTERED_MODEL, self.champion, ROLLED_BACK, mark)

    def list_periods(self) -> dict[str, list[Period]]:
        """Return when each version was champion, oldest first."""
        periods: dict[str, list[Period]] = {}
        ends: list[str | None] = [change.at for change in self.changes[1:]]
        for change, until in zip(self.changes, [*ends, None], strict=False):
            if until is None and change.version != self.champion:
                until = UNKNOWN
            periods.setdefault(change.version, []).append(Period(change.at, until))
        last = self.changes[-1].version if self.changes else None
        if self.champion and self.champion != last:
            periods.setdefault(self.champion, []).append(Period(UNKNOWN, None))
        return periods


def promote_candidate(
    cab: Cab, version: str, model_id: str, against: str | None, reason: str
) -> Promotion:
    """Make a version champion that the gate found better, once, however often this is repeated.

    A training that a person rolled back or replaced is left to people: who did so had a reason.

    Args:
        against: the model id of the champion it was judged against, None if there was none.
        reason: a sentence, kept with the version.

    Raises:
        TransientSourceError: the store is locked or does not answer; asking again is safe.
        SourceError: the store refuses.
    """
    with hold_store(resolve_tracking_uri()) as client:
        standing = _Standing.read(client, cab)
        champion = standing.champion
        # One that is not of this pipeline has no id, and no candidate was judged against it.
        held = standing.ids.get(champion, champion) if champion else None
        if held == model_id:
            return _say_is_already(str(champion))
        found = standing.versions.get(version)
        if found is None:
            said = f"version {version} was deleted in MLflow: it is no champion."
            return Promotion(is_champion=False, sentence=said)
        if ROLLED_BACK in found.tags:
            why = f"this training was champion before, and was {found.tags[ROLLED_BACK]}"
        elif held != against:
            now = f"version {champion} ({held}) is champion" if held else "there is none"
            why = f"it was judged against {against or 'no champion'}, and {now} now"
        else:
            change = standing.promote(GATE, version, reason)
            return Promotion(is_champion=True, sentence=change.describe())
        sentence = f"version {version} stays a candidate: {why}. To have it all the same: "
        sentence += f"{name_command(f'promote {version}', cab)}."
        verdicts = list_records(found, VERDICT)
        if verdicts and _find_last(standing.changes, version) is None:
            record = {**verdicts[-1], STAYS: sentence}
            write_record(client, found, VERDICT, len(verdicts), record)
    return Promotion(is_champion=False, sentence=sentence)


def promote(cab: Cab, reference: str) -> Promotion:
    """Make a version champion, as a person wants it.

    Args:
        reference: its number, or what else `find_model` finds a version by.

    Raises:
        InputError: there is no such version, or it is of another cab type.
        ModelError: it holds no model of ours that can be loaded.
        TransientSourceError, SourceError: the store fails.
    """
    number = find_model(reference, cab).version
    if number is None:
        raise InputError(
            f"model {reference} is not registered",
            f"give the number of a version that {name_command('history', cab)} lists",
        )
    with hold_store(resolve_tracking_uri()) as client:
        standing = _Standing.read(client, cab)
        if standing.champion == number:
            return _say_is_already(number)
        standing.leave_to_people(f"replaced with version {number}")
        change = standing.promote(PROMOTE, number, "Promoted by hand.")
    return Promotion(is_champion=True, sentence=change.describe())


def rollback(cab: Cab, from_version: str | None = None) -> Promotion:
    """Make the previous champion champion again, and so on back with each call.

    Args:
        from_version: do nothing unless this is the champion, so that a repeated call rolls back
            once.

    Raises:
        InputError: no champion was before it that still exists.
        ModelError: the previous one cannot be loaded.
        TransientSourceError, SourceError: the store fails.
    """
    uri = resolve_tracking_uri()
    if not is_store_there(uri):
        raise InputError(
            f"nothing is registered in {hide_credentials(uri)}, which is not there",
            "train a model first, such as with `python orchestrate.py`",
        )
    with hold_store(uri) as client:
        standing = _Standing.read(client, cab)
        champion, earlier = standing.champion, standing.earlier
        if from_version not in (None, champion):
            now = f"version {champion} is champion" if champion else "there is no champion"
            said = f"{now}, not version {from_version}: nothing was rolled back."
            return Promotion(is_champion=False, sentence=said)
        passed: list[str] = []
        while earlier and (earlier[-1] not in standing.versions or earlier[-1] == champion):
            if earlier[-1] not in (champion, *passed):
                passed.append(earlier[-1])
            earlier = earlier[:-1]
        past = f", past {' and '.join(passed)}, deleted in MLflow" if passed else ""
        if not earlier:
            before = f" before version {champion}" if champion else ""
            raise InputError(
                f"{cab.name} has had no champion{before}{past}, so there is nothing to roll back "
                "to",
                f"{name_command('history', cab)} lists what can be promoted",
            )
        target = earlier[-1]
        load_version(client, uri, standing.versions[target], cab)
        standing.leave_to_people("rolled back")
        change = standing.crown(ROLLBACK, target, f"Rolled back by hand{past}.", earlier[:-1])
    return Promotion(is_champion=True, sentence=change.describe(past))


def read_history(cab: Cab) -> History:
    """Look all of it up; nothing of a store that is not there.

    Raises:
        InputError: the address of the store is wrong.
        TransientSourceError, SourceError: the store fails.
    """
    uri = resolve_tracking_uri()
    store = hide_credentials(uri)
    if not is_store_there(uri):
        return History(cab.name, store, None, (), ())
    with reach_store(uri) as client:
        standing = _Standing.read(client, cab)
        runs = _find_runs(client, cab)
    periods = standing.list_periods()
    versions = [
        _describe(uri, version, standing.ids[number], runs.get(version.run_id or ""), periods)
        for number, version in sorted(standing.versions.items(), key=lambda each: int(each[0]))
    ]
    return History(cab.name, store, standing.champion, tuple(versions), tuple(standing.changes))


def read_past(cab: Cab, before: Month, *, is_synthetic: bool) -> list[dict[str, Any]]:
    """Return, for each validation month before a month, the version that speaks for it.

    That is one which was champion, else one that was not refused, else any; the last of those.

    Args:
        is_synthetic: whether versions of made-up trips are looked for, or of real ones.

    Returns:
        The report's `past`: month, rmse, version and model id, the oldest month first.

    Raises:
        InputError, TransientSourceError, SourceError: as `read_history`.
    """
    known = [
        each
        for each in read_history(cab).versions
        if each.validated_on and each.rmse is not None and each.validated_on < str(before)
        if each.is_synthetic == is_synthetic
    ]
    known.sort(key=lambda each: (bool(each.periods), each.verdict != NOT_PROMOTED))
    best = {each.validated_on: each for each in known}
    return [
        {"month": month, "rmse": each.rmse, "version": each.version, "model_id": each.model_id}
        for month, each in sorted(best.items())
    ]


def _say_is_already(number: str) -> Promotion:
    said = f"version {number} is champion already: nothing was changed."
    return Promotion(is_champion=True, sentence=said)


def _describe_user() -> str:
    """Return who runs this, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = UNKNOWN
    return f"{user}@{socket.gethostname()}"


def _read_change(number: str, record: dict[str, Any]) -> Change:
    try:
        return Change(number, **{**record, "earlier": tuple(record["earlier"])})
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"a tag {CHANGE}* of version {number} of {REGISTERED_MODEL} was changed by somebody "
            f"({describe(error)})",
            "delete it on MLflow's page of that version",
        ) from error


def _identify(client: mlflow.MlflowClient, version: ModelVersion) -> str | None:
    """Return the model id of a version, or of the run that a person registered on MLflow's page."""
    if MODEL_ID in version.tags or not version.run_id:
        return version.tags.get(MODEL_ID)
    run = get_if_there(client.get_run, version.run_id)
    return run.data.tags.get(MODEL_ID) if run else None


def _find_last(changes: Sequence[Change], version: str | None) -> Change | None:
    return next((each for each in reversed(changes) if each.version == version), None)


def _read_changes(versions: Mapping[str, ModelVersion]) -> list[Change]:
    """Return the changes that versions' tags tell of, oldest first.

    Those of one version come in the order of their tags, whatever the clocks said that dated them.
    """
    dated: list[tuple[str, Change]] = []
    for number, version in versions.items():
        at = ""
        for record in list_records(version, CHANGE):
            change = _read_change(number, record)
            at = max(at, change.at)
            dated.append((at, change))
    return [change for _, change in sorted(dated, key=lambda each: each[0])]


def _drop_not_done(changes: Sequence[Change], champion: str | None) -> list[Change]:
    """Return the changes without those whose alias was never set, such as before a crash.

    After such a change the champion before it is champion still. That is so, too, if somebody set
    the alias back on MLflow's page; such a change is dropped with them.
    """
    after = [*(change.previous for change in changes[1:]), champion]
    return [
        change
        for change, now in zip(changes, after, strict=False)
        if now == change.version or now != change.previous
    ]


def _find_runs(client: mlflow.MlflowClient, cab: Cab) -> dict[str, Run]:
    """Return the cab type's runs by id, those that were deleted in MLflow among them."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return {}
    found: Iterator[Run] = _search_all(
        client.search_runs,
        [experiment.experiment_id],
        f"params.cab = '{cab.name}'",
        run_view_type=ViewType.ALL,
    )
    return {run.info.run_id: run for run in found}


def _search_all(search: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
    """Yield what a search of MLflow finds, page after page."""
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token, **named)
        yield from page
        token = page.token
        if not token:
            return


def _describe(
    uri: str,
    version: ModelVersion,
    model_id: str,
    run: Run | None,
    periods: dict[str, list[Period]],
) -> Version:
    params, metrics = (run.data.params, run.data.metrics) if run else ({}, {})
    tags, verdicts = (run.data.tags if run else {}), list_records(version, VERDICT)
    last = verdicts[-1] if verdicts else {}
    verdict = PROMOTED if last.get("is_promoted") else NOT_PROMOTED
    stays = last.get(STAYS)
    return Version(
        version=str(version.version),
        model_id=model_id,
        trained_on=tuple(filter(None, params.get("train_months", "").split(","))),
        validated_on=last.get("month", params.get("validation_month")),
        rmse=last.get("rmse", metrics.get("validation_rmse")),
        verdict=NOT_JUDGED if not last else NOT_PROMOTED if stays else verdict,
        reasons=(stays,) if stays else tuple(last.get("reasons", ())),
        against=last.get("against"),
        run_id=version.run_id,
        page=locate_page(uri, run) if run else None,
        periods=tuple(periods.get(str(version.version), ())),
        is_synthetic=any(
            is_synthetic(tag.removeprefix(HASHED)) for tag in tags if tag.startswith(HASHED)
        ),
    )
