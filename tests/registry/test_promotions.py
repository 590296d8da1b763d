"""The log of promotions against a stack of champions, whatever happened in whatever order."""

import json
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.errors import SourceError
from taxi_duration.registry.promotions import (
    BEGUN,
    DONE,
    DROPPED,
    ELSEWHERE,
    GATE,
    PROMOTE,
    ROLLBACK,
    SEEN,
    Event,
    Period,
    add_what_is_seen,
    begin_event,
    describe_user,
    find_champion,
    find_previous,
    list_passed,
    list_periods,
    make_elsewhere,
    read_events,
    replay,
    write_event,
)

VERSIONS = ["1", "2", "3", "4"]


@dataclass
class Log:
    """A log that is written as commands write it, beside a stack that is kept by pushing and
    popping."""

    events: list[Event] = field(default_factory=list)
    stack: list[str | None] = field(default_factory=list)
    existing: set[str] = field(default_factory=lambda: {*VERSIONS})

    @property
    def champion(self) -> str | None:
        return self.stack[-1] if self.stack else None

    def act(self, kind: str, version: str | None) -> None:
        if kind == "delete":
            self.existing.discard(str(version))
        elif kind == "give up":
            self._add(replace(self._begin(PROMOTE, version), state=DROPPED))
        elif kind == ROLLBACK:
            self._roll_back()
        elif kind == ELSEWHERE:
            if version != self.champion:
                made = make_elsewhere(self.events, version, find_champion(self.events), None)
                self._add(made)
                self.stack.append(version)
        elif version is not None and version != self.champion:
            self._add(replace(self._begin(kind, version), state=DONE))
            self.stack.append(version)

    def _roll_back(self) -> None:
        earlier = self.stack[:-1]
        while earlier and (earlier[-1] == self.champion or earlier[-1] not in self.existing):
            earlier.pop()
        previous = find_previous(replay(self.events), self.existing)
        assert previous == (earlier[-1] if earlier else None)
        if previous is not None:
            self._add(replace(self._begin(ROLLBACK, previous), state=DONE))
            self.stack = earlier

    def _begin(self, kind: str, version: str | None) -> Event:
        return begin_event(self.events, kind, version, self.champion, None, "")

    def _add(self, event: Event) -> None:
        self.events.append(event)


actions = st.tuples(
    st.sampled_from([GATE, PROMOTE, ROLLBACK, ROLLBACK, ELSEWHERE, "delete", "give up"]),
    st.sampled_from([*VERSIONS, None]),
)


@given(st.lists(actions, max_size=30))
def test_a_log_replayed_is_the_stack_that_pushing_and_popping_leaves(
    taken: list[tuple[str, str | None]],
) -> None:
    log = Log()
    for kind, version in taken:
        log.act(kind, version)
        assert replay(log.events) == log.stack
        assert find_champion(log.events) == log.champion
    periods = list_periods(log.events)
    assert [each.version for each in periods if each.until is None] == (
        [log.champion] if log.champion else []
    )
    assert all(each.until for each in periods[:-1])
    tags = dict(write_event("green", event) for event in reversed(log.events))
    tags |= dict([write_event("yellow", begin_event([], GATE, "9", None, None, ""))])
    assert read_events("green", tags) == log.events
    assert add_what_is_seen(log.events, log.champion, None) == log.events


@given(st.lists(actions, min_size=1, max_size=30), st.sampled_from([*VERSIONS, None]))
def test_what_is_shown_ends_with_the_champion_that_the_alias_names(
    taken: list[tuple[str, str | None]], champion: str | None
) -> None:
    log = Log()
    for kind, version in taken:
        log.act(kind, version)
    begun = begin_event(log.events, PROMOTE, "3", log.champion, None, "")
    shown = add_what_is_seen([*log.events, begun], champion, None)
    assert find_champion(shown) == champion
    added = shown[len(log.events) + 1 :]
    is_known = champion in (log.champion, "3")
    assert [event.state for event in added] == ([] if is_known else [SEEN])
    assert shown[len(log.events)].state == (DONE if champion == "3" else BEGUN)


def made(*changes: tuple[str, str | None]) -> list[Event]:
    events: list[Event] = []
    for kind, version in changes:
        event = begin_event(events, kind, version, find_champion(events), None, "")
        events.append(replace(event, at=f"day {len(events) + 1}", state=DONE))
    return events


def test_nothing_was_champion_in_an_empty_log() -> None:
    assert (replay([]), find_champion([]), list_periods([])) == ([], None, [])
    assert (find_previous([], VERSIONS), list_passed([], None)) == (None, [])


def test_a_rollback_passes_over_what_is_deleted_and_times_without_a_champion() -> None:
    events = made((GATE, "1"), (GATE, "2"), (ELSEWHERE, None), (PROMOTE, "3"), (PROMOTE, "4"))
    stack = replay(events)
    assert stack == ["1", "2", None, "3", "4"]
    assert find_previous(stack, {"1", "2", "3", "4"}) == "3"
    assert list_passed(stack, "3") == []
    assert find_previous(stack, {"1", "4"}) == "1"
    assert list_passed(stack, "1") == ["3", "2"]
    assert find_previous(stack, {"4"}) is None
    assert list_passed(stack, None) == ["3", "2", "1"]
    rolled = begin_event(events, ROLLBACK, "1", "4", None, "")
    assert replay([*events, replace(rolled, state=DONE)]) == ["1"]
    assert replay([*events, rolled]) == stack


def test_a_rollback_does_not_go_back_to_the_champion_itself() -> None:
    stack = replay(made((GATE, "1"), (GATE, "2"), (GATE, "1")))
    assert find_previous(stack, {"1"}) is None
    assert list_passed(stack, None) == ["2"]


def test_after_the_alias_was_deleted_a_rollback_goes_to_the_champion_before() -> None:
    stack = replay(made((GATE, "1"), (ELSEWHERE, None)))
    assert find_previous(stack, {"1"}) == "1"


def test_periods_are_from_one_change_to_the_next() -> None:
    events = made((GATE, "1"), (PROMOTE, "2"), (ROLLBACK, "1"), (ELSEWHERE, None), (GATE, "3"))
    assert list_periods(events) == [
        Period("1", "day 1", "day 2"),
        Period("2", "day 2", "day 3"),
        Period("1", "day 3", "day 4"),
        Period("3", "day 5", None),
    ]
    assert list_periods(events[:4])[-1] == Period("1", "day 3", "day 4")


def test_events_tell_what_became_of_the_champion() -> None:
    told = [
        str(each) for each in made((GATE, "1"), (PROMOTE, "2"), (ROLLBACK, "1"), (ELSEWHERE, None))
    ]
    assert told == [
        "version 1 is champion now; there was none.",
        "version 2 is champion now, in place of version 1.",
        "version 1 is champion again, in place of version 2.",
        "there is no champion now; version 1 was it.",
    ]


def test_events_are_numbered_on_and_read_in_the_order_of_their_numbers() -> None:
    events = [replace(event, number=event.number + 9998) for event in made(*[(GATE, "1")] * 3)]
    names = [write_event("green", event)[0] for event in events]
    assert names == ["promotion.green.9999", "promotion.green.10000", "promotion.green.10001"]
    assert read_events("green", dict(map(write_event, ["green"] * 3, reversed(events)))) == events
    assert begin_event(events, GATE, "1", None, None, "").number == 10002


def test_a_long_reason_fits_into_a_tag() -> None:
    event = begin_event([], GATE, "1", None, "green/2023-01-aaaaaaaa", "é" * 9000)
    assert len(write_event("green", event)[1]) < 2000


@pytest.mark.parametrize("value", ["", "{", "[]", "{}", json.dumps({"at": "now"})])
def test_a_tag_that_somebody_changed_is_named(value: str) -> None:
    with pytest.raises(SourceError) as raised:
        read_events("green", {"promotion.green.0007": value, "other": "x"})
    message = str(raised.value)
    assert message.startswith("tag promotion.green.0007 of the registered model is no promotion (")
    assert message.endswith("Delete the tag on MLflow's page of that model.")


def test_a_user_without_a_name_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("no name")

    monkeypatch.setattr("getpass.getuser", fail)
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    assert describe_user() == "unknown@host"
