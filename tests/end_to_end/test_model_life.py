"""The life of a model on real months: champion, challenged, sabotaged, rolled back, crashed."""

import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import numpy as np
import pandas as pd
import pytest

from taxi_duration import load_model
from taxi_duration.data.month import Month
from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.evaluation.gate import Opponent, judge
from taxi_duration.flows import tasks
from taxi_duration.registry.runs import MODEL_ID, REGISTERED_MODEL
from taxi_duration.settings import GateSettings
from tests.conftest import connected_to
from tests.support.months import SAMPLE
from tests.support.runs import Run, call_taxi_duration, read_logs, read_report_artifact, run_local

GREEN = CABS["green"]


def call(directory: Path, *arguments: str) -> str:
    """What `python -m taxi_duration ...` prints in a directory."""
    printed = io.StringIO()
    with chdir(directory), redirect_stdout(printed):
        assert call_taxi_duration(*arguments) == 0
    return printed.getvalue()


def read_history(directory: Path) -> dict[str, Any]:
    history: dict[str, Any] = json.loads(call(directory, "history", "--json"))
    return history


def list_changes(history: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event["kind"], event["version"]) for event in history["events"]]


def find_report(directory: Path, month: str) -> dict[str, Any]:
    (path,) = directory.glob(f"models/green/{month}-*/report.json")
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def open_store(directory: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")


def shuffle_durations(source: Path, target: Path) -> None:
    """Give each trip of a month the duration of another."""
    trips = pd.read_parquet(source)
    durations = trips["lpep_dropoff_datetime"] - trips["lpep_pickup_datetime"]
    shuffled = durations.to_numpy()[np.random.default_rng(0).permutation(len(durations))]
    trips["lpep_dropoff_datetime"] = trips["lpep_pickup_datetime"] + shuffled
    target.parent.mkdir()
    trips.to_parquet(target)


@dataclass(frozen=True)
class Story:
    """What was run, in this order, and what was printed."""

    directory: Path
    first: Run
    challenger: Run
    sabotaged: Run
    rolled_back: str
    repeated: Run
    promoted: str
    shown: str


@pytest.fixture(scope="module")
def story(prefect_server: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    directory = tmp_path_factory.mktemp("life")
    sabotage = directory / "sabotage"
    march, april = (Month(2023, month).file_name("green") for month in (3, 4))
    shuffle_durations(real_data / march, sabotage / march)
    shutil.copy(real_data / april, sabotage)

    def train(month: int, data: Path = real_data) -> Run:
        arguments = ("--year", "2023", "--month", str(month), "--offline")
        return run_local(directory, *arguments, "--data-dir", str(data))

    with connected_to(prefect_server):
        return Story(
            directory,
            train(1),
            train(2),
            train(3, sabotage),
            call(directory, "rollback"),
            train(2),
            call(directory, "promote", "2"),
            call(directory, "show", "champion"),
        )


def test_the_first_model_becomes_champion(story: Story) -> None:
    gate = find_report(story.directory, "2023-01")["gate"]
    assert (gate["is_promoted"], gate["champion"], gate["reasons"]) == (True, None, [])
    version = open_store(story.directory).get_model_version(REGISTERED_MODEL, "1")
    assert json.loads(version.tags["verdict.1"])["is_promoted"] is True


def test_the_challenger_is_judged_on_the_same_trips(story: Story, real_data: Path) -> None:
    report = find_report(story.directory, "2023-02")
    paths = [*story.directory.glob("models/green/2023-0[12]-*")]
    first, second = (load_model(path) for path in sorted(paths))
    predictors = {"model": second.predict_clean, "champion": first.predict_clean}
    path = real_data / "green_tripdata_2023-03.parquet"
    scores = evaluate_predictors(predictors, path, GREEN, Month(2023, 3), in_detail=True)
    baselines = dict.fromkeys(("mean", "zone_pair_median"), scores.errors["champion"])
    first_id = find_report(story.directory, "2023-01")["model_id"]
    opponent = Opponent("1", first_id, ("2023-01",))
    errors = {**scores.errors, **baselines}
    months = ("2023-02", "2023-03")
    verdict = judge(errors, scores.analysis, months, GateSettings(), opponent)
    assert verdict.is_promoted
    assert report["gate"] == verdict.model_dump(mode="json")
    assert report["gate"]["champion"]["rmse"] == pytest.approx(4.718714, abs=5e-7)
    assert report["gate"]["bootstrap"]["improvement"] == pytest.approx(0.0072, abs=5e-5)
    assert report["gate"]["bootstrap"]["lowest"] == pytest.approx(0.0033, abs=5e-4)


@pytest.mark.usefixtures("prefect_api")
def test_the_verdict_is_in_log_artifact_and_tags(story: Story) -> None:
    run = story.challenger
    said = {log.message for log in read_logs(run.flow_run.id, awaited="report published")}
    assert "gate: promoted" in said
    assert "version 2 is champion now, in place of version 1." in said
    artifact = str(read_report_artifact(run.flow_run.id).data)
    assert "Version 2 is champion now, in place of version 1." in artifact
    client = open_store(story.directory)
    version = client.get_model_version(REGISTERED_MODEL, "2")
    tracked = client.get_run(version.run_id).data
    gate = find_report(story.directory, "2023-02")["gate"]
    verdict = json.loads(version.tags["verdict.1"])
    assert verdict["against"] == find_report(story.directory, "2023-01")["model_id"]
    assert tracked.metrics["gate_improvement"] == gate["bootstrap"]["improvement"]
    assert tracked.metrics["gate_champion_rmse"] == gate["champion"]["rmse"]


@pytest.mark.usefixtures("prefect_api")
def test_a_sabotaged_candidate_is_refused_and_its_run_succeeds(story: Story) -> None:
    run, gate = story.sabotaged, find_report(story.directory, "2023-03")["gate"]
    assert (run.exit_code, run.flow_run.state_name) == (0, "Completed")
    assert not gate["is_promoted"]
    assert gate["champion"]["version"] == "2"
    assert gate["bootstrap"]["improvement"] < -0.5
    said = "\n".join(gate["reasons"])
    assert "higher than the 4.7998 of the champion, version 2; with a confidence of 95%" in said
    assert "on 37,451 trips of pick-up borough Manhattan its RMSE of " in said
    assert "not promoted" in run.output
    artifact = str(read_report_artifact(run.flow_run.id).data)
    for reason in gate["reasons"]:
        # There, a sentence's beginning is a capital, and slices are summed up.
        assert (reason[1:] in artifact) == (" trips of " not in reason)
    (summed,) = re.findall(r"> - On (\d+) of the \d+ slices of at least 500 trips its", artifact)
    assert int(summed) == sum(" trips of " in reason for reason in gate["reasons"])
    version = open_store(story.directory).get_model_version(REGISTERED_MODEL, "3")
    verdict = json.loads(version.tags["verdict.1"])
    assert (verdict["is_promoted"], verdict["reasons"]) == (False, gate["reasons"])


def test_rollback_restores_the_first(story: Story) -> None:
    assert story.rolled_back == "version 1 is champion again, in place of version 2.\n"


@pytest.mark.usefixtures("prefect_api")
def test_a_repeated_run_does_not_undo_a_rollback(story: Story) -> None:
    assert story.repeated.exit_code == 0
    assert len([*story.directory.glob("models/green/2023-02-*")]) == 1
    said = [log.message for log in read_logs(story.repeated.flow_run.id, awaited="published")]
    (sentence,) = [each for each in said if each.startswith("version 2 stays a candidate")]
    assert "this training was champion before, and was rolled back by " in sentence
    assert sentence.endswith("To have it all the same: `python -m taxi_duration promote 2`.")


def test_a_version_is_promoted_by_hand(story: Story) -> None:
    assert story.promoted == "version 2 is champion now, in place of version 1.\n"
    assert "green champion: version 2 of nyc-taxi-duration" in story.shown


def test_history_tells_it_truly(story: Story) -> None:
    history = read_history(story.directory)
    assert list_changes(history) == [
        ("gate", "1"), ("gate", "2"), ("rollback", "1"), ("promote", "2"),
    ]  # fmt: skip
    assert history["champion"] == "2"
    first, second, third = history["versions"]
    assert [each["verdict"] for each in (first, second, third)] == [
        "promoted", "promoted", "not promoted",
    ]  # fmt: skip
    assert [each["trained_on"] for each in (first, second, third)] == [
        ["2023-01"], ["2023-02"], ["2023-03"],
    ]  # fmt: skip
    assert first["rmse"] == pytest.approx(4.522878, abs=5e-7)
    at = [event["at"] for event in history["events"]]
    assert first["champion"] == [{"from": at[0], "to": at[1]}, {"from": at[2], "to": at[3]}]
    assert second["champion"] == [{"from": at[1], "to": at[2]}, {"from": at[3], "to": None}]
    assert third["champion"] == []


def test_the_report_shows_past_months(story: Story) -> None:
    past = find_report(story.directory, "2023-03")["past"]
    assert [(each["month"], each["version"]) for each in past] == [
        ("2023-02", "1"),
        ("2023-03", "2"),
    ]
    assert past[0]["rmse"] == find_report(story.directory, "2023-01")["validation"]["rmse"]


# A crash between any two steps.

CHAMPION = ("--year", "2025", "--month", "1", "--features", "course")
CHALLENGER = ("--year", "2025", "--month", "2", "--features", "extended")
# In the sample `course` is better on unmetered trips.
ALLOWED = ("TAXI_DURATION_GATE_MOST_SLICE_WORSENING", "1")
SAMPLE_MONTHS = ("--data-dir", str(SAMPLE), "--offline")


class Crash(BaseException):
    """The process is gone: nothing after this is done."""


def describe_state(directory: Path) -> dict[str, Any]:
    """All that a run leaves in the directory and in MLflow, without times and ids of MLflow's."""
    client, history = open_store(directory), read_history(directory)
    found = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    experiment = client.get_experiment_by_name(REGISTERED_MODEL)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {
        "changes": list_changes(history),
        "champion": history["champion"],
        "verdicts": [(each["version"], each["verdict"]) for each in history["versions"]],
        "aliases": client.get_registered_model(REGISTERED_MODEL).aliases,
        "versions": sorted((each.version, each.tags[MODEL_ID]) for each in found),
        "runs": sorted((run.data.tags[MODEL_ID], run.info.status) for run in runs),
        "models": sorted(path.name for path in directory.glob("models/green/*")),
        "reports": {
            path.parent.name: path.read_bytes() for path in directory.glob("models/*/*/report.json")
        },
    }


@pytest.fixture(scope="module")
def before(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a champion."""
    directory = tmp_path_factory.mktemp("champion")
    with connected_to(prefect_server), pytest.MonkeyPatch.context() as patched:
        patched.setenv(*ALLOWED)
        assert run_local(directory, *CHAMPION, *SAMPLE_MONTHS).exit_code == 0
    return directory


def copy(before: Path, target: Path) -> Path:
    """The directory again; MLflow's store holds the old one's address of artifacts, which stay."""
    shutil.copytree(before, target)
    return target


@pytest.fixture(scope="module")
def unharmed(
    prefect_server: str, before: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a challenge leaves that nothing disturbs."""
    directory = copy(before, tmp_path_factory.mktemp("unharmed") / "run")
    with connected_to(prefect_server), pytest.MonkeyPatch.context() as patched:
        patched.setenv(*ALLOWED)
        assert run_local(directory, *CHALLENGER, *SAMPLE_MONTHS).exit_code == 0
    state = describe_state(directory)
    assert state["changes"] == [("gate", "1"), ("gate", "2")]
    return state


def crash_after(function: Callable[..., object]) -> Callable[..., object]:
    def run(*arguments: object, **named: object) -> NoReturn:
        function(*arguments, **named)
        raise Crash

    return run


STEPS = ("save_model", "log_training", "promote_candidate", "create_markdown_artifact")
AFTER = ("promote_candidate", "create_markdown_artifact")
"""Those after which the training is champion."""


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_after_any_step_and_a_second_run_come_to_the_same(
    step: str,
    before: Path,
    unharmed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = copy(before, tmp_path / "run")
    monkeypatch.setenv(*ALLOWED)
    with monkeypatch.context() as patched:
        patched.setattr(tasks, step, crash_after(getattr(tasks, step)))
        with pytest.raises(Crash):
            run_local(directory, *CHALLENGER, *SAMPLE_MONTHS)
    run = run_local(directory, *CHALLENGER, *SAMPLE_MONTHS)
    assert run.exit_code == 0
    assert describe_state(directory) == unharmed
    artifact = str(read_report_artifact(run.flow_run.id).data)
    assert ("Version 2 is champion already" in artifact) == (step in AFTER)
    assert ("Version 2 is champion now, in place of version 1." in artifact) == (step not in AFTER)


@pytest.mark.usefixtures("prefect_api")
def test_a_repeated_run_whose_opponent_was_deleted_stays_champion(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*ALLOWED)
    directory = copy(before, tmp_path / "run")
    assert run_local(directory, *CHALLENGER, *SAMPLE_MONTHS).exit_code == 0
    open_store(directory).delete_model_version(REGISTERED_MODEL, "1")
    assert run_local(directory, *CHALLENGER, *SAMPLE_MONTHS).exit_code == 0
    history = read_history(directory)
    assert history["champion"] == "2"
    assert history["versions"][-1]["verdict"] == "promoted"
