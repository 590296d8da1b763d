"""Columns of text, as CSV has them, read as times and numbers; and told when none of it is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from taxi_duration.data.parquet import convert_column
from taxi_duration.data.schema import KINDS, TIME, shorten_name
from taxi_duration.errors import DataError

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
