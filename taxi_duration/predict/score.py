"""Scoring a file of trips: a prediction for every row, in the rows' order, in bounded memory.

No row is dropped. What a row lacks is counted: a zone that is unknown, one or a pair that training
did not see, and a distance or pick-up time without which there is no prediction.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from taxi_duration.data.clean import Rows, Trips, clean_trips, select_columns
from taxi_duration.data.schema import EARLIEST, LATEST, MOST_MILES, Cab
from taxi_duration.data.zones import FIRST_ZONE, LAST_ZONE
from taxi_duration.files import flush_to_disk, stage
from taxi_duration.model.features import PAIRS, ZONES, count_trips, encode_pair
from taxi_duration.model.model import DurationModel
from taxi_duration.predict.reader import Chunk, TripSource, open_trips
from taxi_duration.predict.writer import (
    check_apart,
    check_output,
    check_schema,
    make_schema,
    open_output,
)
from taxi_duration.regression.metrics import Errors, Evaluation

THREADS = min(4, os.cpu_count() or 1)
"""That predict, while one reads and writes."""

Progress = Callable[[int, int | None], None]
"""Takes how many rows are written, and of how many if that is known."""


@dataclass(frozen=True)
class NamedModel:
    """A model, its identity, and what predictions say it is: its version, or its identity."""

    model: DurationModel
    model_id: str
    version: str


@dataclass(frozen=True)
class Tally:
    """What was scored, in rows; those of two parts of a file add up.

    Args:
        unknown_zones: with a zone that is missing, or not 1 to 265.
        unseen_zones: with a zone, not unknown, that no trip of training began or ended in.
        unseen_pairs: with two zones, neither unknown, between which no trip of training went.
        unpredicted: without a prediction, for want of a distance or a pick-up time.
        errors: over the trips that the cleaning rules keep, where there are durations.
        problems: why durations are not known; of a whole file.
    """

    rows: int = 0
    unknown_zones: int = 0
    unseen_zones: int = 0
    unseen_pairs: int = 0
    unpredicted: int = 0
    errors: Errors = field(default_factory=Errors)
    problems: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        names = [each.name for each in fields(self)]
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def evaluation(self) -> Evaluation | None:
        """The realised errors in minutes; None where no duration is known."""
        return self.errors.evaluation if self.errors.rows else None


def score_trips(
    named: NamedModel,
    path: Path,
    output: Path,
    cab: Cab | None = None,
    id_column: str | None = None,
    *,
    sha256: str | None = None,
    report: Progress | None = None,
) -> Tally:
    """Predict the minutes of each trip of a file, and write them to another, whole or not at all.

    The same trips and model give the same bytes.

    Args:
        path: a parquet or CSV file with the TLC's columns, of any number of rows.
        output: a parquet or CSV file to be, or a link to one, with a row for each of `path`, in
            order: `id`, `predicted_minutes`, which is null where there is no prediction, and
            `model_version`.
        cab: the cab type whose column names count; any when None.
        id_column: the column of `path` whose values are the ids; the row's number when None.
        sha256: of `path`, if it is known; the output notes it.

    Raises:
        InputError: the output or the id column cannot be one.
        DataError: the input cannot be read, or a needed column is missing, of a wrong type or
            written in a way that cannot be read.
        StorageError: the disk does not take the output.
    """
    target = check_output(output)
    check_apart(output, path)
    with open_trips(path, named.model.features.needs, cab, id_column) as source:
        metadata = {"model_id": named.model_id, "model_version": named.version, "input": path.name}
        schema = make_schema(source.id_type, metadata | ({"sha256": sha256} if sha256 else {}))
        check_schema(schema, output)
        with stage(target.parent, target.name) as scratch:
            written = scratch / output.name
            tally = _write_predictions(Scorer(named, source, schema), written, report)
            flush_to_disk(written)
            written.replace(target)
            flush_to_disk(target.parent)
    pa.default_memory_pool().release_unused()
    return replace(tally, problems=tuple(source.problems))


def _write_predictions(scorer: Scorer, path: Path, report: Progress | None) -> Tally:
    tally = Tally()
    with (
        open_output(path, scorer.schema) as write,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        for batch, part in map_in_order(threads, scorer.score, scorer.source.read()):
            write(batch)
            tally += part
            if report:
                report(tally.rows, scorer.source.rows)
    return tally


Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    threads: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = 2 * THREADS,
) -> Iterator[Result]:
    """Apply a function in threads; results come in the items' order.

    Unlike `ThreadPoolExecutor.map` it takes only so many items ahead of what is taken from it.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for each in pending:
            each.cancel()


class Scorer:
    """Predicts the chunks of a source, in any thread."""

    def __init__(self, named: NamedModel, source: TripSource, schema: pa.Schema) -> None:
        self.source, self.schema = source, schema
        self._model, self._seen = named.model, find_seen(named.model)
        self._version = pa.array([named.version])

    def score(self, chunk: Chunk) -> tuple[pa.RecordBatch, Tally]:
        """The rows of the output that a chunk makes, and what there is to count."""
        trips, is_known, is_usable = fill_trips(
            select_columns(chunk.raw, self._model.features.needs)
        )
        minutes = pa.array(self._model.predict_clean(trips), mask=~is_usable)
        rows = len(is_known)
        version = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), self._version)
        batch = pa.RecordBatch.from_arrays([chunk.ids, minutes, version], schema=self.schema)
        zones, pairs = self._seen.find_unseen(trips)
        errors = Errors()
        if self.source.has_durations:
            kept, _ = clean_trips(chunk.raw)
            errors = Errors.of(kept["minutes"], self._model.predict_clean(kept))
        return batch, Tally(
            rows=rows,
            unknown_zones=_count_rows(~is_known),
            unseen_zones=_count_rows(zones),
            unseen_pairs=_count_rows(pairs),
            unpredicted=_count_rows(~is_usable),
            errors=errors,
        )


def fill_trips(trips: Trips) -> tuple[Trips, Rows, Rows]:
    """Make trips of which all can be predicted, whatever they lack.

    Returns:
        The trips: an unknown zone is 0, which no training saw, and anything that is no distance or
        no time is some other; which rows have no unknown zone; and which have all they need else.
    """
    filled = dict(trips)
    is_known = is_usable = np.ones(count_trips(trips), dtype=bool)
    for name, values in trips.items():
        if name == "distance_miles":
            is_good = np.abs(values) <= MOST_MILES
        elif name == "pickup":
            moments = values.view(np.int64)
            is_good = (moments >= EARLIEST) & (moments <= LATEST)
        else:
            is_good = (values >= FIRST_ZONE) & (values <= LAST_ZONE)
            if np.issubdtype(values.dtype, np.floating):
                is_good &= np.floor(values) == values
            is_known = is_known & is_good
            filled[name] = np.where(is_good, values, 0).astype(np.int32)
            continue
        is_usable = is_usable & is_good
        if not is_good.all():
            filled[name] = np.where(is_good, values, np.zeros(1, values.dtype))
    return filled, is_known, is_usable


@dataclass(frozen=True)
class Seen:
    """Which zones and pairs training saw, by code; all, where no term of the model tells.

    An unknown zone and its pairs count as seen, since they are counted as unknown.

    Args:
        pickups, dropoffs: (ZONES,) in which trips began, and ended.
        pairs: (PAIRS,) between which trips went.
    """

    pickups: Rows
    dropoffs: Rows
    pairs: Rows

    def find_unseen(self, trips: Trips) -> tuple[Rows, Rows]:
        """Which trips have a zone that training did not see, and which have such a pair."""
        zones = pairs = np.zeros(count_trips(trips), dtype=bool)
        sides = {"pickup_zone": self.pickups, "dropoff_zone": self.dropoffs}
        for name in sides.keys() & trips.keys():
            zones = zones | ~sides[name][trips[name]]
        if sides.keys() <= trips.keys():
            pairs = ~self.pairs[encode_pair(trips)]
        return zones, pairs


def find_seen(model: DurationModel) -> Seen:
    """Read from a model's coefficients what its training saw."""
    pickups, dropoffs, pairs = (np.zeros(size, dtype=bool) for size in (ZONES, ZONES, PAIRS))
    of_side = {"pickup": pickups, "dropoff": dropoffs, "pair": pairs}
    for term in model.features.parsed:
        if term.level and term.level.side in of_side:
            of_side[term.level.side] |= ~np.isnan(model.coefficients[term.name])
    table = pairs.reshape(ZONES, ZONES)
    pickups |= table.any(axis=1)
    dropoffs |= table.any(axis=0)
    for seen in of_side.values():
        seen |= not seen.any()
    pickups[0] = dropoffs[0] = table[0] = table[:, 0] = True
    return Seen(pickups, dropoffs, pairs)


def _count_rows(rows: Rows) -> int:
    return int(np.count_nonzero(rows))
