"""Predictions on their way to a parquet or CSV file, in row groups of one size."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from taxi_duration.errors import InputError
from taxi_duration.predict.reader import CSV, check_suffix

ROWS_A_GROUP = 1 << 20
VERSION = pa.dictionary(pa.int32(), pa.string())

Write = Callable[[pa.RecordBatch], None]


def make_schema(id_type: pa.DataType, metadata: dict[str, str]) -> pa.Schema:
    """The columns of every output; what is made of it in parquet bears the metadata."""
    columns = {"id": id_type, "predicted_minutes": pa.float64(), "model_version": VERSION}
    return pa.schema(columns.items(), metadata=metadata)


def check_output(output: Path) -> Path:
    """Refuse an output that no file can be written to as it is named.

    Returns:
        The file to write: the output, or what it is a link to.

    Raises:
        InputError: it is neither parquet nor CSV by its name, or there and no regular file.
    """
    check_suffix(output, "output")
    if output.is_dir():
        raise InputError(f"output {output} is a directory", "name a file in it")
    if output.exists() and not output.is_file():
        raise InputError(f"output {output} is a pipe or a device", "name a file")
    if not output.is_symlink():
        return output
    target = Path(os.path.realpath(output))
    if target.is_symlink():
        raise InputError(
            f"output {output} is a link that leads back to itself", "name another file"
        )
    return target


def check_apart(output: Path, source: Path) -> None:
    """Refuse to replace the very trips that are scored.

    Raises:
        InputError: the output is the input, under whatever names.
    """
    are_there = output.exists() and source.exists()
    is_same = os.path.realpath(output) == os.path.realpath(source)
    if is_same or (are_there and output.samefile(source)):
        raise InputError(f"output {output} is the input itself", "name another file")


def check_schema(schema: pa.Schema, output: Path) -> None:
    """Refuse ids of a type that the output's kind of file cannot hold.

    Raises:
        InputError: such as lists in CSV.
    """
    suffix = check_suffix(output, "output")
    try:
        with _open_writer(io.BytesIO(), suffix, schema) as writer:
            writer.write_table(schema.empty_table())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"the id column holds {schema.field('id').type}, which {suffix} cannot",
            "name another column",
        ) from error


@contextmanager
def open_output(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Lend what writes batch after batch; the file is whole when this is left."""
    with _open_writer(path, check_suffix(path, "output"), schema) as writer:
        gathered: list[pa.RecordBatch] = []

        def flush(least_rows: int) -> None:
            rows = pa.Table.from_batches(gathered, schema)
            while rows.num_rows >= least_rows:
                writer.write_table(rows.slice(0, ROWS_A_GROUP))
                rows = rows.slice(ROWS_A_GROUP)
            gathered[:] = rows.to_batches()

        def write(batch: pa.RecordBatch) -> None:
            gathered.append(batch)
            if sum(each.num_rows for each in gathered) >= ROWS_A_GROUP:
                flush(ROWS_A_GROUP)

        yield write
        flush(1)


def _open_writer(target: Any, suffix: str, schema: pa.Schema) -> Any:
    if suffix == CSV:
        return pa_csv.CSVWriter(target, schema)
    return pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=["model_version"])
