"""Champions in a real MLflow store: promoted once, rolled back, and told truly."""

import json
from pathlib import Path

import mlflow
import pytest

from taxi_duration import InputError, ModelError, SourceError
from taxi_duration.data.month import Month
from taxi_duration.registry.champion import (
    Period,
    promote,
    promote_candidate,
    read_history,
    read_past,
    rollback,
)
from taxi_duration.registry.resolve import load_champion
from taxi_duration.registry.runs import REGISTERED_MODEL, describe_verdict, list_records
from tests.support.registered import GATE, GREEN, IDS, RMSE, YELLOW, Registered, read_aliases

CANDIDATES = {"candidate": "3", "candidate-yellow": "4"}
"""The aliases of the store before anything is champion."""
OF_ELSEWHERE = "`python -m taxi_duration promote 3`."


def let_gate(version: str, against: str | None) -> str:
    """Have the gate promote a version that it judged against another, and say what it says."""
    of = IDS[against] if against else None
    told = promote_candidate(GREEN, version, IDS[version], of, f"Reason {version}.")
    assert told.is_champion == (read_history(GREEN).champion == version)
    return str(told)


def tell_changes() -> list[tuple[str, str, str | None]]:
    changes = read_history(GREEN).changes
    return [(change.kind, change.version, change.previous) for change in changes]


def look(client: mlflow.MlflowClient) -> tuple[dict[str, str], list[dict[str, str]]]:
    """All that promotions change."""
    found = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    return read_aliases(client), [dict(each.tags) for each in found]


def set_elsewhere(client: mlflow.MlflowClient, version: str, alias: str = "champion") -> None:
    client.set_registered_model_alias(REGISTERED_MODEL, alias, version)


def test_the_gate_promotes_a_version_once_and_its_tag_says_so(
    registry: mlflow.MlflowClient,
) -> None:
    assert read_aliases(registry) == CANDIDATES
    assert let_gate("1", None) == "version 1 is champion now; there was none."
    assert let_gate("2", "1") == "version 2 is champion now, in place of version 1."
    assert read_aliases(registry) == {**CANDIDATES, "champion": "2"}
    change = json.loads(registry.get_model_version(REGISTERED_MODEL, "2").tags["champion.1"])
    assert change.pop("at").endswith("+00:00")
    assert "@" in change.pop("by")
    assert change == {"kind": "gate", "previous": "1", "reason": "Reason 2.", "earlier": ["1"]}
    before = look(registry)
    for against in ("1", None):
        assert let_gate("2", against) == "version 2 is champion already: nothing was changed."
    assert look(registry) == before


def test_a_training_that_a_person_rolled_back_is_left_to_people(
    registry: mlflow.MlflowClient,
) -> None:
    let_gate("1", None)
    let_gate("2", "1")
    rollback(GREEN)
    before = look(registry)
    told = let_gate("2", "1")
    assert told.startswith(
        "version 2 stays a candidate: this training was champion before, and was rolled back by "
    )
    assert told.endswith("To have it all the same: `python -m taxi_duration promote 2`.")
    assert look(registry) == before
    # Whoever promotes it again takes that back.
    promote(GREEN, "2")
    let_gate("3", "2")
    assert let_gate("2", "3") == "version 2 is champion now, in place of version 3."
    # Nor does the gate undo a promotion by hand.
    promote(GREEN, "1")
    told = let_gate("2", "1")
    assert ": this training was champion before, and was replaced with version 1 by " in told


@pytest.mark.parametrize(
    ("champion", "against", "why"),
    [
        ("2", "1", f"judged against {IDS['1']}, and version 2 ({IDS['2']}) is champion now"),
        ("1", None, f"judged against no champion, and version 1 ({IDS['1']}) is champion now"),
        (None, "1", f"judged against {IDS['1']}, and there is none now"),
    ],
)
def test_nothing_changes_if_the_champion_is_another_than_the_one_it_was_judged_against(
    registry: mlflow.MlflowClient, champion: str | None, against: str | None, why: str
) -> None:
    if champion:
        promote(GREEN, champion)
    before = look(registry)
    told = f"version 3 stays a candidate: it was {why}. To have it all the same: {OF_ELSEWHERE}"
    assert let_gate("3", against) == told
    assert look(registry) == before


def test_why_a_better_version_stays_a_candidate_is_told_by_history(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    registered.log("3", {**GATE, "is_promoted": True, "reasons": []})
    promote(GREEN, "2")
    told = let_gate("3", "1")
    found = read_history(GREEN).find("3")
    assert found is not None
    assert (found.verdict, found.reasons) == ("not promoted", (told,))
    promote(GREEN, "3")
    found = read_history(GREEN).find("3")
    assert found is not None
    assert (found.verdict, found.reasons) == ("promoted", ())


def test_the_gate_replaces_no_version_that_it_could_not_judge_against(
    registry: mlflow.MlflowClient, tmp_path: Path
) -> None:
    other = registry.create_model_version(REGISTERED_MODEL, tmp_path.as_uri())
    set_elsewhere(registry, other.version)
    said = "it was judged against no champion, and version 5 (5) is"
    assert let_gate("1", None).startswith(f"version 1 stays a candidate: {said}")
    registry.delete_model_version(REGISTERED_MODEL, "2")
    assert let_gate("2", None) == "version 2 was deleted in MLflow: it is no champion."
    assert tell_changes() == []


def test_a_person_promotes_any_version_and_once(registry: mlflow.MlflowClient) -> None:
    assert str(promote(GREEN, "3")) == "version 3 is champion now; there was none."
    assert str(promote(GREEN, IDS["1"])) == "version 1 is champion now, in place of version 3."
    before = look(registry)
    assert str(promote(GREEN, "1")) == "version 1 is champion already: nothing was changed."
    assert look(registry) == before
    assert tell_changes() == [("promote", "3", None), ("promote", "1", "3")]


@pytest.mark.parametrize("version", ["x", "0", "-1", "\u00b2", "9", "4"])
def test_a_version_that_cannot_be_champion_is_refused_and_nothing_changes(
    registry: mlflow.MlflowClient, version: str
) -> None:
    with pytest.raises(InputError, match="another cab type" if version == "4" else "neither"):
        promote(GREEN, version)
    assert look(registry)[0] == CANDIDATES
    assert tell_changes() == []


def test_a_version_that_does_not_load_is_refused_before_anything_changes(
    registry: mlflow.MlflowClient,
) -> None:
    promote(GREEN, "1")
    promote(GREEN, "2")
    run_id = registry.get_model_version(REGISTERED_MODEL, "1").run_id
    assert run_id
    registry.delete_logged_model(registry.get_run(run_id).outputs.model_outputs[-1].model_id)
    before = look(registry)
    for act in (lambda: promote(GREEN, "1"), lambda: rollback(GREEN)):
        with pytest.raises(ModelError, match=r"version 1 of .* is deleted"):
            act()
    assert look(registry) == before


def test_rollback_goes_back_step_by_step_as_far_as_there_is_one(
    registry: mlflow.MlflowClient,
) -> None:
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    assert str(rollback(GREEN)) == "version 2 is champion again, in place of version 3."
    promote(GREEN, "3")
    assert str(rollback(GREEN)) == "version 2 is champion again, in place of version 3."
    assert str(rollback(GREEN)) == "version 1 is champion again, in place of version 2."
    with pytest.raises(InputError, match="green has had no champion before version 1, so there"):
        rollback(GREEN)
    assert read_aliases(registry)["champion"] == "1"
    assert tell_changes()[-1] == ("rollback", "1", "2")


def test_rollback_passes_over_versions_that_were_deleted(registry: mlflow.MlflowClient) -> None:
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    registry.delete_model_version(REGISTERED_MODEL, "2")
    said = "version 1 is champion again, in place of version 3, past 2, deleted in MLflow."
    assert str(rollback(GREEN)) == said
    for version in ("3", "1"):
        promote(GREEN, version)
    registry.delete_model_version(REGISTERED_MODEL, "3")
    with pytest.raises(InputError, match="past 3, deleted in MLflow, so there is nothing"):
        rollback(GREEN)


def test_rollback_from_a_version_rolls_back_once(registry: mlflow.MlflowClient) -> None:
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    assert rollback(GREEN, "3").is_champion
    told = rollback(GREEN, "3")
    said = "version 2 is champion, not version 3: nothing was rolled back."
    assert (told.is_champion, str(told)) == (False, said)
    assert read_aliases(registry)["champion"] == "2"


def test_what_was_set_on_mlflows_page_counts(registry: mlflow.MlflowClient) -> None:
    promote(GREEN, "1")
    set_elsewhere(registry, "2")
    history = read_history(GREEN)
    first, second = (history.find(number) for number in ("1", "2"))
    assert first is not None
    assert second is not None
    (change,) = history.changes
    assert (change.kind, change.version) == ("promote", "1")
    assert first.periods == (Period(change.at, "unknown"),)
    assert second.periods == (Period("unknown", None),)
    assert str(rollback(GREEN)) == "version 1 is champion again, in place of version 2."
    set_elsewhere(registry, "2")
    assert let_gate("3", "2") == "version 3 is champion now, in place of version 2."
    assert str(rollback(GREEN)) == "version 2 is champion again, in place of version 3."
    registry.delete_registered_model_alias(REGISTERED_MODEL, "champion")
    assert read_history(GREEN).champion is None
    assert str(promote(GREEN, "3")) == "version 3 is champion now; there was none."


def test_each_cab_type_has_a_champion_of_its_own(registry: mlflow.MlflowClient) -> None:
    promote(GREEN, "1")
    assert str(promote(YELLOW, "4")) == "version 4 is champion now; there was none."
    assert read_aliases(registry) == {**CANDIDATES, "champion": "1", "champion-yellow": "4"}
    yellow = read_history(YELLOW)
    assert ([each.version for each in yellow.versions], len(yellow.changes)) == (["4"], 1)
    set_elsewhere(registry, "4")
    assert load_champion(GREEN) is None
    assert read_history(GREEN).champion is None


def test_history_has_every_version_and_when_it_was_champion(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    registered.log("2", GATE)
    let_gate("1", None)
    let_gate("2", "1")
    rollback(GREEN)
    history = read_history(GREEN)
    at = [change.at for change in history.changes]
    first, second, third = history.versions
    assert first.periods == (Period(at[0], at[1]), Period(at[2], None))
    assert (second.periods, third.periods) == ((Period(at[1], at[2]),), ())
    assert (second.trained_on, second.validated_on) == (("2023-02",), "2023-03")
    assert (second.rmse, second.against) == (RMSE["2"], IDS["1"])
    assert (second.verdict, second.reasons) == ("not promoted", tuple(GATE["reasons"]))
    assert (third.verdict, third.reasons) == ("not judged", ())


def test_a_version_that_a_person_registered_of_our_run_is_one(
    registry: mlflow.MlflowClient,
) -> None:
    of = registry.get_model_version(REGISTERED_MODEL, "2")
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id)
    assert promote(GREEN, "5").is_champion
    found = read_history(GREEN).find("5")
    assert found is not None
    assert (found.model_id, found.verdict) == (IDS["2"], "not judged")


def test_past_is_the_version_to_speak_for_each_earlier_month(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    months = read_past(GREEN, Month(2023, 4), is_synthetic=False)
    assert months == [
        {"month": "2023-02", "rmse": RMSE["1"], "version": "1", "model_id": IDS["1"]},
        {"month": "2023-03", "rmse": RMSE["2"], "version": "2", "model_id": IDS["2"]},
    ]
    assert read_past(GREEN, Month(2023, 4), is_synthetic=True) == []
    # A later one of the same month speaks for it, unless it was refused or never champion.
    of = registry.get_model_version(REGISTERED_MODEL, "2")
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id)
    assert read_past(GREEN, Month(2023, 4), is_synthetic=False)[1]["version"] == "5"
    promote(GREEN, "2")
    assert read_past(GREEN, Month(2023, 4), is_synthetic=False)[1]["version"] == "2"


def test_a_tag_that_somebody_changed_is_named(registry: mlflow.MlflowClient) -> None:
    for text in ("{", "[]", "7", '{"kind": 3}'):
        registry.set_model_version_tag(REGISTERED_MODEL, "1", "champion.1", text)
        with pytest.raises(SourceError, match="of version 1 of nyc-taxi-duration was changed"):
            read_history(GREEN)


def test_verdicts_are_records_of_the_one_version_of_a_training(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    better = {**GATE, "is_promoted": True, "reasons": []}
    for gate in (None, GATE, GATE, better):  # by a backfill, a run, its repeat, and another run
        assert registered.log("2", gate) == "2"
    version = registry.get_model_version(REGISTERED_MODEL, "2")
    first, second = list_records(version, "verdict.")
    assert first.pop("at").endswith("+00:00")
    report = registered.describe("2", GATE)
    assert report.gate
    assert first == describe_verdict(report, report.gate) == {
        "month": "2023-03", "rmse": RMSE["2"], "is_promoted": False, "reasons": GATE["reasons"],
        "against": IDS["1"], "against_version": "1",
        "champion_rmse": 5.5, "improvement": 0.0125, "lowest_improvement": -0.25,
    }  # fmt: skip
    assert second["is_promoted"] is True
    found = read_history(GREEN).find("2")
    assert found is not None
    assert (found.verdict, found.reasons) == ("promoted", ())
    long = {**GATE, "reasons": ["It is worse.", "x" * 9000, "It is older."]}
    assert registered.log("2", long) == "2"
    version = registry.get_model_version(REGISTERED_MODEL, "2")
    last = list_records(version, "verdict.")[-1]
    assert last["reasons"] == ["It is worse.", "2 more in its report."]


def test_the_last_change_of_a_version_is_that_of_its_last_tag(
    registry: mlflow.MlflowClient,
) -> None:
    for version in ("2", "1", "2"):
        promote(GREEN, version)
    first = registry.get_model_version(REGISTERED_MODEL, "2").tags["champion.1"]
    late = json.dumps({**json.loads(first), "at": "2999-01-01T00:00:00+00:00"})
    registry.set_model_version_tag(REGISTERED_MODEL, "2", "champion.1", late)
    change = read_history(GREEN).find_change("2")
    assert change is not None
    assert change.previous == "1"
