"""Who was champion when: the log of promotions and what follows from it. No store is asked here.

An event is written as begun, then the alias is set, then the event is written as done: whoever
finds one begun knows what is left to do. Replayed, the events give a stack of champions, of which
a rollback pops the last.
"""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from taxi_duration.errors import SourceError

GATE, PROMOTE, ROLLBACK = "gate", "promote", "rollback"
ELSEWHERE = "elsewhere"
"""Kind of event: the alias was set, or deleted, on MLflow's pages or by another program."""

BEGUN, DONE = "begun", "done"
DROPPED = "dropped"
"""State: begun, and given up, since the champion was another before it was finished."""

SEEN = "seen"
"""State of what was set elsewhere and is in no log yet: the next to write there records it."""

MOST_REASON = 1000
"""Characters; a tag of a registered model has room for 5000."""


@dataclass(frozen=True)
class Event:
    """A change of champion.

    Args:
        number: its place in the log, from 1.
        at: when it was begun, or when it was seen if it was made elsewhere; ISO, UTC.
        version, previous: the champion after and before it, None if there is none.
        model_id: of `version`; None if that is no model of this pipeline.
        reason: a sentence.
        by: user@host; "unknown" of what was made elsewhere.
    """

    number: int
    at: str
    kind: str
    version: str | None
    previous: str | None
    model_id: str | None
    reason: str
    by: str
    state: str = DONE

    def __str__(self) -> str:
        """What it made of the champion, as a sentence.

        >>> print(Event(2, "2026-01-02T03:04:05+00:00", GATE, "3", "2", None, "", ""))
        version 3 is champion now, in place of version 2.
        """
        if self.version is None:
            return f"there is no champion now; version {self.previous} was it."
        again = "again" if self.kind == ROLLBACK else "now"
        before = f", in place of version {self.previous}" if self.previous else "; there was none"
        return f"version {self.version} is champion {again}{before}."


@dataclass(frozen=True)
class Period:
    """How long a version was champion; `until` is None while it is."""

    version: str
    since: str
    until: str | None


def write_event(cab: str, event: Event) -> tuple[str, str]:
    """An event as a tag: its name, such as `promotion.green.0001`, and its value."""
    content = asdict(event)
    number = content.pop("number")
    return f"promotion.{cab}.{number:04d}", json.dumps(content, ensure_ascii=False)


def read_events(cab: str, tags: Mapping[str, str]) -> list[Event]:
    """The events of a cab type among tags, oldest first.

    Raises:
        SourceError: a tag of that name is no event.
    """
    events = []
    for name, value in tags.items():
        named = re.fullmatch(rf"promotion\.{re.escape(cab)}\.([0-9]{{4,}})", name)
        if named is None:
            continue
        try:
            events.append(Event(int(named[1]), **json.loads(value)))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"tag {name} of the registered model is no promotion ({error}): somebody changed "
                "it. Delete the tag on MLflow's page of that model."
            ) from error
    return sorted(events, key=lambda event: event.number)


def begin_event(
    events: Sequence[Event],
    kind: str,
    version: str | None,
    previous: str | None,
    model_id: str | None,
    reason: str,
) -> Event:
    """The next event of a log, made here and now."""
    number = events[-1].number + 1 if events else 1
    at, reason = datetime.now(UTC).isoformat(timespec="seconds"), reason[:MOST_REASON]
    return Event(number, at, kind, version, previous, model_id, reason, describe_user(), BEGUN)


def describe_user() -> str:
    """Who runs this, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def replay(events: Sequence[Event]) -> list[str | None]:
    """The stack that a log leaves: champions, oldest first, the present one last.

    None stands for a time without one. Any change pushes, but a rollback pops down to the version
    it went back to.
    """
    stack: list[str | None] = []
    for event in events:
        if event.state not in (DONE, SEEN):
            continue
        earlier = stack[:-1]
        if event.kind == ROLLBACK and event.version in earlier:
            del stack[len(earlier) - earlier[::-1].index(event.version) :]
        else:
            stack.append(event.version)
    return stack


def find_champion(events: Sequence[Event]) -> str | None:
    """The champion that a log ends with."""
    stack = replay(events)
    return stack[-1] if stack else None


def find_latest(events: Sequence[Event]) -> Event:
    """The event that made the champion what it is."""
    return [event for event in events if event.state in (DONE, SEEN)][-1]


def find_previous(stack: Sequence[str | None], existing: Container[str]) -> str | None:
    """The version that a rollback goes back to; None if no earlier champion still exists."""
    for version in reversed(stack[:-1]):
        if version not in (None, stack[-1]) and version in existing:
            return version
    return None


def list_passed(stack: Sequence[str | None], version: str | None) -> list[str]:
    """The versions that a rollback to `version`, or in vain if None, passes over, newest first."""
    passed: list[str] = []
    for each in reversed(stack[:-1]):
        if each is not None and each == version:
            break
        if each not in (None, stack[-1], *passed):
            passed.append(str(each))
    return passed


def add_what_is_seen(
    events: Sequence[Event], champion: str | None, model_id: str | None
) -> list[Event]:
    """A log as it is shown beside the champion that the alias names, which is always right.

    What was begun counts as done if the alias is set already; what the log knows nothing of was
    set elsewhere.
    """
    shown = [
        replace(event, state=DONE) if event.state == BEGUN and event.version == champion else event
        for event in events
    ]
    recorded = find_champion(shown)
    if recorded != champion:
        shown.append(replace(make_elsewhere(shown, champion, recorded, model_id), state=SEEN))
    return shown


def make_elsewhere(
    events: Sequence[Event], champion: str | None, recorded: str | None, model_id: str | None
) -> Event:
    """The event of a champion that is another than the one the log ends with."""
    done = "deleted" if champion is None else "set"
    reason = f"The alias was found {done}, by no command or run of this pipeline."
    event = begin_event(events, ELSEWHERE, champion, recorded, model_id, reason)
    return replace(event, state=DONE, by="unknown")


def list_periods(events: Sequence[Event]) -> list[Period]:
    """Who was champion when, oldest first."""
    periods: list[Period] = []
    for event in events:
        if event.state not in (DONE, SEEN):
            continue
        if periods and periods[-1].until is None:
            periods[-1] = replace(periods[-1], until=event.at)
        if event.version is not None:
            periods.append(Period(event.version, event.at, None))
    return periods
