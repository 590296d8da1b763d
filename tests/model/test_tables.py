import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer

from taxi_duration.data.clean import Trips
from taxi_duration.data.clean import clean_trips as clean
from taxi_duration.data.parquet import read_trips
from taxi_duration.model.features import FEATURE_SETS, PAIRS, FeatureSet, build_matrix, make_records
from taxi_duration.model.tables import Layout, Tables, is_late, tabulate
from taxi_duration.regression.solve import NormalEquations
from taxi_duration.regression.sums import Sums
from tests.support.months import JANUARY
from tests.support.strategies import clean_trips, deal, feature_sets, make_trips, take

ALPHAS = (1.0, 2.0)


def assert_close(ours: object, theirs: object, scale: object, relative: float = 1e-12) -> None:
    """Entries agree relative to the scale their products could reach."""
    error = np.abs(np.asarray(ours) - np.asarray(theirs))
    assert (error <= relative * np.asarray(scale)).all(), (error / scale).max()


def assert_sums_are_of_rows(tables: Tables, trips: Trips, features: FeatureSet) -> None:
    """The tables' sums, column by column as they are named, are those of the rows themselves."""
    records = make_records(trips, features)
    vectorizer = DictVectorizer().fit(records)
    names = vectorizer.feature_names_
    is_level = np.array(["PU_DO=" in name for name in names], dtype=bool)
    rows = Sums.of_rows(build_matrix(trips, features, vectorizer), trips["minutes"], is_level)
    sums, layout = tables.sum_columns(), Layout(features)
    levels = [
        place * PAIRS + code
        for place, term in enumerate(layout.absorbed)
        for code in np.flatnonzero(sums.levels.reshape(-1, PAIRS)[place])
    ]
    level_names = [layout.absorbed[i // PAIRS].name_columns([i % PAIRS])[0] for i in levels]
    diagonal, columns, column_names = sums.gram.diagonal(), [0], ["1"]
    for term in layout.terms[1:]:
        codes = np.arange(layout.slices[term.name].stop - layout.slices[term.name].start)
        places = codes + layout.slices[term.name].start
        seen = codes if term.level is None else np.flatnonzero(diagonal[places])
        columns += places[seen].tolist()
        column_names += term.name_columns(seen.tolist())
    assert sorted(level_names + column_names[1:]) == names
    level_order = np.argsort(np.array(level_names, dtype=object)).astype(np.intp)
    order = np.argsort(np.array(column_names[1:], dtype=object)).astype(np.intp) + 1
    at = np.array(columns, dtype=np.intp)[np.concatenate([[0], order]).astype(np.intp)]
    level_at = np.array(levels, dtype=np.intp)[level_order]
    length = np.sqrt(rows.gram.diagonal())
    level_length = np.sqrt(rows.levels)
    target = np.sqrt(rows.target_squares)
    assert sums.weight == rows.weight == tables.trips == len(records)
    assert_close(sums.target_squares, rows.target_squares, rows.target_squares)
    assert_close(sums.targets[at], rows.targets, length * target)
    assert_close(sums.gram[np.ix_(at, at)], rows.gram, np.outer(length, length))
    assert_close(sums.levels[level_at], rows.levels, rows.levels)
    assert_close(sums.level_targets[level_at], rows.level_targets, level_length * target)
    cross = sparse.hstack(sums.cross, "csr")[level_at][:, at].toarray()
    assert_close(cross, rows.cross[0].toarray(), np.outer(level_length, length))
    elsewhere = np.setdiff1d(np.arange(len(diagonal)), at)
    assert not sums.gram[elsewhere].any()
    assert not sums.targets[elsewhere].any()
    assert sum(abs(block).sum() for block in sums.cross) == pytest.approx(abs(cross).sum())


@pytest.mark.parametrize("name", list(FEATURE_SETS))
def test_the_sums_of_a_month_are_those_of_its_rows(real_data: Path, name: str) -> None:
    trips, _ = clean(read_trips(real_data / "green_tripdata_2021-01.parquet"))
    trips = take(trips, slice(0, 20_000))
    features = FEATURE_SETS[name]
    whole, *others = tabulate([trips], features)
    for part in others:
        whole = whole + part
    assert_sums_are_of_rows(whole, trips, features)


@given(clean_trips(), feature_sets())
@settings(deadline=None)
def test_the_sums_of_any_trips_are_those_of_their_rows(trips: Trips, features: FeatureSet) -> None:
    (tables,) = tabulate([trips], features)
    assert_sums_are_of_rows(tables, trips, features)


@given(clean_trips(min_size=2), feature_sets(ALPHAS))
@settings(deadline=None)
def test_early_and_late_trips_are_counted_apart(trips: Trips, features: FeatureSet) -> None:
    late = pd.DatetimeIndex(trips["pickup"]).day >= 25
    parts = tabulate([trips], features)
    assert [part.trips for part in parts] == [np.count_nonzero(~late), np.count_nonzero(late)]
    for part, rows in zip(parts, (~late, late), strict=True):
        if rows.any():
            assert_sums_are_of_rows(part, take(trips, rows), features)


def test_one_table_is_made_where_there_is_no_alpha_to_choose() -> None:
    trips = make_trips(np.random.default_rng(0), 50)
    for alphas in ((0.0,), (7.0,)):
        assert len(tabulate([trips], FeatureSet("mine", ("PU",), alphas))) == 1
    assert len(tabulate([trips], FeatureSet("mine", ("PU",), ALPHAS))) == 2


@pytest.mark.parametrize("month", ["2021-02", "2023-01", "2025-02"])
def test_late_trips_are_those_from_day_25_on(real_data: Path, month: str) -> None:
    trips, _ = clean(read_trips(real_data / f"green_tripdata_{month}.parquet"))
    np.testing.assert_array_equal(is_late(trips), pd.DatetimeIndex(trips["pickup"]).day >= 25)


def test_every_day_of_sixty_years_is_late_or_not_as_pandas_has_it() -> None:
    days = pd.date_range("1980-01-01", "2040-12-31", unit="us") + pd.Timedelta("23:59:59.999999")
    np.testing.assert_array_equal(is_late({"pickup": days.to_numpy()}), days.day >= 25)


def test_synthetic_trips_are_late_where_pandas_says_so() -> None:
    trips, _ = clean(read_trips(JANUARY))
    late = pd.DatetimeIndex(trips["pickup"]).day >= 25
    assert late.any()
    np.testing.assert_array_equal(is_late(trips), late)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), feature_sets(ALPHAS))
@settings(deadline=None, max_examples=40)
def test_trips_in_any_order_and_split_give_the_same_sums(
    seed: int, chunks: int, features: FeatureSet
) -> None:
    generator = np.random.default_rng(seed)
    trips = make_trips(generator, 200)
    dealt = deal(trips, generator, chunks)
    half = len(dealt) // 2
    whole = tabulate([trips], features)
    added = [
        a + b
        for a, b in zip(
            tabulate(dealt[:half], features), tabulate(dealt[half:], features), strict=True
        )
    ]
    for parts in (tabulate(dealt, features), added):
        for ours, theirs in zip(parts, whole, strict=True):
            assert ours.trips == theirs.trips
            a, b = ours.sum_columns(), theirs.sum_columns()
            np.testing.assert_allclose(a.gram, b.gram, rtol=1e-12, atol=1e-9)
            np.testing.assert_allclose(a.targets, b.targets, rtol=1e-12, atol=1e-9)
            np.testing.assert_allclose(a.levels, b.levels, rtol=1e-12)
            np.testing.assert_allclose(a.level_targets, b.level_targets, rtol=1e-12)
            differences = sparse.hstack(a.cross) - sparse.hstack(b.cross)
            assert abs(differences).sum() <= 1e-9


@pytest.mark.parametrize("name", list(FEATURE_SETS))
def test_trips_in_any_order_and_split_give_the_same_model(name: str) -> None:
    generator = np.random.default_rng(11)
    features = FeatureSet("alike", FEATURE_SETS[name].terms, (FEATURE_SETS[name].alphas[0],))
    trips = make_trips(generator, 5000, zones=30)
    fits = []
    for chunks in ([trips], deal(trips, generator, 7), deal(trips, generator, 40)):
        (tables,) = tabulate(chunks, features)
        fits.append(NormalEquations(tables.sum_columns()).solve(features.alphas[0]))
    for fit in fits[1:]:
        np.testing.assert_allclose(fit.columns, fits[0].columns, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(fit.levels, fits[0].levels, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(FEATURE_SETS))
def test_a_buffer_that_fills_up_loses_no_trip(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = make_trips(np.random.default_rng(2), 1000)
    features = FeatureSet("alike", FEATURE_SETS[name].terms)
    monkeypatch.setattr("taxi_duration.model.tables.BUFFER_BITS", 7)
    monkeypatch.setattr("taxi_duration.model.tables.BUFFER_TRIPS", 128)
    for sizes in ([1000], [128] * 7 + [104], [127, 2, 128, 743], [0, 64, 64, 1, 871]):
        starts = np.cumsum([0, *sizes])
        chunks = [take(trips, slice(a, b)) for a, b in itertools.pairwise(starts)]
        (tables,) = tabulate(chunks, features)
        assert_sums_are_of_rows(tables, trips, features)


def test_no_trips_are_tables_of_zeros() -> None:
    for tables in tabulate([], FEATURE_SETS["extended"]):
        sums = tables.sum_columns()
        assert tables.trips == 0
        assert not sums.gram.any()
        assert not sums.levels.any()
