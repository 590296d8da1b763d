"""What a parquet file's footer says, checked before a row is read; and damage, named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration.data.contract import KINDS, TIME, Cab, match_columns
from taxi_duration.errors import DataError

MAX_ROWS = 30_000_000
"""Twice the busiest yellow month; a file that claims more is refused before it is read."""

MAX_ROW_GROUPS = 10_000

FETCH_AGAIN = "Delete it and fetch it again."


@contextmanager
def name_damage(path: Path, what: str = "is damaged", remedy: str = FETCH_AGAIN) -> Iterator[None]:
    """Name the file in whatever Arrow raises at bytes that are wrong, such as a name in no UTF-8.

    Raises:
        DataError: anything was raised inside.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise DataError(f"{path} {what}: {said}. {remedy}") from error


def open_parquet(path: Path, remedy: str = FETCH_AGAIN, **options: Any) -> pq.ParquetFile:
    """Open a file and read its footer.

    Args:
        options: of `ParquetFile`.

    Raises:
        DataError: it is absent or no parquet file.
    """
    with name_damage(path, "is not a parquet file", remedy):
        try:
            return pq.ParquetFile(path, **options)
        except FileNotFoundError as error:
            raise DataError(f"{path} does not exist: give the path of a month's file.") from error
        except PermissionError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): give yourself permission."
            ) from error


def check_columns(
    parquet: pq.ParquetFile,
    path: Path,
    columns: Iterable[str],
    cab: Cab | None,
    *,
    is_month: bool = True,
) -> dict[str, str]:
    """Refuse a file whose footer shows that some columns are not those of a month of trips.

    Args:
        columns: which columns, by our names (keys of `Cab.required`).
        cab: the cab type whose column names count; any when None.
        is_month: whether it must hold no more rows than a month has; any other file may hold any
            number, and a column without a value.

    Returns:
        Raw name -> our name of each of the columns.

    Raises:
        DataError: one is missing or of a type that cannot be read, or the file claims more rows
            than a month has.
    """
    with name_damage(path):
        schema, metadata = parquet.schema_arrow, parquet.metadata
        rows, groups, names = metadata.num_rows, metadata.num_row_groups, schema.names
    for count, most, what in ((rows, MAX_ROWS, "rows"), (groups, MAX_ROW_GROUPS, "row groups")):
        if is_month and count > most:
            raise DataError(f"{path} claims {count:,} {what}; a month has at most {most:,}.")
    try:
        matched = match_columns(names, columns, cab)
        for name, ours in matched.items():
            kind = schema.field(name).type
            if is_month or not pa.types.is_null(kind):
                _check_type(name, kind, ours, is_month=is_month)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return matched


def _check_type(name: str, kind: pa.DataType, ours: str, *, is_month: bool) -> None:
    if KINDS[ours] == TIME:
        # Read as numbers, it would be taken for New York's time whatever its zone.
        if pa.types.is_timestamp(kind) and kind.tz:
            raise DataError(
                f"column {name} holds {kind}, which cannot be read as times: the TLC's have no "
                "time zone; convert it to New York's time and drop the zone."
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
        raise DataError(f"column {name} holds {kind}, which cannot be read as {wanted}: {remedy}.")
