import functools
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taxi_duration import DataError, InputError, train_model
from taxi_duration.data.clean import clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import read_trips
from taxi_duration.data.schema import CABS
from taxi_duration.errors import StorageError
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.files import hash_file
from taxi_duration.model.baselines import find_medians, make_keys
from taxi_duration.model.features import FEATURE_SETS, FeatureSet
from taxi_duration.model.model import DurationModel
from taxi_duration.model.month_sums import (
    MonthSums,
    Profile,
    load_sums,
    recall_month,
    reduce_month,
    save_sums,
)
from tests.regression.test_metrics import look_up
from tests.support.months import FEBRUARY, JANUARY, write_month

EXTENDED = FEATURE_SETS["extended"]
COURSE = FEATURE_SETS["course"]
EMPTY_ZIP = b"PK\5\6" + bytes(18)


def recall(*arguments: Any, **options: Any) -> tuple[Path, bool]:
    """The file of kept sums, and whether it was there."""
    month = recall_month(*arguments, **options)
    return month.path, month.was_there


def assert_same_model(ours: DurationModel, theirs: DurationModel) -> None:
    assert (ours.features, ours.alpha) == (theirs.features, theirs.alpha)
    assert ours.intercept == theirs.intercept
    for term, coefficients in ours.coefficients.items():
        np.testing.assert_array_equal(coefficients, theirs.coefficients[term])


@pytest.mark.parametrize("name", list(FEATURE_SETS))
def test_kept_sums_give_the_same_model_to_the_last_bit(tmp_path: Path, name: str) -> None:
    paths = [JANUARY, FEBRUARY]
    fresh = train_model(paths, name)
    assert_same_model(train_model(paths, name), fresh)
    for _ in ("kept anew", "found again"):
        assert_same_model(train_model(paths, name, sums_directory=tmp_path / "sums"), fresh)
    assert len(list((tmp_path / "sums").iterdir())) == 2


@pytest.mark.parametrize("features", [COURSE, EXTENDED, FeatureSet("hours", ("near*day_hour",))])
def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path: Path, features: FeatureSet) -> None:
    sums = reduce_month(JANUARY, features, with_medians=True)
    save_sums(tmp_path / "sums.npz", sums)
    loaded = load_sums(tmp_path / "sums.npz", features)
    assert loaded.funnel == sums.funnel
    np.testing.assert_array_equal(loaded.medians.minutes, sums.medians.minutes)
    for name, counts in sums.profile.counts.items():
        np.testing.assert_array_equal(loaded.profile.counts[name], counts)
    for ours, theirs in zip(loaded.tables, sums.tables, strict=True):
        assert ours.minutes_squares == theirs.minutes_squares
        for table in ("pairs", "pickup_hours", "dropoff_hours"):
            np.testing.assert_array_equal(getattr(ours, table), getattr(theirs, table))
        for a, b in zip(ours.crossed, theirs.crossed, strict=True):
            assert a.shape == b.shape
            assert (a != b).nnz == 0


def test_a_month_without_medians_has_neither_these_nor_a_profile(tmp_path: Path) -> None:
    save_sums(tmp_path / "sums.npz", reduce_month(JANUARY, COURSE))
    loaded = load_sums(tmp_path / "sums.npz", COURSE)
    assert (loaded.medians, loaded.profile) == (None, None)


def test_the_profile_of_a_month_is_that_of_its_trips_however_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taxi_duration.data.parquet.CHUNK_ROWS", 1000)
    trips, _ = clean_trips(read_trips(JANUARY))
    reduced = reduce_month(JANUARY, COURSE, with_medians=True).profile
    predictors = {"model": train_model([JANUARY], "course").predict_clean}
    scored = evaluate_predictors(predictors, JANUARY, in_detail=True).profile
    assert not evaluate_predictors(predictors, JANUARY).profile.hour.any()
    for name, counts in Profile.of(trips).counts.items():
        np.testing.assert_array_equal(reduced.counts[name], counts)
        np.testing.assert_array_equal(scored.counts[name], counts)


def test_a_month_that_was_reduced_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = tmp_path / "sums"
    first, was_there = recall(sums, JANUARY, EXTENDED)
    assert not was_there
    os.utime(first, ns=(1, 1))

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the file was read again")

    monkeypatch.setattr("taxi_duration.model.month_sums.reduce_trips", refuse)
    assert recall(sums, JANUARY, EXTENDED) == (first, True)
    assert recall(sums, JANUARY, EXTENDED, sha256=hash_file(JANUARY)) == (first, True)
    assert first.stat().st_mtime_ns == 1
    train_model([JANUARY], "extended", sums_directory=sums)


def test_fresh_sums_are_computed_though_they_are_there(tmp_path: Path) -> None:
    sums = tmp_path / "sums"
    first, _ = recall(sums, JANUARY, COURSE)
    os.utime(first, ns=(1, 1))
    assert recall(sums, JANUARY, COURSE, fresh=True) == (first, False)
    assert first.stat().st_mtime_ns != 1
    assert recall(sums, JANUARY, COURSE) == (first, True)


def test_the_same_bytes_elsewhere_are_the_same_month(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(JANUARY, tmp_path / "elsewhere" / JANUARY.name)
    first, _ = recall(tmp_path / "sums", JANUARY, COURSE)
    assert recall(tmp_path / "sums", copy, COURSE) == (first, True)


def test_whatever_the_sums_follow_from_makes_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sums = write_month(tmp_path / "month.parquet"), tmp_path / "sums"
    green, month = CABS["green"], Month(2023, 1)
    same_terms = FeatureSet("another", COURSE.terms, bounds=(1, 60), alphas=(5.0,))
    two_parts = FeatureSet("another", COURSE.terms, alphas=(5.0, 6.0))
    first, _ = recall(sums, path, COURSE)
    assert recall(sums, path, same_terms) == (first, True)
    kept = [
        recall(sums, path, COURSE),
        recall(sums, path, two_parts),
        recall(sums, path, EXTENDED),
        recall(sums, path, COURSE, green),
        recall(sums, path, COURSE, green, month),
        recall(sums, path, COURSE, green, month.next),
        recall(sums, path, COURSE, green, month, with_medians=True),
    ]
    monkeypatch.setattr("taxi_duration.model.month_sums.identify_code", lambda _: "other code")
    kept.append(recall(sums, path, COURSE))
    monkeypatch.undo()
    write_month(path, minutes=11.0)
    kept.append(recall(sums, path, COURSE))
    assert [was_there for _, was_there in kept] == [True] + [False] * 8
    assert len({kept_at for kept_at, _ in kept}) == 9
    assert kept[4][0].name.startswith("2023-01-")
    assert sorted(sums.iterdir()) == sorted(kept_at for kept_at, _ in kept)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:],
        lambda whole: b"PK" + whole[::-1],
        lambda whole: EMPTY_ZIP,
    ],
    ids=["truncated", "empty", "a bit flipped", "garbage", "another zip file"],
)
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: Any) -> None:
    kept, _ = recall(tmp_path, JANUARY, COURSE)
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert recall(tmp_path, JANUARY, COURSE) == (kept, False)
    assert recall(tmp_path, JANUARY, COURSE) == (kept, True)
    fresh = train_model([JANUARY], "course")
    assert_same_model(train_model([JANUARY], "course", sums_directory=tmp_path), fresh)


@pytest.mark.parametrize(
    ("array", "found", "put"),
    [
        ("0.pairs.npy", b"'shape': (2, ", b"'shape': (1, "),
        ("0.pairs.rows.npy", b"'shape': (", b"'shape': ) "),
        ("medians.npy", b"'shape': (7", b"'shape': (3"),
    ],
)
def test_a_header_that_says_less_than_there_is_does_not_pass(
    tmp_path: Path, array: str, found: bytes, put: bytes
) -> None:
    january = functools.partial(recall_month, tmp_path, JANUARY, COURSE, with_medians=True)
    kept = january().path
    whole = kept.read_bytes()
    with zipfile.ZipFile(kept) as archive:
        start = archive.getinfo(array).header_offset
    place = whole.index(found, start)
    kept.write_bytes(whole[:place] + put[: len(found)] + whole[place + len(found) :])
    assert not january().was_there
    assert kept.read_bytes() == whole


def test_a_month_that_changes_while_it_is_read_leaves_no_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sums = write_month(tmp_path / "month.parquet"), tmp_path / "sums"
    located = hash_file(path)

    def reduce_another(*arguments: Any, **options: Any) -> MonthSums:
        write_month(path, minutes=20)  # as another run does that fetched it anew
        return reduce_month(*arguments, **options)

    monkeypatch.setattr("taxi_duration.model.month_sums.reduce_month", reduce_another)
    with pytest.raises(
        DataError, match=r"month.parquet changed while it was read: another run has"
    ):
        recall_month(sums, path, COURSE, sha256=located)
    assert not sums.exists()


def test_nothing_is_left_of_a_writing_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"PK half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", fill_the_disk)
        with pytest.raises(StorageError) as raised:
            recall(tmp_path / "sums", JANUARY, COURSE)
    writing = f"writing {tmp_path / 'sums' / 'synthetic_green'}"
    assert str(raised.value).startswith(writing)
    assert "failed (No space left on device): free space on its disk" in str(raised.value)
    assert list((tmp_path / "sums").iterdir()) == []
    kept, was_there = recall(tmp_path / "sums", JANUARY, COURSE)
    assert not was_there
    assert list((tmp_path / "sums").iterdir()) == [kept]


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sums"
    path.write_text("not a directory")
    with pytest.raises(InputError) as raised:
        train_model([JANUARY], "course", sums_directory=path)
    assert str(raised.value) == f"sums directory {path} is a file: give a directory."


def test_a_month_without_trips_is_not_kept(tmp_path: Path) -> None:
    path = write_month(tmp_path / "long.parquet", minutes=61)
    with pytest.raises(DataError, match="no trip is left of 12: 12 longer than 60 minutes"):
        recall(tmp_path / "sums", path, COURSE)
    assert not (tmp_path / "sums").exists()


def test_the_medians_of_a_month_are_those_of_pandas(real_data: Path) -> None:
    train, validation = (real_data / f"green_tripdata_2023-0{month}.parquet" for month in (1, 2))
    (trips, _), (others, _) = clean_trips(read_trips(train)), clean_trips(read_trips(validation))
    medians = reduce_month(train, COURSE, with_medians=True).medians
    assert medians is not None
    np.testing.assert_allclose(medians.predict(others), look_up(trips, others), atol=2e-8)
    np.testing.assert_array_equal(medians.minutes, find_medians(make_keys(trips)).minutes)


def test_the_median_baseline_gives_the_known_figure(real_data: Path) -> None:
    train, validation = (real_data / f"green_tripdata_2021-0{month}.parquet" for month in (1, 2))
    medians = reduce_month(train, COURSE, with_medians=True).medians
    others, _ = clean_trips(read_trips(validation))
    errors = others["minutes"] - medians.predict(others)
    assert f"{np.sqrt(np.square(errors).mean()):.4f}" == "8.4227"


def test_a_sums_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"sums directory .*file is a file: give a directory"):
        train_model([JANUARY], "course", sums_directory=tmp_path / "file")


def test_a_missing_month_is_named_whether_or_not_sums_are_kept(tmp_path: Path) -> None:
    for options in ({}, {"sums_directory": tmp_path / "sums"}):
        with pytest.raises(DataError, match=r"absent.parquet does not exist: give the path of a m"):
            train_model([tmp_path / "absent.parquet"], "course", **options)


def test_sums_of_products_that_cancel_are_kept(tmp_path: Path) -> None:
    raw = pd.read_parquet(write_month(tmp_path / "month.parquet"))
    # Two trips of one pair and hour, whose miles add up to nothing, and their squares do not.
    raw = pd.concat([raw, raw.assign(trip_distance=-raw["trip_distance"])])
    raw.to_parquet(tmp_path / "month.parquet")
    features = FeatureSet("cancelling", ("PU", "trip_distance*PU", "trip_distance*day_hour"))
    fresh = train_model([tmp_path / "month.parquet"], features)
    for _ in range(2):
        kept = train_model([tmp_path / "month.parquet"], features, sums_directory=tmp_path / "sums")
        assert_same_model(kept, fresh)
