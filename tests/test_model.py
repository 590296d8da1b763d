from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration import DataError, InputError, ModelError, train_model
from taxi_duration.features import FEATURE_SETS, FeatureSet, make_records
from taxi_duration.model import DurationModel
from taxi_duration.month_file import read_trips
from taxi_duration.trips import clean_trips
from tests.months import FEBRUARY, JANUARY, MARCH


@pytest.fixture(scope="module", params=list(FEATURE_SETS))
def model(request: pytest.FixtureRequest) -> DurationModel:
    return train_model([JANUARY], features=request.param)


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return read_trips(FEBRUARY).head(2000)


# The converged column of the design's ground truth, to its last decimal.
@pytest.mark.parametrize(
    ("train", "validation", "rmse", "rows"),
    [
        ("2021-01", "2021-02", "7.480827", 61_921),
        ("2023-01", "2023-02", "6.033847", 62_574),
        ("2023-02", "2023-03", "6.160602", 69_392),
    ],
)
def test_course_features_give_the_converged_figures(
    real_data: Path, train: str, validation: str, rmse: str, rows: int
) -> None:
    model = train_model([real_data / f"green_tripdata_{train}.parquet"], "course", alpha=0.0)
    errors = model.evaluate(real_data / f"green_tripdata_{validation}.parquet")
    assert (f"{errors.rmse:.6f}", errors.rows) == (rmse, rows)


def test_extended_features_beat_course_features_on_real_months(real_data: Path) -> None:
    train, validation = (real_data / f"green_tripdata_2023-0{month}.parquet" for month in (1, 2))
    rmse = {name: train_model([train], name).evaluate(validation).rmse for name in FEATURE_SETS}
    assert rmse["extended"] < rmse["course"]


@pytest.mark.parametrize(
    "name",
    [
        "green_tripdata_2023-01.parquet",
        "green_tripdata_2023-02.parquet",
        "green_tripdata_2025-02.parquet",
        "yellow_tripdata_2022-01.head100000.parquet",
    ],
)
def test_every_schema_trains(real_data: Path, name: str) -> None:
    errors = train_model([real_data / name]).evaluate(real_data / name)
    assert 1 < errors.rmse < 6


def test_several_months_train_together(model: DurationModel) -> None:
    both = train_model([JANUARY, FEBRUARY], model.features)
    assert both.evaluate(MARCH).rmse < train_model([JANUARY], model.features).evaluate(MARCH).rmse


def test_the_pipeline_alone_predicts_the_same_from_records(
    model: DurationModel, raw: pd.DataFrame
) -> None:
    trips, _ = clean_trips(raw)
    alone = model.pipeline.predict(make_records(trips, model.features))
    if model.features.bounds:
        alone = alone.clip(*model.features.bounds)
    np.testing.assert_allclose(alone, model.predict_clean(trips), rtol=1e-12)


def test_predictions_follow_the_rows_they_are_for(model: DurationModel, raw: pd.DataFrame) -> None:
    shuffled = raw.sample(frac=1, random_state=3)
    expected = pd.Series(model.predict(raw), index=raw.index)[shuffled.index]
    np.testing.assert_array_equal(model.predict(shuffled), expected)


def test_only_the_columns_a_feature_set_needs_are_asked_for(raw: pd.DataFrame) -> None:
    columns = ["PULocationID", "DOLocationID", "trip_distance"]
    model = train_model([JANUARY], "course")
    np.testing.assert_array_equal(model.predict(raw[columns]), model.predict(raw))
    with pytest.raises(
        DataError, match=r"column lpep_pickup_datetime or tpep_pickup_datetime is m"
    ):
        train_model([JANUARY], "extended").predict(raw[columns])


def test_zones_never_seen_are_predicted(model: DurationModel, raw: pd.DataFrame) -> None:
    elsewhere = raw.assign(PULocationID=999, DOLocationID=998)
    assert np.isfinite(model.predict(elsewhere)).all()


def test_no_trips_no_predictions(model: DurationModel, raw: pd.DataFrame) -> None:
    assert model.predict(raw.iloc[:0]).shape == (0,)


@given(st.floats(0, 1e6), st.integers(1, 265), st.integers(1, 265))
def test_extended_predictions_stay_within_bounds(miles: float, pickup: int, dropoff: int) -> None:
    trip = pd.DataFrame(
        {
            "tpep_pickup_datetime": [pd.Timestamp("2025-02-03 18:00")],
            "PULocationID": [pickup],
            "DOLocationID": [dropoff],
            "trip_distance": [miles],
        }
    )
    assert 1.0 <= EXTENDED.predict(trip)[0] <= 60.0


EXTENDED = train_model([JANUARY], "extended")


@pytest.mark.parametrize(
    ("column", "value", "ours"),
    [("PULocationID", None, "pickup_zone"), ("trip_distance", np.inf, "distance_miles")],
)
def test_a_value_that_cannot_be_used_is_counted(
    model: DurationModel, raw: pd.DataFrame, column: str, value: float | None, ours: str
) -> None:
    broken = raw.astype({"PULocationID": "float64"})
    broken.loc[broken.index[:3], column] = value
    with pytest.raises(ModelError, match=rf"3 of 2,000 trips have no usable {ours}: drop or fill"):
        model.predict(broken)


def test_no_trip_is_longer_than_thirty_miles_to_extended_features(raw: pd.DataFrame) -> None:
    far, farther = (EXTENDED.predict(raw.assign(trip_distance=miles)) for miles in (30.0, 40.0))
    np.testing.assert_array_equal(far, farther)


def test_a_file_that_claims_too_many_rows_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_duration.month_file.MAX_ROWS", 19_599)
    with pytest.raises(DataError, match=r"claims 19,600 rows; a month has at most 19,599"):
        train_model([JANUARY])


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf"), True])
def test_a_penalty_is_finite_and_not_negative(alpha: float) -> None:
    with pytest.raises(InputError, match=rf"alpha {alpha} is not a penalty: give a finite number"):
        train_model([JANUARY], alpha=alpha)


def test_paths_are_a_list_and_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"paths is empty: give at least one month's file"):
        train_model([])
    with pytest.raises(InputError, match=r"paths is the single path .*: give a list of paths"):
        train_model(JANUARY)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"absent.parquet does not exist: give the path of a month"):
        train_model([tmp_path / "absent.parquet"])


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.parquet"
    path.write_text("<html>not yet</html>")
    with pytest.raises(DataError, match=r"page.parquet is not a parquet file: .* fetch it again"):
        train_model([path])


def test_a_feature_set_of_ones_own_trains() -> None:
    mine = FeatureSet("mine", ("PU", "miles", "root_miles*DO"), alpha=1.0)
    assert train_model([JANUARY], mine).evaluate(FEBRUARY).rmse < 10
