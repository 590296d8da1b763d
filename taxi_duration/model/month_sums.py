"""A month's file reduced to all that training needs of it, once; kept on disk if asked.

What is kept is named by the file's bytes and by everything else it follows from: the terms, the
month, and the code that computes it. So a rolling window reads one new file a month.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from taxi_duration.data.clean import RowFunnel, Trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import check_footer, check_funnel, check_unchanged, reduce_trips
from taxi_duration.data.schema import Cab
from taxi_duration.files import check_directory, flush_to_disk, hash_file, stage
from taxi_duration.model.baselines import Keys, ZonePairMedians, find_medians, make_keys
from taxi_duration.model.features import (
    HOURS,
    MICROSECONDS_IN_HOUR,
    PAIRS,
    ZONES,
    FeatureSet,
    Floats,
    encode_pair,
    is_metered,
)
from taxi_duration.model.tables import Layout, Tables, tabulate
from taxi_duration.settings import Thresholds
from taxi_duration.version import identify_code

Counts = npt.NDArray[np.int64]

HALF_MILES = 20
"""Bins of half a mile, up to 10 miles; then one to `FARTHEST_MILES`, and one of unmetered trips."""

HOURS_A_DAY = 24

MINUTES_A_BIN, DURATION_BINS = 3.0, 20
"""Up to the hour, which is in the last bin."""

QUANTITIES = ("distance", "hour", "duration")


@dataclass(frozen=True, eq=False)
class Profile:
    """Counts of trips, of none by default.

    Args:
        distance: by miles, see `HALF_MILES`.
        hour: by the pick-up's hour of the day, in New York time.
        duration: by minutes, see `MINUTES_A_BIN`.
        pairs: (`PAIRS`,), by zone pair.
    """

    distance: Counts = field(default_factory=lambda: np.zeros(HALF_MILES + 2, np.int64))
    hour: Counts = field(default_factory=lambda: np.zeros(HOURS_A_DAY, np.int64))
    duration: Counts = field(default_factory=lambda: np.zeros(DURATION_BINS, np.int64))
    pairs: Counts = field(default_factory=lambda: np.zeros(PAIRS, np.int64))

    @classmethod
    def of(cls, trips: Trips) -> Profile:
        """The profile of trips that `clean_trips` returned."""
        distance = np.minimum(trips["distance_miles"] * 2, HALF_MILES).astype(np.int32)
        distance[~is_metered(trips)] = HALF_MILES + 1
        hour = trips["pickup"].view(np.int64) // MICROSECONDS_IN_HOUR % HOURS_A_DAY
        duration = np.minimum(trips["minutes"] / MINUTES_A_BIN, DURATION_BINS - 1).astype(np.int32)
        return cls(
            np.bincount(distance, minlength=HALF_MILES + 2),
            np.bincount(hour, minlength=HOURS_A_DAY),
            np.bincount(duration, minlength=DURATION_BINS),
            np.bincount(encode_pair(trips), minlength=PAIRS),
        )

    @property
    def counts(self) -> dict[str, Counts]:
        """The counts by their names."""
        return {name: getattr(self, name) for name in (*QUANTITIES, "pairs")}

    def __add__(self, other: Profile) -> Profile:
        theirs = other.counts
        return Profile(**{name: ours + theirs[name] for name, ours in self.counts.items()})

    def __sub__(self, other: Profile) -> Profile:
        theirs = other.counts
        return Profile(**{name: ours - theirs[name] for name, ours in self.counts.items()})


Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class MonthSums:
    """What is left of a month: its tables (see `tabulate`) and its row funnel.

    And, if they were asked for, its medians and the profile of its trips.
    """

    tables: list[Tables]
    funnel: RowFunnel
    medians: ZonePairMedians | None = None
    profile: Profile | None = None


@dataclass(frozen=True)
class KeptMonth:
    """A month's sums, the file they are kept in, and whether they were there before."""

    path: Path
    sums: MonthSums
    was_there: bool


UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file of sums may raise."""


def reduce_month(
    path: str | Path,
    feature_set: FeatureSet,
    cab: Cab | None = None,
    month: Month | None = None,
    *,
    with_medians: bool = False,
    thresholds: Thresholds | None = None,
) -> MonthSums:
    """Read a month's file once, in chunks, and reduce it.

    Args:
        with_medians: find its medians and its profile too, which another month is compared with.
        thresholds: the data contract's, which the month must keep; None asks only for a trip.

    Raises:
        DataError: as `reduce_trips`.
    """

    def reduce(chunks: Iterator[Trips]) -> tuple[list[Tables], list[Keys], Profile]:
        keys: list[Keys] = []
        profile = Profile()

        def noted() -> Iterator[Trips]:
            nonlocal profile
            for chunk in chunks:
                if with_medians:
                    keys.append(make_keys(chunk))
                    profile += Profile.of(chunk)
                yield chunk

        return tabulate(noted(), feature_set), keys, profile

    lanes, funnel = reduce_trips(path, reduce, cab, month, thresholds)
    first, *others = [tables for tables, _, _ in lanes]
    for lane in others:
        first = [a + b for a, b in zip(first, lane, strict=True)]
    if not with_medians:
        return MonthSums(first, funnel)
    medians = find_medians(np.concatenate([chunk for _, keys, _ in lanes for chunk in keys]))
    return MonthSums(first, funnel, medians, sum((each for _, _, each in lanes), Profile()))


def recall_month(
    directory: Path,
    path: str | Path,
    feature_set: FeatureSet,
    cab: Cab | None = None,
    month: Month | None = None,
    *,
    sha256: str | None = None,
    with_medians: bool = False,
    thresholds: Thresholds | None = None,
    fresh: bool = False,
) -> KeptMonth:
    """Have a month's sums kept in a directory: those that are there already, or new ones.

    Args:
        sha256: of the file, when it is known; else the file is hashed.
        thresholds: as in `reduce_month`; a month that breaks them is not kept, and one that was
            kept under others is asked again.
        fresh: compute them even if they are there.

    Raises:
        InputError: the directory is a file.
        StorageError: it takes no file.
        DataError: as `reduce_trips`.
    """
    check_directory(directory, "sums directory")
    if sha256 is None:
        check_footer(Path(path), cab)
        sha256 = hash_file(Path(path))
    identity = {
        "file": sha256,
        "terms": feature_set.terms,
        "parts": Layout(feature_set).parts,
        "cab": cab.name if cab else None,
        "month": str(month),
        "medians": with_medians,
        "code": identify_code(__name__),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    kept = directory / f"{month or Path(path).stem}-{digest[:16]}.npz"
    if not fresh:
        with suppress(*UNREADABLE):
            sums = load_sums(kept, feature_set)
            check_funnel(Path(path), sums.funnel, thresholds)
            return KeptMonth(kept, sums, was_there=True)
    sums = reduce_month(
        path, feature_set, cab, month, with_medians=with_medians, thresholds=thresholds
    )
    check_unchanged(Path(path), sha256)
    save_sums(kept, sums)
    return KeptMonth(kept, sums, was_there=False)


def save_sums(path: Path, sums: MonthSums) -> None:
    """Write a month's sums, whole or not at all; rows of tables without trips are left out."""
    arrays: Arrays = {"funnel": np.array(json.dumps(asdict(sums.funnel)))}
    if sums.medians:
        arrays["medians"] = sums.medians.minutes
    if sums.profile:
        arrays |= {f"profile.{name}": counts for name, counts in sums.profile.counts.items()}
    for part, tables in enumerate(sums.tables):
        arrays[f"{part}.squares"] = np.array(tables.minutes_squares)
        for name in ("pairs", "pickup_hours", "dropoff_hours"):
            table = getattr(tables, name)
            rows = np.flatnonzero(table.any(axis=(0, 2)))
            arrays[f"{part}.{name}.rows"] = rows.astype(np.int32)
            arrays[f"{part}.{name}"] = table[:, rows]
        for place, crossed in enumerate(tables.crossed):
            entries = crossed.tocoo()
            arrays[f"{part}.crossed.{place}.rows"] = entries.row.astype(np.int32)
            arrays[f"{part}.crossed.{place}.columns"] = entries.col.astype(np.int16)
            arrays[f"{part}.crossed.{place}"] = entries.data
    with stage(path.parent, path.name) as scratch:
        written = Path(scratch, path.name)
        np.savez(written, allow_pickle=False, **arrays)
        flush_to_disk(written)
        written.replace(path)


def load_sums(path: Path, feature_set: FeatureSet) -> MonthSums:
    """Read what `save_sums` wrote for the same feature set.

    Raises:
        one of `UNREADABLE`: the file is absent or damaged; its checksums are verified.
    """
    layout = Layout(feature_set)
    with zipfile.ZipFile(path) as archive:
        arrays = {
            name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()
        }
    tables = [
        Tables(
            layout,
            float(arrays[f"{part}.squares"]),
            _spread(arrays, f"{part}.pairs", PAIRS),
            _spread(arrays, f"{part}.pickup_hours", ZONES * HOURS),
            _spread(arrays, f"{part}.dropoff_hours", ZONES * HOURS),
            tuple(
                _fill(arrays, f"{part}.crossed.{place}", (layout.levels, term.level.size))
                for place, term in enumerate(layout.hour_terms)
                if term.level
            ),
        )
        for part in range(layout.parts)
    ]
    medians = ZonePairMedians(arrays["medians"]) if "medians" in arrays else None
    counts = {name.removeprefix("profile."): arrays[name] for name in arrays if "profile." in name}
    profile = Profile(**counts) if counts else None
    return MonthSums(tables, RowFunnel(**json.loads(str(arrays["funnel"]))), medians, profile)


def _read_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    # To its end, where the checksum is held against it: NumPy's own reading stops where a damaged
    # header says that the array does.
    content = io.BytesIO(archive.read(name))
    array: npt.NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    return array


def _spread(arrays: Mapping[str, npt.NDArray[Any]], name: str, height: int) -> Floats:
    kept = arrays[name]
    table = np.zeros((kept.shape[0], height, kept.shape[2]))
    table[:, arrays[f"{name}.rows"]] = kept
    return table


def _fill(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, int]
) -> sparse.csr_matrix:
    places = arrays[f"{name}.rows"], arrays[f"{name}.columns"].astype(np.int32)
    return sparse.csr_matrix((arrays[name], places), shape)
