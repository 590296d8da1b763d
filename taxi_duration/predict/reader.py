"""Trips to be predicted: raw TLC columns in a parquet or CSV file of any length, in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from taxi_duration.data.clean import Trips
from taxi_duration.data.parquet import (
    convert_column,
    find_columns,
    name_damage,
    open_parquet,
    read_batches,
)
from taxi_duration.data.schema import KINDS, MOST_NAMED, TIME, Cab, match_columns, shorten_name
from taxi_duration.errors import DataError, InputError

NAIVE_TIME = r"^\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?$"
"""A time as the TLC writes it, without a zone."""

NO_VALUES = pa.array(pa_csv.ConvertOptions().null_values)
"""Texts that say that a value is missing: the empty one, NA, null and the like."""


def read_texts(column: pa.Array, ours: str) -> npt.NDArray[Any]:
    """Return the times or numbers that texts say; those that say none are missing.

    >>> read_texts(pa.array(["74", "74.5", "", "Queens"]), "pickup_zone")
    array([74. , 74.5,  nan,  nan])
    """
    texts = pc.if_else(pc.is_in(column, NO_VALUES), pa.scalar(None, pa.string()), column)
    is_time = KINDS[ours] == TIME
    try:
        return convert_column(texts.cast(pa.timestamp("us") if is_time else pa.float64()), ours)
    except pa.ArrowInvalid:
        pass
    if not is_time:
        return np.asarray(pd.to_numeric(texts.to_pandas(), errors="coerce"), dtype=np.float64)
    # A time with a zone is another one than it says: the TLC's are New York's, and have none.
    naive = pc.if_else(pc.match_substring_regex(texts, NAIVE_TIME), texts, None)
    times = pd.to_datetime(naive.to_pandas(), format="ISO8601", errors="coerce")
    return np.asarray(times, dtype="datetime64[us]")


def describe_unreadable(texts: pa.Array, name: str, ours: str) -> DataError:
    """Return the error for a column of texts of which none can be read."""
    what, remedy = "number", "write numbers as 1234.5"
    if KINDS[ours] == TIME:
        what, remedy = "time", "write times as 2023-01-31 08:30:00, without a zone"
    return DataError(
        f"column {shorten_name(name)} holds values such as {texts[0].as_py()[:60]!r}, and none "
        f"that can be read as a {what}",
        remedy,
    )


PARQUET, CSV = ".parquet", ".csv"
SUFFIXES = (PARQUET, CSV)

BUFFER_BYTES = 1 << 20
"""Read at a time of a parquet column; without it Arrow holds a row group's columns whole."""

BLOCK_BYTES = 1 << 20
"""Read at a time of a CSV file, of which Arrow holds dozens; no row may be longer."""

CHECK_FILE = "check where it came from, and make it again"


class Chunk(NamedTuple):
    """Rows in a row: the columns that were asked for, under the file's names, and each row's id."""

    raw: Trips
    ids: pa.Array


@dataclass(frozen=True)
class TripSource:
    """An open file of trips.

    Args:
        rows: how many there are, if that is known beforehand.
        id_type: of the rows' ids.
        has_durations: whether the columns that tell a trip's duration, and whether it is one to
            learn from, are read too.
        problems: why they are not, or tell nothing; complete when all is read.
    """

    path: Path
    rows: int | None
    id_type: pa.DataType
    has_durations: bool
    problems: list[str]
    read: Callable[[], Iterator[Chunk]]


def check_suffix(path: Path, what: str) -> str:
    """Return the suffix of a file of trips.

    Args:
        what: what the user calls it, for the message.

    Raises:
        InputError: neither parquet nor CSV.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{what} {path} has {(f'suffix {path.suffix}' if suffix else 'no suffix')}",
            f"give a file that ends in {' or '.join(SUFFIXES)}",
        )
    return suffix


def check_input(path: Path) -> str:
    """Refuse an input that no trips can be read from, without opening it.

    Returns:
        Its suffix.

    Raises:
        InputError: it is not there, or neither parquet nor CSV by its name.
    """
    suffix = check_suffix(path, "input")
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise InputError(f"input {path} {problem}", "give a file of trips, or a month as YYYY-MM")
    return suffix


@contextmanager
def open_trips(
    path: Path, needed: Iterable[str], cab: Cab | None = None, id_column: str | None = None
) -> Iterator[TripSource]:
    """Open a file and find its columns, before a row is read.

    Args:
        needed: our names (keys of `Cab.required`) of the columns that must be there.
        cab: the cab type whose column names count; any when None.
        id_column: the column that holds each row's id; None for the row's number, from 0.

    Raises:
        InputError: the file is absent, of an unknown kind, or without the id column.
        DataError: it cannot be read, or a needed column is missing or of a wrong type.
    """
    suffix = check_input(path)
    with (_open_parquet if suffix == PARQUET else _open_csv)(path, [*needed], cab, id_column) as it:
        yield it


@contextmanager
def _open_parquet(
    path: Path, needed: list[str], cab: Cab | None, id_column: str | None
) -> Iterator[TripSource]:
    options: dict[str, Any] = {"buffer_size": BUFFER_BYTES, "pre_buffer": False}
    with open_parquet(path, CHECK_FILE, **options) as parquet:

        def find(columns: Iterable[str]) -> dict[str, str]:
            return find_columns(parquet, columns, cab, is_month=False)

        with name_damage(path, remedy=CHECK_FILE):
            matched, problems = _match(find, needed, path)
            schema = parquet.schema_arrow
        columns = _list_columns(path, schema.names, matched, id_column)

        def read() -> Iterator[Chunk]:
            batches = read_batches(parquet, path, columns, CHECK_FILE)
            return _make_chunks(path, batches, matched, id_column, convert_column)

        id_type = schema.field(id_column).type if id_column else pa.int64()
        yield TripSource(path, parquet.metadata.num_rows, id_type, not problems, problems, read)


@contextmanager
def _open_csv(
    path: Path, needed: list[str], cab: Cab | None, id_column: str | None
) -> Iterator[TripSource]:
    reading = pa_csv.ReadOptions(block_size=BLOCK_BYTES)
    parsing = pa_csv.ParseOptions(newlines_in_values=True)

    def start(columns: list[str]) -> pa_csv.CSVStreamingReader:
        # As text, of which one value that is no number must not end the reading.
        texts = pa_csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
        )
        with name_damage(path, "cannot be read as CSV", CHECK_FILE):
            return pa_csv.open_csv(path, reading, parsing, texts)

    with start([]) as header, name_damage(path, "cannot be read as CSV", CHECK_FILE):
        names = header.schema.names

    matched, problems = _match(lambda columns: match_columns(names, columns, cab), needed, path)
    columns = _list_columns(path, names, matched, id_column)

    def read() -> Iterator[Chunk]:
        names, readable = {ours: name for name, ours in matched.items()}, set[str]()

        def convert(column: pa.Array, ours: str) -> npt.NDArray[Any]:
            # A wrong value among right ones is missing. Where none has been right so far, the
            # column is written otherwise than it can be read.
            values = read_texts(column, ours)
            if ours not in readable and not pd.isna(values).all():
                readable.add(ours)
            texts = column.filter(pc.invert(pc.is_in(column, NO_VALUES)))
            if ours not in readable and len(texts):
                error = describe_unreadable(texts, names[ours], ours)
                if ours in needed:
                    raise error.about(path)
                if not problems:
                    problems.append(error.problem)
            return values

        return _make_chunks(path, _read_csv(path, start(columns)), matched, id_column, convert)

    id_type = pa.string() if id_column else pa.int64()
    yield TripSource(path, None, id_type, not problems, problems, read)


def _match(
    find: Callable[[Iterable[str]], dict[str, str]], needed: list[str], path: Path
) -> tuple[dict[str, str], list[str]]:
    """Return the needed columns and those that tell a trip's duration; or why these are missing."""
    try:
        matched = find(needed)
    except DataError as error:
        raise error.about(path) from error
    others, problems = dict(matched), list[str]()
    for ours in KINDS:
        try:
            others |= find([ours])
        except DataError as error:
            problems.append(error.problem)
    return (matched if problems else others), problems


def _list_columns(
    path: Path, names: list[str], matched: Iterable[str], id_column: str | None
) -> list[str]:
    """Return which columns are read; the one with the ids must be there once."""
    _check_id(path, names, id_column)
    return list(dict.fromkeys([*matched, *([id_column] if id_column else [])]))


def _check_id(path: Path, names: list[str], id_column: str | None) -> None:
    if id_column is None or names.count(id_column) == 1:
        return
    if id_column in names:
        raise InputError(f"id column {id_column!r} is in {path} more than once", "name another")
    shown = ", ".join(map(shorten_name, names[:MOST_NAMED]))
    raise InputError(f"id column {id_column!r} is not in {path}", f"its columns are {shown}")


def _read_csv(path: Path, reader: pa_csv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    with reader:
        while True:
            with name_damage(path, "cannot be read as CSV", CHECK_FILE):
                batch = next(reader, None)
            if batch is None:
                return
            yield batch


def _make_chunks(
    path: Path,
    batches: Iterator[pa.RecordBatch],
    matched: dict[str, str],
    id_column: str | None,
    convert: Callable[[pa.Array, str], npt.NDArray[Any]],
) -> Iterator[Chunk]:
    first = 0
    for batch in batches:
        with name_damage(path, remedy=CHECK_FILE):
            raw = {name: convert(batch[name], ours) for name, ours in matched.items()}
        after = first + batch.num_rows
        ids = batch[id_column] if id_column else pa.array(np.arange(first, after))
        first = after
        yield Chunk(raw, ids)
