"""Reading a month's parquet file from disk: its hash, its footer, its five columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration.errors import DataError
from taxi_duration.month import Month
from taxi_duration.trips import CABS, Cab, RowFunnel, clean_trips, match_columns

MAX_ROWS = 30_000_000
"""Twice the busiest yellow month; a file that claims more is refused before it is read."""

REQUIRED_COLUMNS = tuple(CABS["green"].columns)


@dataclass(frozen=True)
class MonthFile:
    """A month's trips on the local disk, with the sha256 its bytes had when they were located."""

    month: Month
    path: Path
    sha256: str


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_footer(path: Path, cab: Cab | None = None) -> None:
    """Refuse a file whose footer shows it cannot be a month of trips, without reading a row.

    Raises:
        DataError: not a parquet file, a required column missing, or more than `MAX_ROWS` rows.
    """
    with _open_parquet(path) as parquet:
        _check(parquet, path, REQUIRED_COLUMNS, cab)


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
        try:
            trips: pd.DataFrame = parquet.read(columns=names).to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is damaged: {str(error).rstrip('.')}. Delete it and fetch it again."
            ) from error
    return trips


def read_clean_trips(
    path: str | Path, cab: Cab | None = None, month: Month | None = None
) -> tuple[pd.DataFrame, RowFunnel]:
    """Read a month's file and clean it: see `read_trips` and `clean_trips`.

    Raises:
        DataError: as both; the message names the file.
    """
    raw = read_trips(path, cab)
    try:
        return clean_trips(raw, month)
    except DataError as error:
        raise DataError(f"{path}: {error} Choose another month, or fetch it again.") from error


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
    try:
        return list(match_columns(parquet.schema_arrow.names, columns, cab))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
