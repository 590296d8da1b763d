import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io

from taxi_duration import ModelError, load_model
from taxi_duration.data.parquet import read_trips
from taxi_duration.files import hash_file
from taxi_duration.model import directory as store
from taxi_duration.model.directory import load_report, save_model
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.model.training import Training
from tests.support.months import FEBRUARY, JANUARY
from tests.support.trained import make_report, train_on


@pytest.fixture(scope="module", params=list(FEATURE_SETS))
def trained(request: pytest.FixtureRequest) -> Training:
    return train_on(JANUARY, request.param)


def test_a_loaded_model_predicts_what_the_saved_one_did(trained: Training, tmp_path: Path) -> None:
    raw = read_trips(FEBRUARY)
    loaded = load_model(save_model(tmp_path, trained.model, make_report(trained)))
    np.testing.assert_array_equal(loaded.predict(raw), trained.model.predict(raw))
    assert loaded.features == trained.model.features


def test_the_file_is_plain_scikit_learn(trained: Training, tmp_path: Path) -> None:
    path = save_model(tmp_path, trained.model, make_report(trained)) / "model.skops"
    assert skops.io.get_untrusted_types(file=path) == []


def test_equal_models_have_equal_files(trained: Training, tmp_path: Path) -> None:
    report = make_report(trained)
    elsewhere = pickle.loads(pickle.dumps(trained.model))  # its parts at other addresses
    ours, theirs = (
        save_model(tmp_path / name, model, report) / "model.skops"
        for name, model in [("ours", trained.model), ("theirs", elsewhere)]
    )
    assert ours.read_bytes() == theirs.read_bytes()
    with ZipFile(ours) as packed:
        assert {entry.date_time[0] for entry in packed.infolist()} == {1980}


def test_the_directory_is_named_by_month_and_identity(trained: Training, tmp_path: Path) -> None:
    directory = save_model(tmp_path, trained.model, make_report(trained))
    assert directory.parent == tmp_path / "green"
    assert directory.name.startswith("2025-01-")
    assert sorted(path.name for path in directory.iterdir()) == [
        "README.md",
        "manifest.json",
        "model.skops",
        "report.html",
        "report.json",
    ]


def test_equal_inputs_give_the_same_directory_and_other_inputs_another(
    trained: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save_model(tmp_path, trained.model, make_report(trained))
    written = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(store, "render_html", pytest.fail)  # which takes time
        assert save_model(tmp_path, trained.model, make_report(trained)) == first
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == written
    assert save_model(tmp_path, trained.model, make_report(trained, sha256="cd")) != first
    assert len(list((tmp_path / "green").iterdir())) == 2


def test_other_parameters_versions_and_code_give_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    others = [
        {**report, "versions": {**report["versions"], "numpy": "0"}},
        {**report, "thresholds": {"most_outside_month": 1.0}},
    ]
    found = {save_model(tmp_path, trained.model, each) for each in [report, *others]}
    monkeypatch.setattr(store, "identify_code", lambda _: "corrected")
    assert len({*found, save_model(tmp_path, trained.model, report)}) == 4


def test_the_first_of_equal_runs_stays_as_it_is(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    first = save_model(tmp_path, trained.model, report)
    last_digit = {**report, "train": {**report["train"], "rmse": report["train"]["rmse"] + 1e-12}}
    assert save_model(tmp_path, trained.model, last_digit) == first
    assert load_report(first) == report


def test_files_of_somebodys_own_survive_the_repair_of_a_directory(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    directory = save_model(tmp_path, trained.model, make_report(trained))
    (directory / "notes").mkdir()
    (directory / "notes" / "mine.md").write_text("read this")
    (directory / "manifest.json").unlink()
    assert save_model(tmp_path, trained.model, make_report(trained)) == directory
    load_model(directory)
    assert (directory / "notes" / "mine.md").read_text() == "read this"


def test_a_damaged_directory_is_written_anew(trained: Training, tmp_path: Path) -> None:
    directory = save_model(tmp_path, trained.model, make_report(trained))
    (directory / "manifest.json").unlink()
    assert save_model(tmp_path, trained.model, make_report(trained)) == directory
    load_model(directory)
    assert list((tmp_path / "green").iterdir()) == [directory]


def test_the_report_round_trips(trained: Training, tmp_path: Path) -> None:
    report = make_report(trained)
    assert load_report(save_model(tmp_path, trained.model, report)) == report


def test_figures_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    report["validation"]["rmse"] = float("nan")
    report["baselines"]["mean"]["mae"] = float("inf")
    report["trials"] = [{"alpha": 1.0, "rmse": float("-inf")}]
    with pytest.raises(ModelError) as raised:
        save_model(tmp_path, trained.model, report)
    assert str(raised.value) == (
        "trials.0.rmse is -inf, validation.rmse is nan, baselines.mean.mae is inf: this model is "
        "neither saved nor logged. A number among the trips of green_tripdata_2025-01.parquet is "
        "too large to compute with: look for it there, or train on other months."
    )
    assert [*tmp_path.iterdir()] == []


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    report["baselines"] = {"mean": object()}
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(tmp_path, trained.model, report)
    assert list((tmp_path / "green").iterdir()) == []


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def flip_a_byte(directory: Path) -> None:
    path = directory / "model.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def raise_the_format(directory: Path) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("manifest.json"), "is not a model directory (manifest.json: "),
        (
            remove("model.skops"),
            "model.skops is missing or cannot be read (model.skops is no file): restore",
        ),
        (remove("report.json"), "report.json is missing or cannot be read"),
        (flip_a_byte, "model.skops is not what was written: its sha256 is not"),
        (raise_the_format, "has format 99; this version reads 3: train the model again."),
    ],
)
def test_a_directory_that_is_not_whole_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    trained = train_on(JANUARY, "course")
    directory = save_model(tmp_path, trained.model, make_report(trained))
    damage(directory)
    with pytest.raises(ModelError) as raised:
        load_model(directory)
    assert message in str(raised.value)


def test_no_model_directory_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere is not a model directory .* give one that a"):
        load_model(tmp_path / "nowhere")


def test_an_artifact_that_is_a_pickle_is_not_run(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    directory = save_model(tmp_path, trained.model, make_report(trained))
    marker = tmp_path / "marker"
    (directory / "model.skops").write_bytes(pickle.dumps(Touch(marker)))
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["sha256"]["model.skops"] = hash_file(directory / "model.skops")
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"model.skops cannot be loaded"):
        load_model(directory)
    assert not marker.exists()


class Touch:
    """Creates a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return Path.touch, (self.marker,)


def test_two_may_save_the_same_run_at_once(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    with ThreadPoolExecutor(4) as pool:
        for attempt in range(5):
            models = tmp_path / str(attempt)
            jobs = [pool.submit(save_model, models, trained.model, report) for _ in range(4)]
            (directory,) = {job.result() for job in jobs}
            load_model(directory)
            assert [*directory.parent.iterdir()] == [directory]
