"""One month to download, and processes of their own that want it: limited, unprivileged, killed.

They are forked by a server that has imported everything already, so that each starts at once.
"""

import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

import filelock
import pytest

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import CABS
from taxi_duration.data.tlc import locate_month
from taxi_duration.errors import TaxiDurationError
from tests.support.forks import kill_at

GREEN = CABS["green"]
JANUARY = Month(2023, 1)
FILE = JANUARY.file_name("green")
SIDECAR = f"{FILE}.json"

LOCKING = "about to lock"
NOBODY = 65534
PATIENCE_SECONDS = 60.0


def locate(data: Path, offline: bool = False) -> MonthFile:
    return locate_month(GREEN, JANUARY, data, offline)


def list_names(directory: Path) -> list[str]:
    """What is in a directory but for locks, which stay."""
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return sorted(name for name in names if not name.endswith(".lock"))


def refuse(data: Path, kind: type[Exception], message: str) -> Exception:
    """Have the month refused with exactly this kind of error, and nothing kept of it."""
    with pytest.raises(kind, match=message) as caught:
        locate(data)
    assert type(caught.value) is kind
    assert list_names(data) == []
    assert str(caught.value).endswith(".")
    return caught.value


@dataclass(frozen=True)
class Child:
    """A process that does something, and tells what came of it."""

    process: ForkServerProcess
    connection: Connection

    def hear(self) -> object:
        """The next thing it tells: `LOCKING`, what it made, or the error it ended with."""
        assert self.connection.poll(PATIENCE_SECONDS)
        return self.connection.recv()

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait for it; its exit code, or minus the number of the signal that killed it."""
        self.process.join(PATIENCE_SECONDS)
        assert self.process.exitcode is not None
        return self.process.exitcode


@contextmanager
def start(
    act: Callable[..., object],
    *arguments: object,
    environment: Mapping[str, str],
    prepare: Callable[[Connection], object] | None = None,
) -> Iterator[Child]:
    """Do something in a process of its own, after it was prepared for its fate."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_tell, args=(theirs, dict(environment), prepare, act, arguments)
    )
    process.start()
    theirs.close()
    try:
        yield Child(process, ours)
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()


def _tell(
    connection: Connection,
    environment: Mapping[str, str],
    prepare: Callable[[Connection], object] | None,
    act: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    os.environ.update(environment)
    if prepare:
        prepare(connection)
    try:
        connection.send(act(*arguments))
    except TaxiDurationError as error:
        connection.send(error)


def announce_lock(connection: Connection) -> None:
    """Have the process tell when it is about to wait for the month's lock."""
    acquire = filelock.FileLock.acquire

    def announce(lock: filelock.FileLock) -> object:
        connection.send(LOCKING)
        return acquire(lock)

    mock.patch.object(filelock.FileLock, "acquire", announce).start()


def limit_file_size(_: Connection) -> None:
    """Give the process a disk that takes no more than the first kilobyte of any file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def drop_privileges(_: Connection) -> None:
    """Have permissions count for the process, as they do not for root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def die_before_sidecar(_: Connection) -> None:
    kill_at(Path, "replace", call=1)


def die_between_sidecar_and_file(_: Connection) -> None:
    kill_at(Path, "replace", call=2)


def die_before_cleaning_up(_: Connection) -> None:
    kill_at(shutil, "rmtree")
