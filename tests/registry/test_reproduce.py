"""`reproduce`: what was trained comes out again, and what was altered does not go unnoticed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxi_duration.registry.comparison import TOLERANCE, compare
from taxi_duration.registry.mlflow_store import EXPERIMENT
from taxi_duration.registry.reproduction import Recorded, Retrained
from taxi_duration.registry.tracking import log_training

from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.report import Report
from taxi_duration.files import hash_file
from taxi_duration.model import directory as store
from taxi_duration.model.directory import load_model, load_report, save_model
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.model.model import DurationModel
from taxi_duration.model.training import Training
from taxi_duration.regression.metrics import Evaluation
from tests.support.months import FEBRUARY, JANUARY, MARCH, SAMPLE
from tests.support.runs import Run, call_taxi_duration
from tests.support.trained import save_sample_training
from tests.support.web import Tlc

Reproduce = Callable[..., str]


@pytest.fixture
def reproduce(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reproduce:
    """`reproduce(code, ...)`: what the command says when it ends with that exit code."""

    def run(code: int, *arguments: str | Path, data: Path = SAMPLE) -> str:
        options = ("--data-dir", str(data), "--models-dir", str(tmp_path))
        assert call_taxi_duration("reproduce", *map(str, arguments), *options) == code
        output, errors = capsys.readouterr()
        assert (output if code == 2 else errors) == ""
        return errors if code == 2 else output

    return run


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sample_training(tmp_path_factory.mktemp("course"), "course")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sample_training(tmp_path_factory.mktemp("extended"), "extended")


def alter(directory: Path, models: Path, report: Report | None = None, **changes: Any) -> Path:
    """A model directory like another, of a model or with a report that is changed."""
    model = replace(load_model(directory), **changes)
    altered = {**load_report(directory), **(report or {})}
    if "model_id" not in (report or {}):
        altered["model_id"] = store.identify_model(altered, model.features)
    return save_model(models, model, altered)


def nudge(model: DurationModel, term: str, code: int, by: float) -> dict[str, Any]:
    coefficients = {name: values.copy() for name, values in model.coefficients.items()}
    coefficients[term][code] += by
    return coefficients


@pytest.mark.parametrize(("features", "compared"), [("course", 13), ("extended", 24)])
def test_a_training_on_the_sample_comes_out_again(
    features: str, compared: int, reproduce: Reproduce, request: pytest.FixtureRequest
) -> None:
    directory = request.getfixturevalue(features)
    first, *inputs_and_table, last = reproduce(0, directory).splitlines()
    assert first == (
        f"green/{directory.name} from {directory}: {features} features, trained on 2025-01, "
        "validated on 2025-02"
    )
    for line, path in zip(inputs_and_table, (JANUARY, FEBRUARY), strict=False):
        assert line == f"{path} has the recorded sha256 {hash_file(path)}"
    head, *table = inputs_and_table[2:]
    assert head.split() == ["what", "recorded", "reproduced", "largest", "difference"]
    assert {line[:4] for line in table} == {"ok  "}
    assert len(table) == compared
    report = load_report(directory)
    (rmse,) = [line for line in table if line.startswith("ok  validation RMSE")]
    assert rmse.split()[3:] == [f"{report['validation']['rmse']:.10g}"] * 2 + ["0"]
    assert last == f"reproduced: {compared} agree to 1e-09 of max(1, |recorded|)"


def test_json_has_every_comparison(extended: Path, reproduce: Reproduce) -> None:
    found = json.loads(reproduce(0, extended, "--json"))
    assert found["agrees"] is found["is_same_code"] is True
    assert found["model_id"] == f"green/{extended.name}"
    assert found["inputs"] == load_report(extended)["inputs"]
    assert (found["tolerance"], found["other_versions"]) == (1e-9, {})
    compared = {each.pop("what"): each for each in found["comparisons"]}
    assert {f"coefficients of {term}" for term in FEATURE_SETS["extended"].terms} < {*compared}
    columns = load_model(extended).columns
    assert columns == sum(
        each["recorded"] for what, each in compared.items() if what.startswith("coefficients")
    )
    assert compared["training rows kept"] == {
        "recorded": 18597, "reproduced": 18597, "difference": 0.0, "agrees": True, "detail": ""
    }  # fmt: skip


def test_an_alpha_that_was_given_is_taken_again(tmp_path: Path, reproduce: Reproduce) -> None:
    output = reproduce(0, save_sample_training(tmp_path, "extended", alpha=5.0))
    assert "held-out RMSE" not in output
    assert "ok  alpha of the model" in output


def test_a_window_of_several_months_comes_out_again(tmp_path: Path, reproduce: Reproduce) -> None:
    directory = save_sample_training(tmp_path, "course", paths=(JANUARY, FEBRUARY, MARCH))
    first, *_, last = reproduce(0, directory).splitlines()
    assert first.endswith("trained on 2025-01, 2025-02, validated on 2025-03")
    assert last.startswith("reproduced: 13 agree")


def test_a_model_id_is_looked_up_below_the_models_directory(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    shutil.copytree(course, tmp_path / "green" / course.name)
    output = reproduce(0, f"green/{course.name}")
    assert output.startswith(f"green/{course.name} from {tmp_path}/green/{course.name}: course f")


def test_a_coefficient_that_was_altered_is_found_and_named(
    extended: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    model = load_model(extended)
    was = model.coefficients["near*PU"][74]
    altered = alter(extended, tmp_path, coefficients=nudge(model, "near*PU", 74, 1e-4))
    *_, line, verdict = [
        line for line in reproduce(1, altered).splitlines() if line.startswith("not ")
    ]
    assert verdict == "not reproduced: 2 of 24 differ"  # the saved model's RMSE is another too
    output = reproduce(1, altered)
    (line,) = [line for line in output.splitlines() if "coefficients of near*PU " in line]
    assert line.startswith("not ok  coefficients of near*PU ")
    assert line.endswith(f"; near*PU=74 is {was + 1e-4:.12g} recorded, {was:.12g} reproduced")


def test_a_code_that_was_not_seen_is_no_zero(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    model = load_model(course)
    unseen = int(np.flatnonzero(np.isnan(model.coefficients["PU_DO"]))[300])
    coefficients = nudge(model, "PU_DO", unseen, 0.0)
    coefficients["PU_DO"][unseen] = 0.0
    output = reproduce(1, alter(course, tmp_path, coefficients=coefficients))
    (line,) = [line for line in output.splitlines() if "coefficients of PU_DO" in line]
    name = f"PU_DO={unseen // 266}_{unseen % 266}"
    assert line.split()[:6] == ["not", "ok", "coefficients", "of", "PU_DO", "5,906"]
    assert line.endswith(f"one is not there; {name} is 0 recorded, not seen reproduced")


def test_figures_of_the_report_are_compared(
    extended: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    report = load_report(extended)
    altered = alter(
        extended,
        tmp_path,
        {
            "alpha": 3.0,
            "trials": report["trials"][1:],
            "train": {**report["train"], "rows_read": 19601},
            "validation": {**report["validation"], "mae": report["validation"]["mae"] + 1e-7},
        },
    )
    found = json.loads(reproduce(1, altered, "--json"))
    wrong = {each["what"]: each for each in found["comparisons"] if not each["agrees"]}
    assert [*wrong] == [
        "training rows read", "held-out RMSE of alpha 1", "alpha of the report", "validation MAE",
    ]  # fmt: skip
    missing = wrong["held-out RMSE of alpha 1"]
    assert (missing["recorded"], missing["difference"]) == (None, None)


def test_other_versions_are_noted_and_no_failure(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    versions = {**load_report(course)["versions"], "numpy": "1.0", "mkl": "2"}
    *_, note, verdict = reproduce(0, alter(course, tmp_path, {"versions": versions})).splitlines()
    here = load_report(course)["versions"]["numpy"]
    assert note == (
        f"note: mkl 2 was recorded, none is here; numpy 1.0 was recorded, {here} is here"
    )
    assert verdict.startswith("reproduced: ")


def test_other_code_is_the_likely_reason_of_a_difference(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    of_other_code = {"model_id": "green/2025-01-00000000"}
    altered = alter(course, tmp_path, of_other_code, intercept=3.0)
    *_, reason, verdict = reproduce(1, altered).splitlines()
    assert reason == "likely reason: the code of this package or of its libraries is another one"
    assert verdict == "not reproduced: 2 of 13 differ"


@given(st.sampled_from(["PU", "near*DO"]), st.integers(0, 265), st.floats(-1e6, 1e6))
def test_any_coefficient_is_compared(term: str, code: int, by: float) -> None:
    features = replace(FEATURE_SETS["extended"], terms=("PU", "near*DO"))
    values = np.linspace(-100, 100, 266)
    again = DurationModel(features, 1.0, 5.0, {"PU": values, "near*DO": values[::-1]})
    saved = replace(again, coefficients=nudge(again, term, code, by))
    funnel, errors = RowFunnel(9, {}, 9, {}, {}), Evaluation(1.0, 1.0, 9)
    rows = {"rows_read": 9, "rows_kept": 9, "rmse": 1.0, "mae": 1.0}
    report = {"alpha": 1.0, "trials": [], "train": rows, "validation": rows}
    retrained = Retrained(Training(again, (), 1.0, 9), funnel, errors, errors, funnel)
    comparisons = compare(Recorded("", "", report, saved), retrained)
    recorded, reproduced = (m.coefficients[term][code] for m in (saved, again))
    is_beyond = abs(recorded - reproduced) > TOLERANCE * max(1, abs(recorded))
    wrong = [each.what for each in comparisons if not each.agrees]
    assert wrong == ([f"coefficients of {term}"] if is_beyond else [])


def test_a_month_that_was_changed_is_named_with_both_hashes(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    shutil.copy(JANUARY, tmp_path)
    changed = tmp_path / FEBRUARY.name
    shutil.copy(JANUARY, changed)
    assert reproduce(2, course, data=tmp_path) == (
        f"error: {changed} has sha256 {hash_file(JANUARY)}, recorded is {hash_file(FEBRUARY)}: the "
        "TLC has published it anew, or it was changed here. Put the file with the recorded sha256 "
        "there, from a backup or a bucket, or train again on this one.\n"
    )


def test_a_synthetic_month_that_is_absent_is_not_fetched(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    assert reproduce(2, course, data=tmp_path) == (
        f"error: {tmp_path / JANUARY.name} is missing, and nobody publishes it: name the directory "
        "that holds the synthetic sample, data/sample, with --data-dir.\n"
    )


@pytest.fixture(scope="module")
def published(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of a training on the sample, as if the TLC had published that."""
    inputs = {name.removeprefix("synthetic_"): sha256
              for name, sha256 in load_report(course)["inputs"].items()}  # fmt: skip
    return alter(course, tmp_path_factory.mktemp("published"), {"inputs": inputs})


def test_months_that_are_absent_are_fetched_and_others_left_alone(
    published: Path, tmp_path: Path, tlc: Tlc, reproduce: Reproduce
) -> None:
    for path in (JANUARY, FEBRUARY):
        tlc.files[path.name.removeprefix("synthetic_")] = path.read_bytes()
    data = tmp_path / "data"
    assert reproduce(2, published, "--offline", data=data).startswith(
        f"error: {data / 'green_tripdata_2025-01.parquet'} is missing and offline is set: "
    )
    assert "\nreproduced: 13 agree" in reproduce(0, published, data=data)
    assert len(tlc.requests) == 2
    tlc.files.clear()  # nor are they asked for again, which would find others, or none
    assert "\nreproduced: 13 agree" in reproduce(0, published, data=data)
    assert len(tlc.requests) == 2


def test_a_synthetic_month_does_not_stand_in_for_a_real_one(
    published: Path, reproduce: Reproduce
) -> None:
    assert reproduce(2, published) == (
        f"error: {SAMPLE / 'green_tripdata_2025-01.parquet'} is missing, and {JANUARY.name}, which "
        "is there, is no substitute: place it there, or name another directory with --data-dir.\n"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": {}}, r"KeyError: 'green_tripdata_2025-01.parquet'"),
        ({"alphas": []}, "IndexError: tuple index out of range"),
        ({"thresholds": {"most_rows": -1}}, "ValidationError: 1 validation error for Thresholds"),
        ({"trials": [{"alpha": 1.0}]}, "KeyError: 'rmse'"),
    ],
)
def test_a_report_that_lacks_something_is_refused(
    change: Report,
    reason: str,
    course: Path,
    tmp_path: Path,
    reproduce: Reproduce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for render in ("render_html", "render_model_card"):  # which would not take it either
        monkeypatch.setattr(store, render, lambda _: "")
    altered = alter(course, tmp_path, change)
    said = reproduce(2, altered)
    assert said.startswith(
        f"error: the report of green/{altered.name} does not say all that a training has ({reason}"
    )
    assert said.endswith("): train it again.\n")


def test_a_damaged_directory_is_refused(course: Path, tmp_path: Path, reproduce: Reproduce) -> None:
    shutil.copytree(course, tmp_path / "damaged")
    (tmp_path / "damaged" / "report.json").write_text("{}")
    assert "report.json is not what was written" in reproduce(2, tmp_path / "damaged")


def test_what_is_not_found_is_said_with_where_it_was_looked_for(
    tmp_path: Path, reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert reproduce(2, "champion") == (
        f"error: 'champion' was not found: champion and {tmp_path}/champion are no directories; "
        f"MLflow store {uri} is not there. Give a model directory such as "
        "models/green/2023-01-1a2b3c4d, or the id of an MLflow run.\n"
    )
    assert not (tmp_path / "mlflow.db").exists()
    assert reproduce(2, tmp_path / "x").startswith(
        f"error: '{tmp_path}/x' was not found: {tmp_path}/x is no directory; MLflow"
    )


@pytest.fixture(scope="module")
def logged(course: Path, tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """A client of a store in which the training is version 1."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", uri)
        log_training(CABS["green"], load_model(course), course, load_report(course))
    return mlflow.MlflowClient(uri)


@pytest.mark.parametrize("reference", ["2", "a" * 32, "green/2023-01-1a2b3c4d", "champion", "'--"])
def test_what_mlflow_does_not_know_is_not_found(
    reference: str, logged: mlflow.MlflowClient, reproduce: Reproduce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.tracking_uri)
    assert (
        f"; MLflow store {logged.tracking_uri} has no run, no model id, and no version or alias of "
        "nyc-taxi-duration, by that name. Give "
    ) in reproduce(2, reference)


@pytest.mark.parametrize("damaged", ["report.json", "model.skops"])
def test_a_run_without_its_files_is_refused(
    damaged: str, logged: mlflow.MlflowClient, reproduce: Reproduce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.tracking_uri)
    artifacts = Path(logged.tracking_uri.removeprefix("sqlite:///")).with_name("mlartifacts")
    (file,) = artifacts.rglob(damaged)
    aside = file.rename(file.with_suffix(".aside"))
    try:
        said = reproduce(2, "1")
    finally:
        aside.rename(file)
    run_id = logged.get_model_version("nyc-taxi-duration", "1").run_id
    assert said.startswith(f"error: MLflow run {run_id} cannot be reproduced: ")
    assert said.endswith(" Give one whose training is finished.\n")


def test_a_run_of_another_program_is_refused(
    logged: mlflow.MlflowClient, reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.tracking_uri)
    experiment = logged.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    other = logged.create_run(experiment.experiment_id).info.run_id
    assert reproduce(2, other) == (
        f"error: MLflow run {other} cannot be reproduced: no training of this pipeline logged it. "
        "Give one whose training is finished.\n"
    )


REAL = ("--year", "2023", "--month", "1", "--features")


@pytest.mark.parametrize("features", [*FEATURE_SETS])
def test_a_run_of_the_flow_on_real_months_comes_out_again(
    features: str,
    real_data: Path,
    train_on_real_months: Callable[..., Run],
    reproduce: Reproduce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = train_on_real_months(*REAL, features)
    output = reproduce(0, run.model_directory, "--offline", data=real_data)
    assert "\nreproduced: " in output
    assert "note: " not in output
    # From the store alone, whatever names the run there.
    uri = f"sqlite:///{run.directory / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow.MlflowClient(uri)
    run_id = client.get_model_version("nyc-taxi-duration", "1").run_id
    place = f"MLflow run {run_id} in {uri}"
    names = [run_id]
    if features == "course":
        names += ["1", "candidate", f"green/{run.model_directory.name}"]
    else:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        trials = client.search_runs([experiment.experiment_id], "params.alpha = '3.0'")
        names = [next(trial.info.run_id for trial in trials if trial.info.run_id != run_id)]
    for name in names:
        found = reproduce(0, name, "--offline", data=real_data)
        assert found.splitlines()[1:] == output.splitlines()[1:]
        assert found.startswith(f"green/{run.model_directory.name} from {place}: {features} ")
