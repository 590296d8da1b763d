"""Files on the local disk: staged beside their place, flushed, and renamed there whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taxi_duration.errors import InputError, describe, translated

STAGED_SUFFIX = ".taxi-duration.partial"
FREE_SPACE = (
    "free space on its disk, give yourself permission, or name another directory. Nothing was left "
    "half-written"
)
LOCK_FILE = "lock"
"""In a staged directory: locked while its process lives. Some network file systems lock no
directory."""


@contextmanager
def stage(directory: Path, name: str) -> Iterator[Path]:
    """Yield a temporary directory inside `directory`, for what is renamed into place when whole.

    It is locked while it is used, so what a dead process left behind is told from what
    another is writing now, and removed.

    Args:
        name: of the file or directory to come, for the temporary one's name.

    Raises:
        StorageError: anything here fails for want of space, permission or a disk that works.
    """
    with translated(f"writing {directory / name}", FREE_SPACE, of=OSError):
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        scratch, lock = _make_locked(directory, name)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(lock)


def sweep(directory: Path) -> None:
    """Remove the temporary directories that processes left behind when they died."""
    for left in directory.glob(f".*{STAGED_SUFFIX}"):
        with suppress(OSError):
            try:
                lock = os.open(left / LOCK_FILE, os.O_RDWR)
            except FileNotFoundError:
                left.rmdir()  # its process died, or will find it gone, before it was locked
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _make_locked(directory: Path, name: str) -> tuple[Path, int]:
    while True:
        scratch = Path(tempfile.mkdtemp(STAGED_SUFFIX, f".{name}.", directory))
        with suppress(FileNotFoundError):  # swept by another before it was locked
            lock = os.open(scratch / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (scratch / LOCK_FILE).exists():
                return scratch, lock
            os.close(lock)


def flush_to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_directory(directory: Path, what: str) -> None:
    """Refuse a path that exists and is not a directory.

    Args:
        what: what the user calls it, for the message.

    Raises:
        InputError: it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{what} {directory} is a file", "give a directory")


def check_writable(directory: Path, what: str) -> Path:
    """Refuse a directory in which no file can be created, creating nothing itself.

    Args:
        what: what the user calls it, for the message.

    Returns:
        The directory, or the nearest one above it that exists.

    Raises:
        InputError: it is a file, or it (or what would be its parent) takes no new file.
    """
    check_directory(directory, what)
    existing = next(
        parent for parent in [directory, *directory.absolute().parents] if parent.exists()
    )
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(
            f"{what} {directory} is not writable ({describe(error)})",
            "give another directory",
        ) from error
    return existing
