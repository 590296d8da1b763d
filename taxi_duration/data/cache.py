"""Months kept on the local disk: put there whole or not at all, with a sidecar that vouches.

A month that this package fetched has a sidecar, `<file>.json`, saying where it came from and
which bytes arrived; every use compares them, and asks the source whether it has others by now.
A file without one was placed by the user and is taken as it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Protocol

import filelock

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import SYNTHETIC_PREFIX, MonthFile, check_footer
from taxi_duration.data.schema import Cab
from taxi_duration.errors import (
    DataError,
    SourceError,
    TransientSourceError,
    describe,
    translated,
)
from taxi_duration.files import FREE_SPACE, flush_to_disk, hash_file, stage
from taxi_duration.settings import TransferSettings, read_settings

LOCK_MARGIN_SECONDS = 60.0
"""How much longer than a transfer may take to wait for another process's."""


@dataclass(frozen=True)
class Delivery:
    """Bytes that arrived: what the source calls this version of them, their number and hash."""

    etag: str
    last_modified: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Sidecar(Delivery):
    """Where a fetched month came from, the bytes that arrived, and the rows in them.

    The previous ones are those of the file that it replaced, which are right until it has.
    """

    source: str
    rows: int
    previous_sha256: str = ""
    previous_rows: int = 0


class Source(Protocol):
    """Where a month can be had: the TLC, or a bucket."""

    @property
    def address(self) -> str:
        """What messages and sidecars call it; no password in it."""

    def fetch(self, known: Sidecar | None, target: Path) -> Delivery | None:
        """Write the month's bytes to `target`; None when they are those already known.

        Raises:
            SourceError: the source did not deliver; TransientSourceError when it may yet.
        """


def find_month(directory: Path, cab: Cab, month: Month) -> Path | None:
    """Return the month's file in `directory` (a real one before a synthetic one), or None."""
    name = month.file_name(cab.name)
    for candidate in (directory / name, directory / f"{SYNTHETIC_PREFIX}{name}"):
        if candidate.is_file():
            return candidate
    return None


def has_sidecar(path: Path) -> bool:
    """Return whether a month's file was fetched by this package; else a user placed it."""
    return _sidecar_path(path).exists()


def obtain_month(
    directory: Path, cab: Cab, month: Month, source: Source | None, *, fresh: bool = False
) -> MonthFile:
    """Return the month's file, fetching it if it is missing or its sha256 no longer matches.

    Of several processes that want the same month, one asks and the others wait for it.

    Args:
        source: where to fetch it, and to ask whether it was published anew; None asks nobody.
        fresh: fetch it even if the bytes that were fetched before are still the source's, and use
            no others; a user's file is used all the same.

    Returns:
        The file; its notices say what a reader of the report should know of how it got here.

    Raises:
        DataError: the month is absent or altered and there is no source, or what is there or
            what arrived is no month of this cab type.
        SourceError: the source did not deliver, and no verified copy is here.
        StorageError: the disk did not take it.
    """
    started = time.time_ns()
    present = find_month(directory, cab, month)
    if present is not None and not has_sidecar(present):
        return _take_users_file(present, cab, month)
    path = present or directory / month.file_name(cab.name)
    if present is not None and (source is None or not os.access(directory, os.W_OK)):
        return _take_unasked(path, cab, month)
    if source is None:
        raise DataError(f"{path} is missing and nothing may be fetched", "place it there")
    known, notices, placed = None, list[str](), None
    try:
        with _lock(path):
            known, notices = _read_known(path)
            if known is not None and started <= _read_asked(path) <= time.time_ns():
                return MonthFile(month, path, known.sha256)  # by another process, meanwhile
            placed = _fetch(path, cab, source, known, notices, fresh)
    except (SourceError, DataError) as error:
        known = None if fresh else known or _read_known(path)[0]
        if known is None:
            problem = " ".join([*notices, error.problem])
            raise type(error)(problem, *error.args[1:]) from error
        placed = known
        notices.append(
            f"{error} The {path.name} that is here, verified by its sha256, is used instead."
        )
    if placed is None:
        return _take_users_file(path, cab, month)
    if known is not None and placed.sha256 != known.sha256:
        notices.append(
            f"{path.name} was published anew: sha256 {known.sha256} of {known.rows:,} rows gave "
            f"way to {placed.sha256} of {placed.rows:,}."
        )
    check_footer(path, cab)
    return MonthFile(month, path, placed.sha256, tuple(notices), was_there=placed is known)


def _take_users_file(path: Path, cab: Cab, month: Month) -> MonthFile:
    check_footer(path, cab)
    notice = f"{path.name} has no sidecar: it is used as the file of your own that it seems to be."
    is_sample = path.name.startswith(SYNTHETIC_PREFIX)
    try:
        sha256 = hash_file(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({describe(error)})",
            "put a good copy there, or delete it and have it fetched",
        ) from error
    return MonthFile(month, path, sha256, () if is_sample else (notice,), was_there=True)


def _take_unasked(path: Path, cab: Cab, month: Month) -> MonthFile:
    """Take a fetched month without asking its source, as when offline or in a read-only place."""
    known, notices = _read_known(path)
    if known is None:
        raise DataError(
            f"{' '.join(notices)} But that may not be (offline is set, or {path.parent} is "
            "read-only)",
            "run where it may, or, to use it as a file of your own, delete "
            f"{_sidecar_path(path).name}",
        )
    check_footer(path, cab)
    return MonthFile(month, path, known.sha256, was_there=True)


def _read_known(path: Path) -> tuple[Sidecar | None, list[str]]:
    """Return the sidecar if it vouches for the bytes; else None and what is wrong with them."""
    if not path.exists():
        return None, []
    try:
        sidecar = _read_sidecar(path)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return None, [
            f"{_sidecar_path(path)} cannot be read ({error}), so {path.name}, for which "
            "nothing vouches, is fetched again."
        ]
    try:
        digest = hash_file(path)
    except OSError as error:
        return None, [f"{path} cannot be read ({describe(error)}), and is fetched again."]
    if digest == sidecar.sha256:
        return sidecar, []
    if digest == sidecar.previous_sha256:
        # A run died between the renames of the sidecar and of the file; no ETag is of these bytes.
        return replace(sidecar, sha256=digest, rows=sidecar.previous_rows, etag=""), []
    return None, [
        f"{path} has sha256 {digest}, but {sidecar.sha256} was fetched from {sidecar.source}: "
        "its bytes changed on this disk, and it is fetched again."
    ]


def _read_sidecar(path: Path) -> Sidecar:
    sidecar = Sidecar(**json.loads(_sidecar_path(path).read_text("utf-8")))
    for name, value in asdict(sidecar).items():
        if type(value) is not (int if name in ("size", "rows", "previous_rows") else str):
            raise TypeError(f"{name} is {value!r}")
    return sidecar


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the month's lock: one process at a time fetches it."""
    patience = read_settings(TransferSettings).deadline_seconds + LOCK_MARGIN_SECONDS
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=patience)
    with translated(f"locking {path}", FREE_SPACE, of=OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout as error:  # an OSError, but none of the disk's
            raise TransientSourceError(
                f"{path.name} has been locked for {patience:.0f} s by another process, which is "
                "fetching it",
                "see what became of that one, and run again",
            ) from error
    try:
        yield
    finally:
        lock.release()


def _fetch(
    path: Path, cab: Cab, source: Source, known: Sidecar | None, notices: list[str], fresh: bool
) -> Sidecar | None:
    """Put what the source has at `path`, whole; known bytes stay when it has the same.

    Bytes that are there and not known are kept aside, which a notice says.

    Returns:
        The sidecar; None when a user has placed a file there meanwhile, which stays.

    Raises:
        DataError: what arrived is no month of this cab type; nothing of it is kept.
    """
    with stage(path.parent, path.name) as scratch:
        fetched = scratch / path.name
        # The ETag of one source says nothing to another.
        may_ask = known is not None and known.source == source.address and not fresh
        delivery = source.fetch(known if may_ask else None, fetched)
        if delivery is None:
            os.utime(_sidecar_path(path))  # so that those who wait for the lock need not ask
            return known
        try:
            # The name of the temporary directory it is still in tells nobody anything.
            rows = check_footer(fetched, cab, path.name)
        except DataError as error:
            raise error.about(f"{source.address} sent no month of {cab.name} trips") from error
        flush_to_disk(fetched)
        sidecar = Sidecar(
            **asdict(delivery),
            source=source.address,
            rows=rows,
            previous_sha256=known.sha256 if known else "",
            previous_rows=known.rows if known else 0,
        )
        written = _sidecar_path(fetched)
        written.write_text(json.dumps(asdict(sidecar), indent=2) + "\n", "utf-8")
        flush_to_disk(written)
        if known is None and path.exists():
            if not has_sidecar(path):
                return None
            if not _holds(path, delivery.sha256):
                aside = _find_place_aside(path)
                path.replace(aside)
                notices.append(f"What was there is kept as {aside.name}.")
        # The sidecar first: a crash between the two leaves bytes that it does not vouch for, or as
        # the previous ones, where the other order would leave them looking like a user's own.
        written.replace(_sidecar_path(path))
        fetched.replace(path)
        flush_to_disk(path.parent)
    return sidecar


def _holds(path: Path, sha256: str) -> bool:
    with suppress(OSError):
        return hash_file(path) == sha256
    return False


def _find_place_aside(path: Path) -> Path:
    return next(
        aside
        for number in count(1)
        if not (aside := path.with_name(f"{path.name}.altered-{number}")).exists()
    )


def _read_asked(path: Path) -> int:
    """Return when the source was last asked about a fetched month, in nanoseconds."""
    return _sidecar_path(path).stat().st_mtime_ns


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
