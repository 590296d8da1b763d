"""Reading a month's parquet file from disk: its hash, its footer, its five columns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration.errors import DataError
from taxi_duration.month import Month
from taxi_duration.trips import CABS, Cab, Raw, RowFunnel, Trips, clean_trips, match_columns

MAX_ROWS = 30_000_000
"""Twice the busiest yellow month; a file that claims more is refused before it is read."""

CHUNK_ROWS = 1 << 16
LANES = 2
"""Threads that reduce a file, which take its chunks in turn."""

REQUIRED_COLUMNS = tuple(CABS["green"].columns)


@dataclass(frozen=True)
class MonthFile:
    """A month's trips on the local disk, with the sha256 its bytes had when they were located.

    `notices` are sentences about how it got here that a person should read.
    """

    month: Month
    path: Path
    sha256: str
    notices: tuple[str, ...] = ()


def check_footer(path: Path, cab: Cab | None = None) -> int:
    """Refuse a file whose footer shows it cannot be a month of trips, without reading a row.

    Returns:
        How many rows it says it holds.

    Raises:
        DataError: not a parquet file, a required column missing, or more than `MAX_ROWS` rows.
    """
    with _open_parquet(path) as parquet:
        _check(parquet, path, REQUIRED_COLUMNS, cab)
        return int(parquet.metadata.num_rows)


def read_trips(
    path: str | Path, cab: Cab | None = None, columns: Iterable[str] = REQUIRED_COLUMNS
) -> pd.DataFrame:
    """Read the required columns of a month's file and no others.

    Args:
        path: a TLC parquet file, or any parquet file with its column names.
        cab: the cab type whose column names count; any when None.
        columns: which columns, by our names (keys of `Cab.columns`).

    Returns:
        One row a trip, columns as the file names them.

    Raises:
        DataError: as `check_footer`; also when the file is absent or its pages are damaged.
    """
    path = Path(path)
    with _open_parquet(path) as parquet:
        names = _check(parquet, path, columns, cab)
        with _damage_named(path):
            trips: pd.DataFrame = parquet.read(columns=names).to_pandas()
    return trips


Result = TypeVar("Result")


def reduce_trips(
    path: str | Path,
    reduce: Callable[[Iterator[Trips]], Result],
    cab: Cab | None = None,
    month: Month | None = None,
) -> tuple[list[Result], RowFunnel]:
    """Read and clean a month's file once, in chunks, and reduce the chunks in `LANES` threads.

    The file is never whole in memory. Which chunk goes to which lane depends on the file alone,
    so that sums come out the same to the last bit on any machine.

    Args:
        reduce: takes the cleaned trips of one lane, chunk by chunk; called once a lane.

    Returns:
        What `reduce` returned for each lane, and the row funnel of the file.

    Raises:
        DataError: as `read_trips`; also when no trip is left. The message names the file.
    """
    path = Path(path)
    funnels: list[list[RowFunnel]] = [[] for _ in range(LANES)]

    def clean(lane: int, chunks: Iterator[Raw]) -> Iterator[Trips]:
        for raw in chunks:
            trips, funnel = clean_trips(raw, month)
            funnels[lane].append(funnel)
            yield trips

    failed = Event()

    def run(lane: int, chunks: Iterator[Raw]) -> Result:
        try:
            return reduce(clean(lane, chunks))
        except BaseException:
            failed.set()
            raise

    try:
        with ThreadPoolExecutor(LANES) as threads:
            results = list(threads.map(run, range(LANES), _deal(_read_chunks(path, cab), failed)))
        first, *others = [funnel for lane in funnels for funnel in lane] or [
            clean_trips(_read_nothing(path, cab), month)[1]
        ]
        total = sum(others, first)
        total.check()
        pa.default_memory_pool().release_unused()
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path}: {error} Choose another month, or fetch it again.") from error
    return results, total


def _read_chunks(path: Path, cab: Cab | None) -> Iterator[Raw]:
    with _open_parquet(path) as parquet, _damage_named(path):
        names = _check(parquet, path, REQUIRED_COLUMNS, cab)
        for batch in parquet.iter_batches(CHUNK_ROWS, columns=names):
            yield {
                name: column.to_numpy(zero_copy_only=False)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }


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


def _read_nothing(path: Path, cab: Cab | None) -> Raw:
    with _open_parquet(path) as parquet:
        names = _check(parquet, path, REQUIRED_COLUMNS, cab)
        nothing = parquet.schema_arrow.empty_table().select(names)
    return {name: nothing[name].to_numpy() for name in names}


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged: {str(error).rstrip('.')}. Delete it and fetch it again."
        ) from error


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: give the path of a month's file.") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a parquet file: {str(error).rstrip('.')}. Delete it and fetch it again."
        ) from error


def _check(
    parquet: pq.ParquetFile, path: Path, columns: Iterable[str], cab: Cab | None
) -> list[str]:
    rows = parquet.metadata.num_rows
    if rows > MAX_ROWS:
        raise DataError(f"{path} claims {rows:,} rows; a month has at most {MAX_ROWS:,}.")
    schema = parquet.schema_arrow
    try:
        names = list(match_columns(schema.names, columns, cab))
        for name in names:
            kind = schema.field(name).type
            # Read as numbers, it would be taken for New York's time whatever its zone.
            if pa.types.is_timestamp(kind) and kind.tz:
                raise DataError(
                    f"column {name} holds {kind}, which cannot be read as times: the TLC's have no "
                    "time zone; convert it to New York's time and drop the zone."
                )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return names
