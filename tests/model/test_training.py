import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from taxi_duration import DataError, InputError, train_model
from taxi_duration.data.clean import Trips, clean_trips
from taxi_duration.data.parquet import read_trips
from taxi_duration.model.features import FEATURE_SETS, FeatureSet, build_matrix, fit_vectorizer
from taxi_duration.model.month_sums import reduce_month
from taxi_duration.model.tables import tabulate
from taxi_duration.model.training import Training, Window, fit_window, sum_window
from tests.support.months import FEBRUARY, JANUARY, MARCH, write_month
from tests.support.strategies import Floats, deal, make_trips, solve_densely, take

EXTENDED = FEATURE_SETS["extended"]


@pytest.fixture
def green(real_data: Path) -> dict[str, Path]:
    return {path.stem[-7:]: path for path in sorted(real_data.glob("green_tripdata_*.parquet"))}


def read_window(paths: Sequence[Path], features: FeatureSet) -> Window:
    return sum_window(features, [lambda p=path: reduce_month(p, features).tables for path in paths])


def fit_chunks(
    months: Sequence[list[Trips]], features: FeatureSet, alpha: float | None = None
) -> Training:
    """Fit months that are given as chunks of their trips."""
    tables = [lambda c=chunks: tabulate(c, features) for chunks in months]
    return fit_window(sum_window(features, tables), alpha)


def fit_to(paths: Sequence[Path], features: FeatureSet, alpha: float | None = None) -> Training:
    return fit_window(read_window(paths, features), alpha)


def read_clean(*paths: Path) -> Trips:
    trips = [clean_trips(read_trips(path))[0] for path in paths]
    return {name: np.concatenate([each[name] for each in trips]) for name in trips[0]}


def measure_rmse(predicted: Floats, trips: Trips) -> float:
    return float(np.sqrt(np.square(trips["minutes"] - predicted).mean()))


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
    green: dict[str, Path], train: str, validation: str, rmse: str, rows: int
) -> None:
    errors = train_model([green[train]], "course", alpha=0.0).evaluate(green[validation])
    assert (f"{errors.rmse:.6f}", errors.rows) == (rmse, rows)


@pytest.mark.parametrize(
    ("train", "validation", "rmse", "at_most"),
    [
        (["2021-01"], "2021-02", "5.5998", 5.72),
        (["2023-01"], "2023-02", "4.5229", 4.66),
        (["2023-05"], "2023-06", "4.9717", 5.0),
        (["2023-03", "2023-04", "2023-05"], "2023-06", "4.8139", 4.9),
    ],
)
def test_extended_features_are_as_accurate_as_we_say(
    green: dict[str, Path], train: list[str], validation: str, rmse: str, at_most: float
) -> None:
    errors = train_model([green[month] for month in train]).evaluate(green[validation])
    assert errors.rmse <= at_most
    assert f"{errors.rmse:.4f}" == rmse


def test_a_window_of_three_months_beats_its_last(green: dict[str, Path]) -> None:
    window = [green[month] for month in ("2023-03", "2023-04", "2023-05")]
    rmse = [train_model(paths).evaluate(green["2023-06"]).rmse for paths in (window, window[-1:])]
    assert rmse[0] < 0.98 * rmse[1]


def test_several_months_train_as_one(tmp_path: Path) -> None:
    together = tmp_path / "together.parquet"
    pd.concat([read_trips(JANUARY), read_trips(FEBRUARY)]).to_parquet(together)
    for name in FEATURE_SETS:
        one = train_model([together], name, alpha=1.0)
        several = train_model([JANUARY, FEBRUARY], name, alpha=1.0)
        trips = read_clean(MARCH)
        np.testing.assert_allclose(
            several.predict_clean(trips), one.predict_clean(trips), rtol=1e-9
        )


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("seed", [3, 4])
def test_small_windows_are_solved_as_a_dense_solver_does(seed: int, alpha: float) -> None:
    trips = make_trips(np.random.default_rng(seed), 700)
    months = [[take(trips, slice(0, 300))], [take(trips, slice(300, 700))]]
    training = fit_chunks(months, EXTENDED, alpha)
    vectorizer = training.model.pipeline.named_steps["vectorizer"]
    matrix = build_matrix(trips, EXTENDED, vectorizer).toarray()
    coefficients, intercept = solve_densely(matrix, trips["minutes"], None, alpha)
    largest = np.abs(coefficients).max()
    np.testing.assert_allclose(
        training.model.regression.coef_, coefficients, rtol=1e-8, atol=1e-8 * largest
    )
    assert training.model.intercept == pytest.approx(intercept, rel=1e-8, abs=1e-8)


def test_one_more_feature_never_worsens_the_fit_to_the_window() -> None:
    # The halves of the split pair come together.
    grown = [("PU_DO",), *(EXTENDED.terms[:count] for count in range(2, len(EXTENDED.terms) + 1))]
    rmse = [fit_to([JANUARY], FeatureSet("grown", terms)).rmse for terms in grown]
    # Some terms follow from others and change nothing but the rounding.
    assert all(more <= fewer * (1 + 1e-9) for fewer, more in itertools.pairwise(rmse)), rmse
    assert rmse[-1] < 0.8 * rmse[0]


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("name", list(FEATURE_SETS))
def test_the_fit_to_the_window_is_that_over_its_rows(
    green: dict[str, Path], name: str, alpha: float
) -> None:
    features = FeatureSet(name, FEATURE_SETS[name].terms)  # without bounds: before clipping
    training = fit_to([green["2023-01"]], features, alpha)
    trips = read_clean(green["2023-01"])
    predicted = training.model.predict_clean(trips)
    assert training.rmse == pytest.approx(measure_rmse(predicted, trips), rel=1e-9)
    assert training.trips == len(predicted) == 65_946


def test_alpha_is_the_one_that_does_best_on_the_late_trips_of_the_last_month() -> None:
    paths = [JANUARY, FEBRUARY]
    training = fit_to(paths, EXTENDED)
    first, last = (read_clean(path) for path in paths)
    late = pd.DatetimeIndex(last["pickup"]).day >= 25
    early = {name: np.concatenate([first[name], last[name][~late]]) for name in first}
    held_out = take(last, late)
    vectorizer = training.model.pipeline.named_steps["vectorizer"]
    rows, held_out_rows = (build_matrix(t, EXTENDED, vectorizer) for t in (early, held_out))
    assert [trial.alpha for trial in training.trials] == list(EXTENDED.alphas)
    for trial in training.trials:
        # The default tolerance stops it after few digits; this one is within rounding.
        brute = Ridge(alpha=trial.alpha, solver="lsqr", tol=1e-14, max_iter=20_000)
        brute.fit(rows, early["minutes"])
        expected = measure_rmse(brute.predict(held_out_rows), held_out)
        assert trial.rmse == pytest.approx(expected, rel=1e-7)
    best = min(training.trials, key=lambda trial: trial.rmse)
    assert training.model.alpha == best.alpha
    assert len({trial.rmse for trial in training.trials}) == len(training.trials)


@pytest.mark.parametrize("alphas", [(1e-3, 1e9), (1e9, 1e-3), (1e9, 1e-3, 1e8), (1e-3,)])
def test_the_best_alpha_is_found_wherever_it_stands(alphas: tuple[float, ...]) -> None:
    features = FeatureSet("mine", ("PU", "miles"), alphas)
    training = fit_to([JANUARY], features)
    assert training.model.alpha == 1e-3
    given = fit_to([JANUARY], features, 1e-3)
    assert training.model.intercept == given.model.intercept
    for term, coefficients in training.model.coefficients.items():
        np.testing.assert_array_equal(coefficients, given.model.coefficients[term])


def test_the_chosen_alpha_is_fitted_to_the_whole_window() -> None:
    chosen = fit_to([JANUARY, FEBRUARY], EXTENDED)
    given = fit_to([JANUARY, FEBRUARY], EXTENDED, chosen.model.alpha)
    assert given.trials == ()
    assert (given.rmse, given.trips) == (chosen.rmse, chosen.trips)
    np.testing.assert_array_equal(given.model.regression.coef_, chosen.model.regression.coef_)
    window = read_window([JANUARY, FEBRUARY], EXTENDED)
    assert window.held_out is not None
    assert window.fitted.weight + window.held_out.weight == chosen.trips


def test_only_late_trips_of_the_last_month_are_held_out() -> None:
    window = read_window([JANUARY, FEBRUARY], EXTENDED)
    late = pd.DatetimeIndex(read_clean(FEBRUARY)["pickup"]).day >= 25
    assert window.held_out is not None
    assert window.held_out.weight == np.count_nonzero(late)
    trips = read_clean(JANUARY, FEBRUARY)
    assert window.mean_minutes == pytest.approx(trips["minutes"].mean(), rel=1e-12)
    assert window.columns == train_model([JANUARY, FEBRUARY]).columns


@pytest.mark.parametrize("day", ["05", "28"])
def test_without_early_or_late_trips_the_middle_alpha_is_taken(tmp_path: Path, day: str) -> None:
    path = write_month(tmp_path / "month.parquet")
    trips = pd.read_parquet(path)
    shift = pd.Timestamp(f"2023-01-{day}") - pd.Timestamp("2023-01-10")
    for column in ("lpep_pickup_datetime", "lpep_dropoff_datetime"):
        trips[column] += shift
    trips.to_parquet(path)
    training = fit_to([path], EXTENDED)
    assert (training.trials, training.model.alpha, training.trips) == ((), 3.0, 12)
    # With a month before, the trips of one month's last days are enough to choose on.
    assert bool(fit_to([JANUARY, path], EXTENDED).trials) == (day == "28")
    assert fit_to([JANUARY, path], EXTENDED).trips == fit_to([JANUARY], EXTENDED).trips + 12


@pytest.mark.parametrize("name", list(FEATURE_SETS))
def test_months_in_any_order_and_chunks_give_the_same_model(name: str) -> None:
    generator = np.random.default_rng(1)
    features = FEATURE_SETS[name]
    trips = make_trips(generator, 4000, zones=20)
    alpha = features.alphas[0]
    months = [deal(part, generator, 3) for part in deal(trips, generator, 4)]
    whole = fit_chunks([[trips]], features, alpha)
    for order in (months, months[::-1]):
        training = fit_chunks(order, features, alpha)
        assert training.rmse == pytest.approx(whole.rmse, rel=1e-9)
        assert training.model.columns == whole.model.columns
        np.testing.assert_allclose(
            training.model.predict_clean(trips), whole.model.predict_clean(trips), rtol=1e-9
        )
        for term, coefficients in whole.model.coefficients.items():
            np.testing.assert_allclose(
                training.model.coefficients[term], coefficients, rtol=1e-9, atol=1e-9
            )


def test_memory_does_not_grow_with_the_months() -> None:
    def peak(months: int) -> int:
        tracemalloc.start()
        try:
            train_model([JANUARY] * months, "extended")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is made once and kept
    # One month alone is added to nothing; from the second on, no more is held at a time.
    one, two, six = peak(1), peak(2), peak(6)
    assert six < 1.05 * two
    assert six < 1.5 * one


def test_paths_are_a_list_and_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"paths is empty: give at least one month's file"):
        train_model([])
    with pytest.raises(InputError, match=r"paths is the single path .*: give a list of paths"):
        train_model(JANUARY)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"absent.parquet does not exist: give the path of a month"):
        train_model([tmp_path / "absent.parquet"])


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf"), True])
def test_a_penalty_is_finite_and_not_negative(alpha: float) -> None:
    with pytest.raises(InputError) as raised:
        train_model([JANUARY], alpha=alpha)
    assert str(raised.value) == (
        f"alpha {alpha} is not a penalty: give a finite number of at least 0."
    )


def test_a_feature_set_of_ones_own_trains() -> None:
    mine = FeatureSet("mine", ("PU", "miles", "near*DO"), alphas=(1.0,))
    model = train_model([JANUARY], mine)
    assert model.alpha == 1.0
    assert model.evaluate(FEBRUARY).rmse < 10
    assert fit_vectorizer(model.pipeline.named_steps["vectorizer"].feature_names_).vocabulary_
