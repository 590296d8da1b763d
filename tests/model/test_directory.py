"""Model directories: what is saved, under which name, and what stays of it."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io

from taxi_duration import load_model
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import read_trips
from taxi_duration.evaluation.report import read_versions
from taxi_duration.model import training
from taxi_duration.model.directory import MODEL_FORMAT, read_file, save_model, verify_model
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.model.model import DurationModel
from taxi_duration.model.training import identify_training
from tests.support.killed_saves import MODEL_ID, SAID
from tests.support.months import FEBRUARY, JANUARY
from tests.support.trained import train_on


@pytest.fixture(scope="module", params=list(FEATURE_SETS))
def model(request: pytest.FixtureRequest) -> DurationModel:
    return train_on(JANUARY, request.param).model


@pytest.fixture(scope="module")
def course() -> DurationModel:
    return train_on(JANUARY, "course").model


def test_a_loaded_model_predicts_what_the_saved_one_did(
    model: DurationModel, tmp_path: Path
) -> None:
    directory = save_model(tmp_path, MODEL_ID, model, SAID)
    assert directory == tmp_path / MODEL_ID
    names = ["README.md", "manifest.json", "model.skops", "report.html", "report.json"]
    assert sorted(path.name for path in directory.iterdir()) == names
    assert {name: read_file(directory, name) for name in SAID} == SAID
    raw, loaded = read_trips(FEBRUARY), load_model(directory)
    np.testing.assert_array_equal(loaded.predict(raw), model.predict(raw))
    assert loaded.features == model.features
    # Plain scikit-learn, and its parts at other addresses make the same file.
    file = directory / "model.skops"
    assert skops.io.get_untrusted_types(file=file) == []
    elsewhere = pickle.loads(pickle.dumps(model))
    theirs = save_model(tmp_path / "theirs", MODEL_ID, elsewhere, SAID) / "model.skops"
    assert file.read_bytes() == theirs.read_bytes()
    with ZipFile(file) as packed:
        assert {entry.date_time[0] for entry in packed.infolist()} == {1980}


def test_the_first_model_of_a_training_stays_and_the_last_report_of_it(
    course: DurationModel, tmp_path: Path
) -> None:
    first = save_model(tmp_path, MODEL_ID, course, SAID)
    written = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    others = replace(course, intercept=course.intercept + 1e-9)  # in its last digits
    other = {**SAID, "report.json": b"other"}
    for model, files in ((course, SAID), (others, other)):
        assert save_model(tmp_path, MODEL_ID, model, files) == first
        assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == written
    content = (first / "model.skops").read_bytes()
    assert save_model(tmp_path, MODEL_ID, course, other) == first
    verify_model(first)
    assert (first / "model.skops").read_bytes() == content
    assert read_file(first, "report.json") == b"other"
    assert save_model(tmp_path, f"{MODEL_ID[:-1]}e", course, SAID) != first


def test_the_identity_is_the_trainings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features, january = FEATURE_SETS["course"], Month(2025, 1)
    versions = read_versions()

    def identify(**changes: object) -> str:
        given: dict[str, object] = {
            "cab": "green",
            "features": features,
            "alphas": (0.0,),
            "inputs": {january: "ab"},
            "versions": versions,
            **changes,
        }
        return identify_training(**given)  # type: ignore[arg-type]

    assert identify() == identify(alphas=[0.0], versions=dict(versions))
    assert identify().startswith("green/2025-01-")
    december = january.shift(-1)
    others = [
        identify(cab="yellow"),
        identify(features=FEATURE_SETS["extended"]),
        identify(alphas=(0.0, 1.0)),
        identify(inputs={january: "cd"}),
        identify(inputs={december: "ab", january: "ab"}),
        identify(versions={**versions, "numpy": "0"}),
    ]
    assert identify(inputs={january: "ab", december: "ab"}) == others[4]  # in whatever order
    monkeypatch.setattr(training, "identify_code", lambda _: "corrected")
    others.append(identify())
    monkeypatch.undo()
    assert len({identify(), *others}) == 8


def test_a_damaged_directory_is_written_anew_beside_files_of_somebodys_own(
    course: DurationModel, tmp_path: Path
) -> None:
    directory = save_model(tmp_path, MODEL_ID, course, SAID)
    (directory / "notes").mkdir()
    (directory / "notes" / "mine.md").write_text("read this")
    (directory / "manifest.json").unlink()
    assert save_model(tmp_path, MODEL_ID, course, SAID) == directory
    load_model(directory)
    assert (directory / "notes" / "mine.md").read_text() == "read this"
    assert list((tmp_path / "green").iterdir()) == [directory]


def test_nothing_is_left_when_writing_fails(course: DurationModel, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"report\.json"):
        save_model(tmp_path, MODEL_ID, course, {})
    assert list((tmp_path / "green").iterdir()) == []


def test_two_may_save_the_same_run_at_once(course: DurationModel, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for attempt in range(5):
            models = tmp_path / str(attempt)
            jobs = [pool.submit(save_model, models, MODEL_ID, course, SAID) for _ in range(4)]
            (directory,) = {job.result() for job in jobs}
            load_model(directory)
            assert [*directory.parent.iterdir()] == [directory]


def test_the_manifest_names_every_other_file(course: DurationModel, tmp_path: Path) -> None:
    manifest = json.loads(
        (save_model(tmp_path, MODEL_ID, course, SAID) / "manifest.json").read_text()
    )
    assert manifest["format"] == MODEL_FORMAT
    assert sorted(manifest["sha256"]) == ["README.md", "model.skops", "report.html", "report.json"]
