"""A month's parquet file: its footer checked before a row is read, its rows read in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_duration.data.clean import Raw, RowFunnel, Trips, check_row_count, clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.schema import CABS, KINDS, TIME, ZONE, Cab, describe_drift, match_columns
from taxi_duration.errors import DataError, describe
from taxi_duration.files import hash_file
from taxi_duration.settings import Thresholds

MAX_ROWS = 30_000_000
"""Twice the busiest yellow month; a file that claims more is refused before it is read."""

MAX_ROW_GROUPS = 10_000

FETCH_AGAIN = "delete it and fetch it again"


@contextmanager
def name_damage(
    path: Path | str, what: str = "is damaged", remedy: str = FETCH_AGAIN
) -> Iterator[None]:
    """Name the file in whatever Arrow raises at bytes that are wrong, such as a name in no UTF-8.

    Raises:
        DataError: anything was raised inside.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} {what}: {describe(error)}", remedy) from error


def open_parquet(
    path: Path, remedy: str = FETCH_AGAIN, name: Path | str | None = None, **options: Any
) -> pq.ParquetFile:
    """Open a file and read its footer.

    Args:
        name: what messages call the file; its path when None.
        options: of `ParquetFile`.

    Raises:
        DataError: it is absent or no parquet file.
    """
    name = name or path
    with name_damage(name, "is not a parquet file", remedy):
        try:
            return pq.ParquetFile(path, **options)
        except FileNotFoundError as error:
            raise DataError(f"{name} does not exist", "give the path of a month's file") from error
        except PermissionError as error:
            raise DataError(
                f"{name} cannot be read ({error.strerror})", "give yourself permission"
            ) from error


def check_columns(parquet: pq.ParquetFile, path: Path | str, cab: Cab | None) -> dict[str, str]:
    """Refuse a file whose footer shows that it is no month of trips.

    Args:
        cab: the cab type whose column names count; any when None.

    Returns:
        Raw name -> our name of each required column.

    Raises:
        DataError: a column is missing or of a type that cannot be read, or the file claims more
            rows than a month has. The message names the file.
    """
    with name_damage(path):
        rows, groups = parquet.metadata.num_rows, parquet.metadata.num_row_groups
        for count, most, what in (
            (rows, MAX_ROWS, "rows"),
            (groups, MAX_ROW_GROUPS, "row groups"),
        ):
            if count > most:
                raise DataError(
                    f"{path} claims {count:,} {what}; a month has at most {most:,}", FETCH_AGAIN
                )
        try:
            return find_columns(parquet, KINDS, cab)
        except DataError as error:
            raise error.about(path) from error


def find_columns(
    parquet: pq.ParquetFile, columns: Iterable[str], cab: Cab | None, *, is_month: bool = True
) -> dict[str, str]:
    """Return the raw name -> our name of some columns.

    Args:
        columns: which columns, by our names (keys of `Cab.required`).
        cab: the cab type whose column names count; any when None.
        is_month: False for any other file of trips, where a column may hold no value at all.

    Raises:
        DataError: one is missing or of a type that cannot be read.
    """
    schema = parquet.schema_arrow
    matched = match_columns(schema.names, columns, cab)
    for name, ours in matched.items():
        kind = schema.field(name).type
        if is_month or not pa.types.is_null(kind):
            _check_type(name, kind, ours, is_month=is_month)
    return matched


def _check_type(name: str, kind: pa.DataType, ours: str, *, is_month: bool) -> None:
    if KINDS[ours] == TIME:
        # Read as numbers, it would be taken for New York's time whatever its zone.
        if pa.types.is_timestamp(kind) and kind.tz:
            raise DataError(
                f"column {name} holds {kind}, which cannot be read as times: the TLC's have no "
                "time zone",
                "convert it to New York's time and drop the zone",
            )
        is_right, wanted = pa.types.is_timestamp(kind), "times"
    else:
        is_right = any(
            is_one(kind)
            for is_one in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        )
        wanted = "numbers"
    if not is_right:
        remedy = "choose another month, or fetch it again" if is_month else f"give {wanted}"
        raise DataError(f"column {name} holds {kind}, which cannot be read as {wanted}", remedy)


CHUNK_ROWS = 1 << 16
LANES = 2
"""Threads that reduce a file, which take its chunks in turn."""

SYNTHETIC_PREFIX = "synthetic_"
"""The bundled sample's files carry it, so that a report shows what it was computed from."""

EARLIER_MONTHS = 12
"""Whose row counts a month's is compared with, where their files are beside it."""


@dataclass(frozen=True)
class MonthFile:
    """A month's trips on the local disk, with the sha256 its bytes had when they were located.

    `notices` are sentences about how it got here that a person should read; `was_there` says
    whether its bytes were here, verified, before.
    """

    month: Month
    path: Path
    sha256: str
    notices: tuple[str, ...] = ()
    was_there: bool = field(default=False, compare=False)


def is_synthetic(file_name: str) -> bool:
    """Whether a month's file holds made-up trips.

    >>> is_synthetic("synthetic_green_tripdata_2025-01.parquet")
    True
    """
    return file_name.startswith(SYNTHETIC_PREFIX)


def check_footer(path: Path, cab: Cab | None = None, name: Path | str | None = None) -> int:
    """Refuse a file whose footer shows it cannot be a month of trips, without reading a row.

    Args:
        name: what messages call the file; its path when None.

    Returns:
        How many rows it says it holds.

    Raises:
        DataError: not a parquet file, a required column missing or of a type that cannot be read,
            no row, or more rows than a month has.
    """
    name = name or path
    with open_parquet(path, name=name) as parquet:
        check_columns(parquet, name, cab)
        rows = int(parquet.metadata.num_rows)
    if not rows:
        check_funnel(name, _count_nothing(None))
    return rows


def find_drift(path: Path, cab: Cab) -> tuple[str, ...]:
    """Say in which harmless ways a file's columns differ from all the TLC's so far.

    Returns:
        Sentences, as `describe_drift`; they follow from the file's footer alone.

    Raises:
        DataError: as `check_footer`.
    """
    with open_parquet(path) as parquet:
        check_columns(parquet, path, cab)
        return describe_drift({field.name: str(field.type) for field in parquet.schema_arrow}, cab)


def check_rows_against_earlier(path: Path, cab: Cab, month: Month, thresholds: Thresholds) -> None:
    """Refuse a month with far fewer or more rows than the months before it that are beside it.

    A synthetic file is compared with synthetic ones. Only footers are read, and earlier files that
    are unreadable count for nothing.

    Raises:
        DataError: as `check_footer` and `check_row_count`; the message names the file.
    """
    rows = check_footer(path, cab)
    prefix = path.name.removesuffix(month.file_name(cab.name))
    earlier_rows = []
    for earlier in month.shift(-1).window(EARLIER_MONTHS):
        with suppress(DataError):
            known = path.with_name(f"{prefix}{earlier.file_name(cab.name)}")
            earlier_rows.append(check_footer(known, cab))
    try:
        check_row_count(rows, earlier_rows, thresholds)
    except DataError as error:
        raise error.about(path) from error


def check_unchanged(path: Path, sha256: str) -> None:
    """Refuse what was computed from a file that became another one while it was read.

    Raises:
        DataError: its bytes are no more those that were verified.
    """
    if hash_file(path) != sha256:
        raise DataError(
            f"{path} changed while it was read: another run has fetched it anew, or somebody is "
            "writing to it",
            "nothing was computed from it; run again",
        )


def check_funnel(path: Path | str, funnel: RowFunnel, thresholds: Thresholds | None = None) -> None:
    """`RowFunnel.check`, with the file's path in the message."""
    try:
        funnel.check(thresholds)
    except DataError as error:
        raise error.about(path) from error


def read_trips(path: str | Path, cab: Cab | None = None) -> pd.DataFrame:
    """Return the required columns of a month's file, one row a trip, under the file's names.

    Raises:
        DataError: as `check_footer`; also when the file is missing or its pages are damaged.
    """
    path = Path(path)
    with open_parquet(path) as parquet:
        names = [*check_columns(parquet, path, cab)]
        with name_damage(path):
            trips: pd.DataFrame = parquet.read(columns=names).to_pandas()
    return trips


Result = TypeVar("Result")


def reduce_trips(
    path: str | Path,
    reduce: Callable[[Iterator[Trips]], Result],
    cab: Cab | None = None,
    month: Month | None = None,
    thresholds: Thresholds | None = None,
) -> tuple[list[Result], RowFunnel]:
    """Read and clean a month's file once, in chunks, and reduce the chunks in `LANES` threads.

    The file is never whole in memory. Which chunk goes to which lane depends on the file alone,
    so that sums come out the same to the last bit on any machine.

    Args:
        reduce: takes the cleaned trips of one lane, chunk by chunk; called once a lane.
        thresholds: the data contract's, which the month must keep; None asks only for a trip.

    Returns:
        What `reduce` returned for each lane, and the row funnel of the file.

    Raises:
        DataError: as `read_trips`; also when no trip is left or the data contract is broken. The
            message names the file.
    """
    path = Path(path)
    funnels: list[list[RowFunnel]] = [[] for _ in range(LANES)]

    def clean(lane: int, chunks: Iterator[Raw]) -> Iterator[Trips]:
        for raw in chunks:
            try:
                trips, funnel = clean_trips(raw, month)
            except DataError as error:
                raise error.about(path) from error
            funnels[lane].append(funnel)
            yield trips

    failed = Event()

    def run(lane: int, chunks: Iterator[Raw]) -> Result:
        try:
            return reduce(clean(lane, chunks))
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(LANES) as threads:
        results = list(threads.map(run, range(LANES), _deal(_read_chunks(path, cab), failed)))
    first, *others = [funnel for lane in funnels for funnel in lane] or [_count_nothing(month)]
    total = sum(others, first)
    check_funnel(path, total, thresholds)
    pa.default_memory_pool().release_unused()
    return results, total


def _count_nothing(month: Month | None) -> RowFunnel:
    nothing = {
        name: np.empty(0, "datetime64[us]" if KINDS[ours] == TIME else float)
        for ours, name in CABS["green"].columns.items()
    }
    return clean_trips(nothing, month)[1]


def _read_chunks(path: Path, cab: Cab | None) -> Iterator[Raw]:
    with open_parquet(path) as parquet:
        matched = check_columns(parquet, path, cab)
        for batch in read_batches(parquet, path, [*matched]):
            with name_damage(path):
                chunk = {name: convert_column(batch[name], ours) for name, ours in matched.items()}
            yield chunk


def read_batches(
    parquet: pq.ParquetFile, path: Path, columns: list[str], remedy: str = FETCH_AGAIN
) -> Iterator[pa.RecordBatch]:
    """Read columns of an open file, at most `CHUNK_ROWS` rows at a time.

    Raises:
        DataError: its pages are damaged, or hold fewer rows than its footer claims.
    """
    batches = parquet.iter_batches(CHUNK_ROWS, columns=columns)
    missing = parquet.metadata.num_rows
    while True:
        with name_damage(path, remedy=remedy):
            batch = next(batches, None)
        if batch is None:
            break
        missing -= batch.num_rows
        yield batch
    if missing:
        raise DataError(
            f"{path} is damaged: it claims {parquet.metadata.num_rows:,} rows and has "
            f"{parquet.metadata.num_rows - missing:,}",
            remedy,
        )


def convert_column(column: pa.Array, ours: str) -> npt.NDArray[Any]:
    """An array of the one type that columns of this kind have; zones may be any integers."""
    kind = pa.timestamp("us") if KINDS[ours] == TIME else pa.float64()
    is_zone = KINDS[ours] == ZONE and pa.types.is_integer(column.type)
    if column.type != kind and not is_zone:
        column = column.cast(options=pc.CastOptions(kind, allow_time_truncate=True))
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _deal(chunks: Iterator[Raw], failed: Event) -> list[Iterator[Raw]]:
    """Deal chunks out in turn to `LANES` iterators, each for a thread of its own.

    They end early once a lane has failed: nobody would take its chunks.
    """
    lock = Lock()
    dealt: list[deque[Raw]] = [deque() for _ in range(LANES)]
    turn = cycle(dealt)

    def take(own: deque[Raw]) -> Iterator[Raw]:
        while not failed.is_set():
            with lock:
                while not own:
                    chunk = next(chunks, None)
                    if chunk is None:
                        return
                    next(turn).append(chunk)
                chunk = own.popleft()
            yield chunk

    return [take(own) for own in dealt]
