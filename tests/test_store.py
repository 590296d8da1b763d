import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skops.io

from taxi_duration import ModelError, load_model
from taxi_duration.disk import hash_file
from taxi_duration.evaluation import Evaluation
from taxi_duration.features import FEATURE_SETS
from taxi_duration.month import Month
from taxi_duration.month_file import read_trips
from taxi_duration.report import Report, build_report
from taxi_duration.store import load_report, save_model
from taxi_duration.training import Training
from taxi_duration.trips import clean_trips
from tests.months import FEBRUARY, JANUARY
from tests.trained import train_on


@pytest.fixture(scope="module", params=list(FEATURE_SETS))
def trained(request: pytest.FixtureRequest) -> Training:
    return train_on(JANUARY, request.param)


def make_report(training: Training, sha256: str = "ab") -> Report:
    _, funnel = clean_trips(read_trips(FEBRUARY), Month(2025, 2))
    errors = Evaluation(rmse=5.5, mae=4.0, rows=funnel.rows_kept)
    return build_report(
        cab="green",
        training=training,
        train_months=[Month(2025, 1)],
        train_funnel=funnel,
        validation_month=Month(2025, 2),
        validation_funnel=funnel,
        validation=errors,
        baselines={"mean": errors, "zone_pair_median": errors},
        inputs={"green_tripdata_2025-01.parquet": sha256},
    )


def test_a_loaded_model_predicts_what_the_saved_one_did(trained: Training, tmp_path: Path) -> None:
    raw = read_trips(FEBRUARY)
    loaded = load_model(save_model(tmp_path, trained.model, make_report(trained)))
    np.testing.assert_array_equal(loaded.predict(raw), trained.model.predict(raw))
    assert loaded.features == trained.model.features


def test_the_file_is_plain_scikit_learn(trained: Training, tmp_path: Path) -> None:
    path = save_model(tmp_path, trained.model, make_report(trained)) / "model.skops"
    assert skops.io.get_untrusted_types(file=path) == []


def test_the_directory_is_named_by_month_and_identity(trained: Training, tmp_path: Path) -> None:
    directory = save_model(tmp_path, trained.model, make_report(trained))
    assert directory.parent == tmp_path / "green"
    assert directory.name.startswith("2025-01-")
    assert sorted(path.name for path in directory.iterdir()) == [
        "manifest.json",
        "model.skops",
        "report.json",
    ]


def test_equal_inputs_give_the_same_directory_and_other_inputs_another(
    trained: Training, tmp_path: Path
) -> None:
    first = save_model(tmp_path, trained.model, make_report(trained))
    written = (first / "model.skops").stat().st_mtime_ns
    assert save_model(tmp_path, trained.model, make_report(trained)) == first
    assert (first / "model.skops").stat().st_mtime_ns == written
    assert save_model(tmp_path, trained.model, make_report(trained, sha256="cd")) != first
    assert len(list((tmp_path / "green").iterdir())) == 2


def test_other_versions_and_other_figures_are_not_taken_for_the_same(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    first = save_model(tmp_path, trained.model, report)
    other_version = {**report, "versions": {**report["versions"], "numpy": "0"}}
    assert save_model(tmp_path, trained.model, other_version) != first
    # As after a correction of this package's own code: same inputs, another result.
    corrected = {**report, "alpha": report["alpha"], "train": {**report["train"], "rmse": 1.0}}
    assert save_model(tmp_path, trained.model, corrected) == first
    assert load_report(first) == corrected


def test_a_damaged_directory_is_written_anew(trained: Training, tmp_path: Path) -> None:
    directory = save_model(tmp_path, trained.model, make_report(trained))
    (directory / "manifest.json").unlink()
    assert save_model(tmp_path, trained.model, make_report(trained)) == directory
    load_model(directory)
    assert list((tmp_path / "green").iterdir()) == [directory]


def test_the_report_round_trips(trained: Training, tmp_path: Path) -> None:
    report = make_report(trained)
    assert load_report(save_model(tmp_path, trained.model, report)) == report


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    report = make_report(trained)
    report["validation"]["rmse"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
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
        (remove("model.skops"), "model.skops is missing or not what was written: restore it or"),
        (remove("report.json"), "report.json is missing or not what was written"),
        (flip_a_byte, "model.skops is missing or not what was written"),
        (raise_the_format, "has format 99; this version reads 2: train the model again."),
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
