"""Trips to be predicted: raw TLC columns in a parquet or CSV file of any length, in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    check_columns,
    convert_column,
    name_damage,
    open_parquet,
    read_batches,
)
from taxi_duration.data.schema import KINDS, MOST_NAMED, TIME, Cab, match_columns, shorten_name
from taxi_duration.errors import DataError, InputError

NAIVE_TIME = r"^\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?$"
"""A time as the TLC writes them, without a zone."""

NO_VALUES = pa.array(pa_csv.ConvertOptions().null_values)
"""Texts that say that a value is missing: the empty one, NA, null and the like."""

FEW_TEXTS = 100
"""So many of a chunk may be wrong, and no other right, where earlier chunks had right ones."""


def read_texts(column: pa.Array, ours: str) -> npt.NDArray[Any]:
    """Times or numbers that are written out; what says none is missing.

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
        numbers: npt.NDArray[Any] = pd.to_numeric(texts.to_pandas(), errors="coerce").to_numpy(
            float
        )
        return numbers
    # A time with a zone is another one than it says: the TLC's are New York's, and have none.
    naive = pc.if_else(pc.match_substring_regex(texts, NAIVE_TIME), texts, None)
    times = pd.to_datetime(naive.to_pandas(), format="ISO8601", errors="coerce")
    return np.asarray(times, dtype="datetime64[us]")


class TextColumns:
    """Reads a file's columns of text, chunk after chunk.

    A wrong value among right ones is missing. Where not one is right, the whole column is written
    otherwise than it can be read, and predictions of it would all be missing.

    Args:
        matched: the file's name of each column -> ours.
        needed: our names of those without which there is no prediction.
        problems: what is to be said of the others is added to it.
    """

    def __init__(
        self, path: Path, matched: Mapping[str, str], needed: Iterable[str], problems: list[str]
    ) -> None:
        self._path, self._needed, self._problems = path, {*needed}, problems
        self._names = {ours: name for name, ours in matched.items()}
        self._right: set[str] = set()
        """Of which a value was read."""

    def read(self, column: pa.Array, ours: str) -> npt.NDArray[Any]:
        """As `read_texts`.

        Raises:
            DataError: the column is needed, and no value of it is right.
        """
        values = read_texts(column, ours)
        if not pd.isna(values).all():
            self._right.add(ours)
            return values
        texts = column.filter(pc.invert(pc.is_in(column, NO_VALUES)))
        if len(texts) > (FEW_TEXTS if ours in self._right else 0):
            problem = self._describe(ours, texts[0].as_py())
            if ours in self._needed:
                raise DataError(f"{self._path}: {problem}.")
            if not self._problems:
                self._problems.append(problem)
        return values

    def _describe(self, ours: str, example: str) -> str:
        what, remedy = "number", "write numbers as 1234.5"
        if KINDS[ours] == TIME:
            what, remedy = "time", "write times as 2023-01-31 08:30:00, without a zone"
        return (
            f"column {shorten_name(self._names[ours])} holds values such as "
            f"{example[:60]!r}, and none that can be read as a {what}: {remedy}"
        )


PARQUET, CSV = ".parquet", ".csv"
SUFFIXES = (PARQUET, CSV)

BUFFER_BYTES = 1 << 20
"""Read at a time of a parquet column; without it Arrow holds a row group's columns whole."""

BLOCK_BYTES = 1 << 20
"""Read at a time of a CSV file, of which Arrow holds dozens; no row may be longer."""

CHECK_FILE = "Check where it came from, and make it again."


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
    """Say what a file's name says it is.

    Args:
        what: what the user calls it, for the message.

    Raises:
        InputError: neither parquet nor CSV.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{what} {path} has {f'suffix {path.suffix}' if suffix else 'no suffix'}: give a file "
            f"that ends in {' or '.join(SUFFIXES)}."
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
        raise InputError(f"input {path} {problem}: give a file of trips, or a month as YYYY-MM.")
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

        def check(columns: Iterable[str]) -> dict[str, str]:
            return check_columns(parquet, path, columns, cab, is_month=False)

        matched, problems = _match(check, needed, path)
        schema = parquet.schema_arrow
        _check_id(path, schema.names, id_column)
        columns = list(dict.fromkeys([*matched, *([id_column] if id_column else [])]))

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

    def check(columns: Iterable[str]) -> dict[str, str]:
        try:
            return match_columns(names, columns, cab)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    matched, problems = _match(check, needed, path)
    _check_id(path, names, id_column)
    columns = list(dict.fromkeys([*matched, *([id_column] if id_column else [])]))

    def read() -> Iterator[Chunk]:
        texts = TextColumns(path, matched, needed, problems)
        return _make_chunks(path, _read_csv(path, start(columns)), matched, id_column, texts.read)

    id_type = pa.string() if id_column else pa.int64()
    yield TripSource(path, None, id_type, not problems, problems, read)


def _match(
    check: Callable[[Iterable[str]], dict[str, str]], needed: list[str], path: Path
) -> tuple[dict[str, str], list[str]]:
    """The needed columns and those that tell a trip's duration; or why these cannot be read."""
    matched, problems = check(needed), list[str]()
    for ours in KINDS:
        try:
            matched |= check([ours])
        except DataError as error:
            said = str(error).removeprefix(f"{path}: ").split("; the columns are ")[0]
            problems.append(said.rstrip("."))
    return (check(needed) if problems else matched), problems


def _check_id(path: Path, names: list[str], id_column: str | None) -> None:
    if id_column is None or names.count(id_column) == 1:
        return
    if id_column in names:
        raise InputError(f"id column {id_column!r} is in {path} more than once: name another.")
    shown = ", ".join(map(shorten_name, names[:MOST_NAMED]))
    raise InputError(f"id column {id_column!r} is not in {path}, whose columns are {shown}.")


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
