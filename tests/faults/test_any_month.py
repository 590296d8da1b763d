"""Anything offered as a month keeps the data contract, or is refused in this package's words."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_duration import DataError, train_model
from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import (
    check_footer,
    check_rows_against_earlier,
    find_drift,
    read_trips,
    reduce_trips,
)
from taxi_duration.data.schema import CABS
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.model.month_sums import reduce_month
from taxi_duration.settings import Thresholds
from tests.support.months import write_month

GREEN = CABS["green"]
MONTH = Month(2023, 1)


def offer(path: Path) -> RowFunnel | DataError:
    """Do with a file what the flow does with a month; one that keeps the contract must train."""
    try:
        check_footer(path, GREEN)
        find_drift(path, GREEN)
        check_rows_against_earlier(path, GREEN, MONTH, Thresholds())
        _, funnel = reduce_trips(path, list, GREEN, MONTH, Thresholds())
    except DataError as error:
        return error
    course = FEATURE_SETS["course"]
    assert reduce_month(path, course, GREEN, MONTH, with_medians=True).funnel == funnel
    assert np.isfinite(train_model([path], course).intercept)
    return funnel


def assert_named(outcome: RowFunnel | DataError, path: Path) -> None:
    assert isinstance(outcome, RowFunnel) or str(outcome).startswith(f"{path}")


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("offered") / MONTH.file_name("green")


@pytest.fixture(scope="module")
def small_months(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One month's bytes in several of the ways parquet has to write them."""
    path = write_month(tmp_path_factory.mktemp("small") / "month.parquet")
    table = pq.read_table(path)
    ways: list[dict[str, Any]] = [
        {"compression": "zstd", "row_group_size": 5},
        {"compression": "snappy", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "none", "store_schema": False, "write_statistics": False},
    ]
    months = []
    for way in ways:
        pq.write_table(table, path, **way)
        months.append(path.read_bytes())
    return months


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_in_our_words(offered: Path, content: bytes, framed: bool) -> None:
    if framed:
        content = b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1"
    offered.write_bytes(content)
    outcome = offer(offered)
    assert isinstance(outcome, DataError)
    assert_named(outcome, offered)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Ways to change a few bytes, mostly near the end, where the footer is."""
    position = st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0.5, 1, exclude_max=True))
    steps = draw(st.lists(st.tuples(position, st.integers(0, 5), st.binary(min_size=1, max_size=4)),
                          min_size=1, max_size=4))  # fmt: skip

    def mutate(content: bytes) -> bytes:
        changed = bytearray(content)
        for share, kind, new in steps:
            place = int(share * len(changed))
            if kind == 0:
                del changed[place : place + len(new)]
            elif kind == 1:
                changed[place:place] = new
            elif kind == 2:
                changed[place : place + 1] = bytes(
                    [(changed[place] if changed else 0) ^ 1 << new[0] % 8]
                )
            else:
                changed[place : place + len(new)] = new
        return bytes(changed)

    return mutate


@given(st.integers(0, 2), mutations())
@settings(max_examples=400, deadline=None)
def test_a_mutated_month_is_a_month_or_refused_in_our_words(
    offered: Path, small_months: list[bytes], way: int, mutate: Callable[[bytes], bytes]
) -> None:
    offered.write_bytes(mutate(small_months[way]))
    assert_named(offer(offered), offered)


NUMBER_TYPES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
    *(pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal128(38, 10), pa.decimal256(50, 3), pa.decimal32(7, 2)),
]  # fmt: skip
TIME_TYPES = [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")]
OTHER_TYPES = [
    *(pa.timestamp("us", "UTC"), pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns")),
    *(pa.duration("s"), pa.bool_(), pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.binary(3), pa.null(), pa.list_(pa.int64()), pa.struct({"x": pa.int64()})),
    *(pa.map_(pa.string(), pa.int64()), pa.dictionary(pa.int32(), pa.int64()), pa.uuid()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.json_(), pa.bool8()),
]  # fmt: skip
MICROSECONDS = int(np.datetime64("2023-01-10T08:00", "us").astype(int))


@st.composite
def columns(draw: st.DrawFn, rows: int, name: str, is_odd: bool) -> pa.Array:
    """A column of a type that can be read and values that keep the contract, unless it is odd."""
    values: st.SearchStrategy[int | None] = st.integers(1, 99)
    base, types = pa.int64(), NUMBER_TYPES
    if name.endswith("datetime"):
        # Ten minutes apart, give or take less than that.
        start = MICROSECONDS + 10 * 60_000_000 * name.startswith("lpep_drop")
        values = st.integers(start, start + 9 * 60_000_000)
        base, types = pa.timestamp("us"), TIME_TYPES
    if is_odd:
        any_value = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 266))
        values = draw(st.sampled_from([values, st.one_of(values, any_value), any_value]))
        types = draw(st.sampled_from([types, NUMBER_TYPES + TIME_TYPES, OTHER_TYPES]))
    kind = draw(st.sampled_from(types))
    drawn = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), pa.int64()).cast(base)
    for convert in (
        lambda: drawn.cast(kind, safe=False),
        lambda: drawn.cast(pa.string()).cast(kind),
        lambda: pa.nulls(rows, kind),
    ):
        with suppress(pa.ArrowException):
            return convert()
    raise AssertionError(kind)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_table_is_a_month_or_refused_in_our_words(offered: Path, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 20))
    needed = GREEN.columns.values()
    odd = data.draw(st.sampled_from([set(), set(), *({name} for name in needed), {*needed}]))
    names = [*needed, *data.draw(st.lists(st.text(max_size=3), max_size=2))]
    arrays = [data.draw(columns(rows, name, name in odd)) for name in names]
    table = pa.Table.from_arrays(arrays, names=names)
    try:
        pq.write_table(table, offered, row_group_size=data.draw(st.integers(1, 20)))
    except pa.ArrowException:
        assert odd  # parquet has no such type
        return
    outcome = offer(offered)
    assert_named(outcome, offered)
    if isinstance(outcome, RowFunnel):
        assert outcome.rows_read == rows
    elif not odd:
        assert "no trip is left of 0" in str(outcome) or "are the same column" in str(outcome)


def test_fewer_rows_than_the_footer_claims_are_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_month(tmp_path / "month.parquet")
    read = pq.ParquetFile.iter_batches

    def lose_some(self: pq.ParquetFile, *arguments: Any, **options: Any) -> Iterator[Any]:
        return (batch.slice(1) for batch in read(self, *arguments, **options))

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lose_some)
    with pytest.raises(DataError, match=r"is damaged: it claims 12 rows and has 11: delete it"):
        reduce_trips(path, list, GREEN)
    assert len(read_trips(path)) == 12
