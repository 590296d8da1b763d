import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, Ridge

from taxi_duration import DataError, ModelError, train_model
from taxi_duration.data.clean import Trips, clean_trips
from taxi_duration.data.parquet import read_trips
from taxi_duration.model.features import FEATURE_SETS, FeatureSet, make_records
from taxi_duration.model.model import DurationModel
from taxi_duration.model.tables import tabulate
from taxi_duration.model.training import fit_window, sum_window
from tests.support.months import FEBRUARY, JANUARY, MARCH
from tests.support.strategies import Floats, feature_sets
from tests.support.strategies import clean_trips as trip_strategy


@pytest.fixture(scope="module", params=list(FEATURE_SETS))
def model(request: pytest.FixtureRequest) -> DurationModel:
    return train_model([JANUARY], features=request.param)


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return read_trips(FEBRUARY).head(2000)


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


def predict_alone(model: DurationModel, trips: Trips) -> Floats:
    """What its pipeline says, clipped as the model does."""
    alone = model.pipeline.predict(make_records(trips, model.features))
    return alone.clip(*model.features.bounds) if model.features.bounds else alone


def test_the_pipeline_alone_predicts_the_same_from_records(
    model: DurationModel, raw: pd.DataFrame
) -> None:
    trips, _ = clean_trips(raw)
    np.testing.assert_allclose(
        predict_alone(model, trips), model.predict_clean(trips), rtol=1e-12, atol=1e-12
    )


def test_the_pipeline_is_plain_scikit_learn(model: DurationModel) -> None:
    vectorizer, regression = (step for _, step in model.pipeline.steps)
    assert type(vectorizer) is DictVectorizer
    assert type(regression) is (Ridge if model.alpha else LinearRegression)
    assert model.regression is regression
    assert len(regression.coef_) == len(vectorizer.feature_names_) == model.columns
    assert np.isfinite(regression.coef_).all()


def test_the_columns_are_those_of_a_vectorizer_fitted_to_the_records(model: DurationModel) -> None:
    trips, _ = clean_trips(read_trips(JANUARY))
    theirs = DictVectorizer().fit(make_records(trips, model.features))
    ours = model.pipeline.named_steps["vectorizer"]
    assert ours.feature_names_ == theirs.feature_names_
    assert ours.vocabulary_ == theirs.vocabulary_


@settings(deadline=None, max_examples=40)
@given(trip_strategy(is_bounded=True), trip_strategy(), feature_sets())
def test_any_feature_set_predicts_what_its_pipeline_does(
    train: Trips, others: Trips, features: FeatureSet
) -> None:
    window = sum_window(features, [lambda: tabulate([train], features)])
    model = fit_window(window, 1.0).model
    theirs = DictVectorizer().fit(make_records(train, features))
    assume(theirs.feature_names_)  # scikit-learn predicts nothing from no feature at all
    assert model.pipeline.named_steps["vectorizer"].feature_names_ == theirs.feature_names_
    records = make_records(others, features)
    sizes = np.abs(model.regression.coef_)
    scale = abs(model.intercept) + np.abs(theirs.transform(records)) @ sizes
    error = np.abs(model.predict_clean(others) - model.pipeline.predict(records))
    assert (error <= 1e-12 * scale).all()


def assert_same(ours: DurationModel, theirs: DurationModel) -> None:
    assert (ours.features, ours.alpha) == (theirs.features, theirs.alpha)
    assert ours.intercept == theirs.intercept
    assert list(ours.coefficients) == list(theirs.coefficients)
    for term, coefficients in ours.coefficients.items():
        np.testing.assert_array_equal(coefficients, theirs.coefficients[term])


def test_a_model_is_what_its_pipeline_makes(model: DurationModel, raw: pd.DataFrame) -> None:
    made = DurationModel.from_pipeline(model.features, model.alpha, model.pipeline)
    assert_same(made, model)
    np.testing.assert_array_equal(made.predict(raw), model.predict(raw))


def test_a_pickled_model_is_small_and_the_same(model: DurationModel, raw: pd.DataFrame) -> None:
    before = model.predict(raw)  # after this it holds what is made at the first prediction
    assert model.pipeline is model.pipeline
    assert {*model.__getstate__()} == {"features", "alpha", "intercept", "coefficients"}
    pickled = pickle.dumps(model)
    assert len(pickled) < 2_000_000
    restored = pickle.loads(pickled)
    assert_same(restored, model)
    np.testing.assert_array_equal(restored.predict(raw), before)


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
    trips, _ = clean_trips(raw)
    zeros = np.zeros(len(trips["minutes"]), dtype=np.int64)
    nowhere = {**trips, "pickup_zone": zeros + 999, "dropoff_zone": zeros + 998}
    assert np.isfinite(model.predict(elsewhere)).all()
    np.testing.assert_allclose(predict_alone(model, nowhere), model.predict_clean(nowhere))
    also = {**nowhere, "pickup_zone": zeros, "dropoff_zone": zeros - 1}
    np.testing.assert_array_equal(model.predict_clean(also), model.predict_clean(nowhere))


def test_a_pair_never_seen_gets_the_intercept_and_its_distance(raw: pd.DataFrame) -> None:
    model = train_model([JANUARY], "course")
    predicted = model.predict(raw.assign(PULocationID=1, DOLocationID=2, trip_distance=2.5))
    assert np.isnan(model.coefficients["PU_DO"][1 * 266 + 2])
    slope = model.coefficients["trip_distance"][0]
    np.testing.assert_allclose(predicted, model.intercept + 2.5 * slope, rtol=1e-12)


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
    [
        ("PULocationID", None, "pickup_zone"),
        ("PULocationID", 74.5, "pickup_zone"),
        ("trip_distance", np.inf, "distance_miles"),
        ("trip_distance", -1.1e6, "distance_miles"),
    ],
)
def test_a_value_that_cannot_be_used_is_counted(
    model: DurationModel, raw: pd.DataFrame, column: str, value: float | None, ours: str
) -> None:
    broken = raw.astype({"PULocationID": "float64"})
    broken.loc[broken.index[:3], column] = value
    with pytest.raises(ModelError, match=rf"3 of 2,000 trips have no usable {ours}: drop or fill"):
        model.predict(broken)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("lpep_pickup_datetime", [1672648200000, 5], "times: numbers are not times"),
        ("lpep_pickup_datetime", ["2023-01-02", 5], "times: numbers are not times"),
        ("lpep_pickup_datetime", ["2023-01-02", "soon"], "times: .* unable to parse: soon"),
        ("lpep_pickup_datetime", [[], None], "times: <class 'list'> is not convertible"),
        ("PULocationID", ["74", "x"], "numbers: could not convert string to float: 'x'"),
        ("PULocationID", [{}, 74], r"numbers: float\(\) argument must be"),
        ("trip_distance", [10**400, 1], "numbers: int too large to convert to float"),
    ],
)
def test_values_of_a_wrong_kind_are_refused(
    column: str, values: list[object], reason: str, raw: pd.DataFrame
) -> None:
    with pytest.raises(DataError, match=f"column {column} .*, which cannot be read as {reason}"):
        EXTENDED.predict(raw.head(2).assign(**{column: values}))


def test_times_may_be_text(raw: pd.DataFrame) -> None:
    for text in raw["lpep_pickup_datetime"].astype(str), raw["lpep_pickup_datetime"].map(str):
        predicted = EXTENDED.predict(raw.assign(lpep_pickup_datetime=text.astype(object)))
        np.testing.assert_array_equal(predicted, EXTENDED.predict(raw))


def test_a_distance_beyond_fifty_miles_counts_as_none_to_extended_features(
    raw: pd.DataFrame,
) -> None:
    none, far, farther = (EXTENDED.predict(raw.assign(trip_distance=m)) for m in (0, 50.01, 3e5))
    np.testing.assert_array_equal(far, none)
    np.testing.assert_array_equal(farther, none)
    assert (EXTENDED.predict(raw.assign(trip_distance=50.0)) != none).any()


def test_predictions_are_clipped_at_both_bounds(raw: pd.DataFrame) -> None:
    window = sum_window(
        FeatureSet("narrow", ("miles",), bounds=(11.0, 12.0)),
        [lambda: tabulate([clean_trips(raw)[0]], FeatureSet("narrow", ("miles",)))],
    )
    model = fit_window(window).model
    near, far = (model.predict(raw.assign(trip_distance=miles)) for miles in (0.01, 29.0))
    assert ({*near}, {*far}) == ({11.0}, {12.0})


@pytest.mark.parametrize("terms", [("PU",), ("DO", "miles"), ("near*PU", "near*day_hour")])
def test_a_zone_that_no_term_needs_may_be_absent(terms: tuple[str, ...], raw: pd.DataFrame) -> None:
    model = train_model([JANUARY], FeatureSet("mine", terms, alphas=(1.0,)))
    absent = "PULocationID" if "DO" in terms else "DOLocationID"
    np.testing.assert_array_equal(model.predict(raw.drop(columns=absent)), model.predict(raw))
