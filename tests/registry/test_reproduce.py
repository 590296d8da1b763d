"""`reproduce`: what was trained comes out again, and what was altered does not go unnoticed."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.report import load_report
from taxi_duration.files import hash_file
from taxi_duration.model.directory import CARD_FILE, PAGE_FILE, REPORT_FILE, load_model, save_model
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.registry.reproduce import TOLERANCE, compare
from taxi_duration.registry.runs import log_training
from taxi_duration.registry.store import EXPERIMENT
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


def alter(
    directory: Path, models: Path, report: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """A model directory like another, of a model or with a report that is changed."""
    model = replace(load_model(directory), **changes)
    altered = {**load_report(directory).model_dump(), **(report or {})}
    files = {REPORT_FILE: json.dumps(altered).encode(), PAGE_FILE: b"", CARD_FILE: b""}
    return save_model(models, altered["model_id"], model, files)


@pytest.mark.parametrize("features", [*FEATURE_SETS])
def test_a_training_on_the_sample_comes_out_again(
    features: str, tmp_path: Path, reproduce: Reproduce
) -> None:
    directory = save_sample_training(tmp_path, features)
    first, *inputs, last = reproduce(0, f"green/{directory.name}").splitlines()
    assert first == (
        f"green/{directory.name} from {directory}: {features} features, trained on 2025-01, "
        "validated on 2025-02"
    )
    assert inputs == [
        f"{path} has the recorded sha256 {hash_file(path)}" for path in (JANUARY, FEBRUARY)
    ]
    assert last.startswith("reproduced: ")
    assert last.endswith(" agree to 1e-09 of max(1, |recorded|), the largest difference is 0")


def test_json_says_what_was_compared(course: Path, reproduce: Reproduce) -> None:
    found = json.loads(reproduce(0, course, "--json"))
    assert found["agrees"] is found["is_same_code"] is True
    assert found["model_id"] == f"green/{course.name}"
    assert found["inputs"] == load_report(course).inputs
    assert (found["tolerance"], found["other_versions"]) == (1e-9, {})
    assert found["differences"]["coefficients of PU_DO"] == 0.0


@pytest.mark.parametrize(
    ("alpha", "paths"), [(5.0, (JANUARY, FEBRUARY)), (None, (JANUARY, FEBRUARY, MARCH))]
)
def test_a_given_alpha_and_a_longer_window_come_out_again(
    alpha: float | None, paths: tuple[Path, ...], tmp_path: Path, reproduce: Reproduce
) -> None:
    directory = save_sample_training(tmp_path, "course", alpha, paths)
    assert "\nreproduced: 13 agree" in reproduce(0, directory)


def test_what_was_altered_is_found_and_named(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    model, report = load_model(course), load_report(course)
    coefficients = {name: values.copy() for name, values in model.coefficients.items()}
    unseen = int(np.flatnonzero(np.isnan(coefficients["PU_DO"]))[300])
    coefficients["PU_DO"][unseen] = 0.0  # a code that was not seen is no zero
    altered = alter(
        course,
        tmp_path,
        {
            "model_id": "green/2025-01-00000000",
            "train": {**report.train.model_dump(), "rows_read": report.train.rows_read + 1},
            "validation": {**report.validation.model_dump(), "mae": report.validation.mae + 1e-7},
        },
        coefficients=coefficients,
    )
    lines = reproduce(1, altered).splitlines()
    assert lines[3] == "not ok: coefficients of PU_DO are not there on both sides"
    assert {line.split(" differ")[0] for line in lines[4:6]} == {
        "not ok: training rows read",
        "not ok: validation MAE",
    }
    assert lines[6:] == [
        "likely reason: the code of this package or of its libraries is another one",
        "not reproduced: 3 of 13 differ",
    ]
    found = json.loads(reproduce(1, altered, "--json"))
    assert (found["agrees"], found["differences"]["coefficients of PU_DO"]) == (False, None)


def test_other_versions_are_noted_and_no_failure(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    versions = {**load_report(course).versions, "numpy": "1.0", "mkl": "2"}
    *_, note, verdict = reproduce(0, alter(course, tmp_path, {"versions": versions})).splitlines()
    here = load_report(course).versions["numpy"]
    assert note == (
        f"note: mkl 2 was recorded, none is here; numpy 1.0 was recorded, {here} is here"
    )
    assert verdict.startswith("reproduced: ")


@given(st.integers(0, 9), st.floats(-1e6, 1e6) | st.just(math.nan))
def test_any_coefficient_is_compared(code: int, by: float) -> None:
    again = np.array([math.nan, *np.linspace(-100, 100, 9)])
    saved = again.copy()
    saved[code] += by
    is_beyond = abs(saved[code] - again[code]) > TOLERANCE * max(1, abs(saved[code]))
    is_beyond |= math.isnan(saved[code]) != math.isnan(again[code])
    difference = compare({"a": saved, "b": 1.0}, {"a": again, "b": 1.0})
    assert (difference["a"] > TOLERANCE) == is_beyond
    assert difference["b"] == 0.0
    assert compare({"c": 1.0}, {}) == {"c": math.inf}


def test_a_month_that_was_changed_is_named_with_both_hashes(
    course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    shutil.copy(JANUARY, tmp_path)
    changed = tmp_path / FEBRUARY.name
    shutil.copy(JANUARY, changed)
    assert reproduce(2, course, data=tmp_path) == (
        f"error: {changed} has sha256 {hash_file(JANUARY)}, recorded is {hash_file(FEBRUARY)}, so "
        "the TLC has published it anew, or it was changed here: put the file with the recorded "
        "sha256 there, from a backup or a bucket, or train again on this one.\n"
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
              for name, sha256 in load_report(course).inputs.items()}  # fmt: skip
    changed = {"inputs": inputs, "model_id": "green/2025-01-00000000"}
    return alter(course, tmp_path_factory.mktemp("published"), changed)


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
        ({"inputs": {}}, "KeyError: 'green_tripdata_2025-01.parquet'"),
        ({"alphas": []}, "LookupError: no alpha"),
        ({"thresholds": {"most_rows": -1}}, "ValidationError: 1 validation error for Thresholds"),
    ],
)
def test_a_report_that_lacks_something_is_refused(
    change: dict[str, Any], reason: str, course: Path, tmp_path: Path, reproduce: Reproduce
) -> None:
    altered = alter(course, tmp_path, change)
    said = reproduce(2, altered)
    assert said.startswith(
        f"error: the report of green/{altered.name} does not say all that a training has ({reason}"
    )
    assert said.endswith("): train it again.\n")


@pytest.fixture(scope="module")
def logged(course: Path, tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """A client of a store in which the training is version 1."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", uri)
        log_training(CABS["green"], load_model(course), course, load_report(course))
    return mlflow.MlflowClient(uri)


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
    assert said.startswith("error: version 1 of nyc-taxi-duration cannot be loaded (")


def test_a_run_of_another_program_is_refused(
    logged: mlflow.MlflowClient, reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.tracking_uri)
    experiment = logged.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    other = logged.create_run(experiment.experiment_id).info.run_id
    assert reproduce(2, other) == (
        f"error: MLflow run {other} cannot be loaded (no run of this pipeline logged it): give one "
        "whose training is finished.\n"
    )


def test_a_run_of_the_flow_on_real_months_comes_out_again(
    real_data: Path,
    train_on_real_months: Callable[..., Run],
    reproduce: Reproduce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = train_on_real_months("--year", "2023", "--month", "1")
    # From the store alone, by a trial's run if it has one.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.directory / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    reference = client.search_runs([experiment.experiment_id])[0].info.run_id
    output = reproduce(0, reference, "--offline", data=real_data)
    assert "\nreproduced: " in output
    assert "note: " not in output
