"""The registry over a real MLflow store: promoted once, rolled back, and told truly."""

import json
from pathlib import Path

import mlflow
import pytest
from taxi_duration.registry.mlflow_run import collect_verdict
from taxi_duration.registry.promotions import Period
from taxi_duration.registry.registry import (
    find_version,
    load_champion,
    load_version,
    promote,
    promote_candidate,
    read_history,
    read_past,
    rollback,
    settle,
)
from taxi_duration.registry.tracking import REGISTERED_MODEL

from taxi_duration import InputError, ModelError, SourceError
from taxi_duration.data.month import Month
from taxi_duration.model.directory import identify_training, load_model
from taxi_duration.registry import ledger
from tests.support.months import FEBRUARY
from tests.support.registered import (
    GATE,
    GREEN,
    IDS,
    RMSE,
    YELLOW,
    Registered,
    read_aliases,
    read_tags,
)

CANDIDATES = {"candidate": "3", "candidate-yellow": "4"}
"""The aliases of the store before anything is champion."""


def let_gate(version: str, against: str | None) -> str:
    """Have the gate promote a version that it judged against another, and say what it says."""
    of = IDS[against] if against else None
    told = promote_candidate(GREEN, version, IDS[version], of, f"Reason {version}.")
    assert told.is_champion == (read_history(GREEN).champion == version)
    return str(told)


def tell_events() -> list[tuple[str, str | None, str | None, str]]:
    return [
        (event.kind, event.version, event.previous, event.state)
        for event in read_history(GREEN).events
    ]


def look(client: mlflow.MlflowClient) -> tuple[dict[str, str], dict[str, str]]:
    """All that promotions change."""
    return read_aliases(client), read_tags(client)


def set_elsewhere(client: mlflow.MlflowClient, version: str, alias: str = "champion") -> None:
    client.set_registered_model_alias(REGISTERED_MODEL, alias, version)


def test_candidates_have_an_alias_for_each_cab_type(registry: mlflow.MlflowClient) -> None:
    assert look(registry) == (CANDIDATES, {})


def test_the_gate_promotes_a_version_and_says_so_in_the_log(registry: mlflow.MlflowClient) -> None:
    assert let_gate("1", None) == "version 1 is champion now; there was none."
    assert let_gate("2", "1") == "version 2 is champion now, in place of version 1."
    aliases, tags = look(registry)
    assert aliases == {**CANDIDATES, "champion": "2"}
    assert [*tags] == ["promotion.green.0001", "promotion.green.0002"]
    event = json.loads(tags["promotion.green.0002"])
    assert event.pop("at").endswith("+00:00")
    assert "@" in event.pop("by")
    assert event == {
        "kind": "gate", "version": "2", "previous": "1", "model_id": IDS["2"],
        "reason": "Reason 2.", "state": "done",
    }  # fmt: skip


def test_the_gate_promotes_a_model_once_however_often_it_is_asked(
    registry: mlflow.MlflowClient,
) -> None:
    let_gate("1", None)
    first = let_gate("2", "1")
    before = look(registry)
    assert let_gate("2", "1") == let_gate("2", None) == first
    assert look(registry) == before


def test_a_model_that_a_person_rolled_back_is_not_promoted_by_a_repeated_run(
    registry: mlflow.MlflowClient,
) -> None:
    let_gate("1", None)
    let_gate("2", "1")
    rollback(GREEN)
    before = look(registry)
    since = json.loads(before[1]["promotion.green.0002"])["at"]
    assert let_gate("2", "1") == (
        f"version 2 stays a candidate: this training was champion before, since {since}, and was "
        "replaced. To have it all the same: `python -m taxi_duration promote 2`."
    )
    assert look(registry) == before


def test_a_training_that_was_rolled_back_is_not_promoted_against_another_champion(
    registry: mlflow.MlflowClient,
) -> None:
    # Version 5 is that of version 3 judged anew, or made by other code: another model id.
    of = registry.get_model_version(REGISTERED_MODEL, "3")
    tags = {"model_id": "green/2023-03-eeeeeeee", "training": of.tags["training"]}
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id, tags=tags)
    let_gate("1", None)
    let_gate("2", "1")
    let_gate("3", "2")
    rollback(GREEN)
    rollback(GREEN)
    told = promote_candidate(GREEN, "5", tags["model_id"], IDS["1"], "Better.")
    assert not told.is_champion
    assert str(told).startswith("version 5 stays a candidate: this training was champion before, ")
    assert read_history(GREEN).champion == "1"
    found = read_history(GREEN).find("5")
    assert found is not None
    assert (found.verdict, found.reasons) == ("not promoted", (str(told),))


def test_other_code_of_the_champions_training_may_take_its_place(
    registry: mlflow.MlflowClient,
) -> None:
    of = registry.get_model_version(REGISTERED_MODEL, "1")
    tags = {"model_id": "green/2023-01-eeeeeeee", "training": of.tags["training"]}
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id, tags=tags)
    let_gate("1", None)
    told = promote_candidate(GREEN, "5", tags["model_id"], IDS["1"], "Better.")
    assert str(told) == "version 5 is champion now, in place of version 1."


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
    assert let_gate("3", against) == (
        f"version 3 stays a candidate: it was {why}. To have it all the same: "
        "`python -m taxi_duration promote 3`."
    )
    assert look(registry) == before


def test_the_gate_replaces_no_version_that_it_could_not_judge_against(
    registry: mlflow.MlflowClient, tmp_path: Path
) -> None:
    other = registry.create_model_version(REGISTERED_MODEL, tmp_path.as_uri())
    set_elsewhere(registry, other.version)
    assert let_gate("1", None).startswith(
        "version 1 stays a candidate: it was judged against no champion, and version 5 (5) is"
    )
    assert tell_events() == [("elsewhere", "5", None, "done")]


def test_a_candidate_that_was_deleted_is_no_champion(registry: mlflow.MlflowClient) -> None:
    registry.delete_model_version(REGISTERED_MODEL, "2")
    assert let_gate("2", None) == "version 2 was deleted in MLflow: it is no champion."
    assert tell_events() == []


def test_a_person_promotes_any_version_and_once(registry: mlflow.MlflowClient) -> None:
    assert str(promote(GREEN, "03")) == "version 3 is champion now; there was none."
    assert str(promote(GREEN, "1")) == "version 1 is champion now, in place of version 3."
    before = look(registry)
    assert str(promote(GREEN, "1")) == "version 1 is champion already: nothing was changed."
    assert look(registry) == before
    assert tell_events() == [("promote", "3", None, "done"), ("promote", "1", "3", "done")]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("x", "version 'x' is no version: give its number, such as 3."),
        ("0", "version '0' is no version: give its number, such as 3."),
        ("-1", "version '-1' is no version: give its number, such as 3."),
        ("²", "version '²' is no version: give its number, such as 3."),
        (
            "9",
            "version 9 of nyc-taxi-duration is not in {store}: `python -m taxi_duration history` "
            "lists those that are.",
        ),
        (
            "4",
            "version 4 of nyc-taxi-duration is of another cab type than green: give that one with "
            "--cab, or another version.",
        ),
    ],
)
def test_a_version_that_cannot_be_champion_is_refused_and_nothing_changes(
    registry: mlflow.MlflowClient, tmp_path: Path, version: str, message: str
) -> None:
    with pytest.raises(InputError) as raised:
        promote(GREEN, version)
    assert str(raised.value) == message.format(store=f"sqlite:///{tmp_path}/mlflow.db")
    assert look(registry) == (CANDIDATES, {})


def test_a_version_that_does_not_load_is_refused_before_anything_changes(
    registry: mlflow.MlflowClient, tmp_path: Path
) -> None:
    registry.create_model_version(REGISTERED_MODEL, tmp_path.as_uri())
    run = registry.get_model_version(REGISTERED_MODEL, "1").run_id
    assert run
    (output,) = registry.get_run(run).outputs.model_outputs
    registry.delete_logged_model(output.model_id)
    for version, why in (
        ("5", "no run of this pipeline logged it."),
        ("1", "its run or its model is deleted."),
    ):
        with pytest.raises(ModelError) as raised:
            promote(GREEN, version)
        assert str(raised.value) == (
            f"version {version} of nyc-taxi-duration cannot be loaded: {why} Give one that "
            "`python -m taxi_duration history` lists, or train the model again."
        )
    assert look(registry) == (CANDIDATES, {})
    set_elsewhere(registry, "1")
    promote(GREEN, "2")
    with pytest.raises(ModelError, match="version 1 of nyc-taxi-duration cannot be loaded: its "):
        rollback(GREEN)
    assert read_aliases(registry)["champion"] == "2"


def test_rollback_goes_back_step_by_step_as_far_as_there_is_one(
    registry: mlflow.MlflowClient,
) -> None:
    with pytest.raises(InputError) as raised:
        rollback(GREEN)
    assert str(raised.value) == (
        "green has had no champion: there is nothing to roll back to; "
        "`python -m taxi_duration history` lists what can be promoted."
    )
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    assert str(rollback(GREEN)) == "version 2 is champion again, in place of version 3."
    assert str(rollback(GREEN)) == "version 1 is champion again, in place of version 2."
    before = look(registry)
    with pytest.raises(InputError, match=r"^green has had no champion before version 1: there is"):
        rollback(GREEN)
    assert look(registry) == before
    promote(GREEN, "3")
    assert str(rollback(GREEN)) == "version 1 is champion again, in place of version 3."


def test_rollback_passes_over_versions_that_were_deleted(registry: mlflow.MlflowClient) -> None:
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    registry.delete_model_version(REGISTERED_MODEL, "2")
    past = "past version 2, which is deleted in MLflow"
    assert str(rollback(GREEN)) == f"version 1 is champion again, in place of version 3, {past}."
    assert read_history(GREEN).events[-1].reason == f"Rolled back by hand, {past}."
    promote(GREEN, "3")
    registry.delete_model_version(REGISTERED_MODEL, "1")
    with pytest.raises(InputError) as raised:
        rollback(GREEN)
    assert str(raised.value).startswith(
        "green has had no champion before version 3, past version 1, which is deleted in MLflow: "
        "there is nothing to roll back to"
    )


def test_rollback_from_a_version_rolls_back_once(registry: mlflow.MlflowClient) -> None:
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    assert rollback(GREEN, "3").is_champion
    again = rollback(GREEN, "3")
    assert (again.is_champion, str(again)) == (
        False, "version 2 is champion, not version 3: nothing was rolled back.",
    )  # fmt: skip
    for wrong in ("latest", ""):
        with pytest.raises(InputError, match=f"version '{wrong}' is no version"):
            rollback(GREEN, wrong)
    registry.delete_registered_model_alias(REGISTERED_MODEL, "champion")
    assert str(rollback(GREEN, "2")) == (
        "there is no champion, not version 2: nothing was rolled back."
    )


def test_what_was_set_elsewhere_is_shown_and_recorded_by_the_next_that_writes(
    registry: mlflow.MlflowClient,
) -> None:
    promote(GREEN, "1")
    set_elsewhere(registry, "3")
    before = look(registry)
    history = read_history(GREEN)
    assert history.champion == "3"
    assert tell_events() == [("promote", "1", None, "done"), ("elsewhere", "3", "1", "seen")]
    assert look(registry) == before
    assert str(rollback(GREEN)) == "version 1 is champion again, in place of version 3."
    _, set_by_hand, _ = read_history(GREEN).events
    assert (set_by_hand.kind, set_by_hand.by, set_by_hand.state) == ("elsewhere", "unknown", "done")
    assert set_by_hand.model_id == IDS["3"]
    assert set_by_hand.reason == ("The alias was found set, by no command or run of this pipeline.")
    registry.delete_registered_model_alias(REGISTERED_MODEL, "champion")
    assert load_champion(GREEN) is None
    assert read_history(GREEN).champion is None
    assert str(promote(GREEN, "2")) == "version 2 is champion now; there was none."
    assert tell_events()[3:] == [
        ("elsewhere", None, "1", "done"), ("promote", "2", None, "done"),
    ]  # fmt: skip
    assert rollback(GREEN).is_champion
    assert read_history(GREEN).champion == "1"


def test_what_was_begun_is_given_up_if_another_was_set_since(
    registry: mlflow.MlflowClient,
) -> None:
    promote(GREEN, "1")
    (name,) = read_tags(registry)
    begun = {**json.loads(read_tags(registry)[name]), "version": "2", "previous": "1"}
    begun["state"] = "begun"
    tag = "promotion.green.0002"
    registry.set_registered_model_tag(REGISTERED_MODEL, tag, json.dumps(begun))
    set_elsewhere(registry, "3")
    assert [event.state for event in read_history(GREEN).events] == ["done", "begun", "seen"]
    settle(GREEN)
    assert tell_events() == [
        ("promote", "1", None, "done"),
        ("promote", "2", "1", "dropped"),
        ("elsewhere", "3", "1", "done"),
    ]
    registry.set_registered_model_tag(
        REGISTERED_MODEL, "promotion.green.0004", json.dumps({**begun, "previous": "3"})
    )
    registry.delete_model_version(REGISTERED_MODEL, "2")
    settle(GREEN)
    assert tell_events()[3:] == [("promote", "2", "3", "dropped")]
    assert let_gate("3", None) == "version 3 is champion now, in place of version 1."
    assert read_aliases(registry)["champion"] == "3"


def test_each_cab_type_has_a_champion_and_a_log_of_its_own(registry: mlflow.MlflowClient) -> None:
    promote(GREEN, "1")
    promote(YELLOW, "4")
    assert read_aliases(registry) == {**CANDIDATES, "champion": "1", "champion-yellow": "4"}
    assert [*read_tags(registry)] == ["promotion.green.0001", "promotion.yellow.0001"]
    champion = load_champion(YELLOW)
    assert champion is not None
    assert (champion.version, champion.model_id) == ("4", IDS["4"])
    with pytest.raises(
        InputError, match=r"^yellow has had no champion before version 4: .*--cab y"
    ):
        rollback(YELLOW)
    assert [version.version for version in read_history(YELLOW).versions] == ["4"]


def test_a_version_of_another_cab_type_is_no_champion(registry: mlflow.MlflowClient) -> None:
    set_elsewhere(registry, "4")
    assert (load_champion(GREEN), read_history(GREEN).champion) == (None, None)
    assert let_gate("1", None) == "version 1 is champion now; there was none."
    assert tell_events() == [("gate", "1", None, "done")]


def test_history_has_every_version_and_when_it_was_champion(
    registry: mlflow.MlflowClient, registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PAGE", 1)
    for version in ("1", "2", "3"):
        promote(GREEN, version)
    rollback(GREEN)
    run = registry.get_model_version(REGISTERED_MODEL, "1").run_id
    assert run
    registry.delete_run(run)
    history = read_history(GREEN)
    at = [event.at for event in history.events]
    assert (history.cab, history.champion) == ("green", "2")
    assert [(each.version, each.model_id, each.rmse) for each in history.versions] == [
        (version, IDS[version], RMSE[version]) for version in ("1", "2", "3")
    ]
    second = history.find("2")
    assert second is not None
    assert (second.trained_on, second.validated_on) == (("2023-02",), "2023-03")
    assert (second.verdict, second.reasons, second.against) == ("not judged", (), None)
    assert second.periods == (Period("2", at[1], at[2]), Period("2", at[3], None))
    assert str(second.page).endswith(f"/runs/{second.run_id}")


def test_a_version_that_a_person_registered_of_our_run_is_one(
    registry: mlflow.MlflowClient,
) -> None:
    of = registry.get_model_version(REGISTERED_MODEL, "1")
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id)
    promote(GREEN, "5")
    history = read_history(GREEN)
    assert [each.model_id for each in history.versions] == [*[*IDS.values()][:3], IDS["1"]]
    assert history.events[-1].model_id == IDS["1"]


def test_past_is_the_version_last_registered_for_each_earlier_month(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    of = registry.get_model_version(REGISTERED_MODEL, "1")
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id)
    assert read_past(GREEN, Month(2023, 4), is_synthetic=False) == [
        {"month": "2023-02", "rmse": RMSE["1"], "version": "5", "model_id": IDS["1"]},
        {"month": "2023-03", "rmse": RMSE["2"], "version": "2", "model_id": IDS["2"]},
    ]
    assert read_past(GREEN, Month(2023, 2), is_synthetic=False) == []
    (of_yellow,) = read_past(YELLOW, Month(2024, 1), is_synthetic=False)
    assert of_yellow["version"] == "4"
    assert read_past(GREEN, Month(2023, 4), is_synthetic=True) == []


def test_past_is_rather_a_champion_than_a_version_that_was_refused_since(
    registry: mlflow.MlflowClient,
) -> None:
    def find_first() -> str:
        return str(read_past(GREEN, Month(2023, 3), is_synthetic=False)[0]["version"])

    of = registry.get_model_version(REGISTERED_MODEL, "1")
    refused = {"gate.verdict": "not promoted"}
    registry.create_model_version(REGISTERED_MODEL, of.source, run_id=of.run_id, tags=refused)
    assert find_first() == "1"
    promote(GREEN, "5")
    assert find_first() == "5"


def test_versions_are_loaded_by_model_id_number_and_alias(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    loaded = load_version(GREEN, IDS["2"])
    assert loaded is not None
    expected = load_model(registered.directories["2"]).evaluate(FEBRUARY)
    assert loaded.model.evaluate(FEBRUARY) == expected
    assert (loaded.version, loaded.months, loaded.against) == ("2", ("2023-02",), None)
    assert load_version(GREEN, "green/2023-01-00000000") is None
    assert load_version(YELLOW, IDS["2"]) is None
    with pytest.raises(InputError, match=r"^green has no champion in sqlite:///"):
        find_version(GREEN, "champion")
    promote(GREEN, "2")
    assert find_version(GREEN, "champion").model_id == find_version(GREEN, "2").model_id == IDS["2"]
    with pytest.raises(InputError, match="version 4 of nyc-taxi-duration is of another cab type"):
        find_version(GREEN, "4")


def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    settle(GREEN)
    assert (
        load_version(GREEN, IDS["1"]),
        read_past(GREEN, Month(2023, 4), is_synthetic=False),
    ) == (None, [])
    assert read_history(GREEN).versions == ()
    for act in (promote, rollback, find_version):
        with pytest.raises(InputError) as raised:
            act(GREEN, "1")
        assert str(raised.value) == (
            f"nothing is registered in sqlite:///{tmp_path}/mlflow.db, which is not there: train a "
            "model first, such as with `python orchestrate.py`."
        )
    assert [*tmp_path.iterdir()] == []


def test_a_log_that_somebody_changed_is_named(registry: mlflow.MlflowClient) -> None:
    registry.set_registered_model_tag(REGISTERED_MODEL, "promotion.green.0001", "{}")
    with pytest.raises(SourceError, match=r"^tag promotion\.green\.0001 of the registered model"):
        promote(GREEN, "1")
    assert "champion" not in read_aliases(registry)


def forget(registry: mlflow.MlflowClient, version: str) -> None:
    """Delete a version and its run, as if it had never been logged."""
    registry.delete_model_version(REGISTERED_MODEL, version)
    experiment = registry.get_experiment_by_name("nyc-taxi-duration")
    assert experiment is not None
    of_it = f"tags.model_id = '{IDS[version]}' and params.cab = 'green'"
    (run,) = registry.search_runs([experiment.experiment_id], of_it)
    registry.delete_run(run.info.run_id)


def test_the_verdict_is_told_by_tags_of_the_version_and_of_the_run(
    registry: mlflow.MlflowClient, registered: Registered
) -> None:
    forget(registry, "2")
    assert registered.log("2", GATE) == "5"
    version = registry.get_model_version(REGISTERED_MODEL, "5")
    expected = {
        "gate.verdict": "not promoted",
        "gate.reasons": "It is worse.\nQueens is worse by 9 %.",
        "gate.against": IDS["1"],
        "gate.against_version": "1",
        "gate.champion_rmse": "5.5",
        "gate.improvement": "0.0125",
        "gate.lowest_improvement": "-0.25",
    }
    training = identify_training(registered.describe("2"))
    assert version.tags == {"model_id": IDS["2"], "training": training, **expected}
    assert version.run_id
    assert registry.get_run(version.run_id).data.tags.items() >= expected.items()
    found = read_history(GREEN).find("5")
    assert found is not None
    assert (found.verdict, found.against) == ("not promoted", IDS["1"])
    assert list(found.reasons) == GATE["reasons"]
    loaded = load_version(GREEN, IDS["2"])
    assert loaded is not None
    assert loaded.against == IDS["1"]


def test_a_verdict_without_a_champion_has_fewer_tags() -> None:
    gate = {"is_promoted": True, "reasons": [], "champion": None, "bootstrap": None}
    assert collect_verdict({"gate": gate}) == {"gate.verdict": "promoted"}
    assert collect_verdict({"gate": None}) == {"gate.verdict": "not judged"}
    long = {**GATE, "reasons": ["x" * 9000]}
    assert len(collect_verdict({"gate": long})["gate.reasons"]) == 5000


def test_the_readable_files_and_the_gates_figures_are_logged(
    registry: mlflow.MlflowClient, registered: Registered, tmp_path: Path
) -> None:
    forget(registry, "3")
    directory = registered.directories["3"]
    made = {"report.html": "<p>", "README.md": "# Model"}
    for name, content in made.items():
        (directory / name).write_text(content)
    (directory / "leads-elsewhere").symlink_to(tmp_path)
    (directory / "secret").symlink_to(tmp_path / "mlflow.db")
    try:
        assert registered.log("3", GATE) == "5"
    finally:
        for name in (*made, "leads-elsewhere", "secret"):
            (directory / name).unlink()
    version = registry.get_model_version(REGISTERED_MODEL, "5")
    assert version.run_id
    files = {each.path for each in registry.list_artifacts(version.run_id)}
    assert files == {"report.json", *made}
    metrics = registry.get_run(version.run_id).data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith("gate_")} == {
        "gate_champion_rmse": 5.5, "gate_improvement": 0.0125, "gate_lowest_improvement": -0.25,
    }  # fmt: skip
