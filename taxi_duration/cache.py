"""Months kept on the local disk: put there whole or not at all, with a sidecar that vouches.

A month that this package fetched has a sidecar, `<file>.json`, saying where it came from and
which bytes arrived; every use compares. A file without one was placed by the user and is taken
as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from taxi_duration.disk import flush_to_disk, hash_file, stage
from taxi_duration.errors import DataError
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile, check_footer
from taxi_duration.trips import Cab

SYNTHETIC_PREFIX = "synthetic_"
"""The bundled sample's files carry it, so that a report shows what it was computed from."""


@dataclass(frozen=True)
class Sidecar:
    """Where a fetched month came from, its ETag there, and the bytes that arrived."""

    source: str
    etag: str
    size: int
    sha256: str


def find_month(directory: Path, cab: Cab, month: Month) -> Path | None:
    """The month's file in `directory` (a real one before a synthetic one), or None."""
    name = month.file_name(cab.name)
    for candidate in (directory / name, directory / f"{SYNTHETIC_PREFIX}{name}"):
        if candidate.is_file():
            return candidate
    return None


def read_sidecar(path: Path) -> Sidecar | None:
    """The sidecar of a month's file; None when the file has none.

    Raises:
        DataError: the sidecar cannot be read, so nothing vouches for the bytes.
    """
    try:
        return Sidecar(**json.loads(_sidecar_path(path).read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{_sidecar_path(path)} cannot be read ({error}): delete it and {path.name}, and run "
            "again to fetch the month anew."
        ) from error


def verify_month(path: Path, cab: Cab, month: Month) -> MonthFile:
    """Hash a month's file and hold it against its sidecar and the contract's columns.

    Raises:
        DataError: the bytes are not those that were fetched, or `check_footer` refuses them.
    """
    digest = hash_file(path)
    sidecar = read_sidecar(path)
    if sidecar is not None and sidecar.sha256 != digest:
        raise DataError(
            f"{path} has sha256 {digest}, but {sidecar.sha256} was fetched from {sidecar.source}: "
            "its bytes changed on this disk. Delete it and run again to fetch it anew, or delete "
            f"{_sidecar_path(path).name} to use it as a file of your own."
        )
    check_footer(path, cab)
    return MonthFile(month, path, digest)


def place_month(
    path: Path, cab: Cab, source: str, etag: str, write: Callable[[Path], None]
) -> None:
    """Put a fetched month at `path`, so that no reader ever sees a part of it.

    Args:
        write: fetches the bytes into the temporary file it is given, in `path`'s directory.

    Raises:
        DataError: what arrived is no month of this cab type; nothing is kept.
    """
    with stage(path.parent, path.name) as scratch:
        fetched = Path(scratch, path.name)
        write(fetched)
        try:
            check_footer(fetched, cab)
        except DataError as error:
            what = str(error).replace(str(fetched), path.name)
            raise DataError(f"{source} sent no month of {cab.name} trips: {what}") from error
        flush_to_disk(fetched)
        sidecar = Sidecar(source, etag, fetched.stat().st_size, hash_file(fetched))
        written = _sidecar_path(fetched)
        written.write_text(json.dumps(asdict(sidecar), indent=2) + "\n", "utf-8")
        flush_to_disk(written)
        # The sidecar first: a crash between the two leaves bytes that it does not vouch for,
        # which is noticed, where the other order would leave them looking like a user's own.
        written.replace(_sidecar_path(path))
        fetched.replace(path)


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
