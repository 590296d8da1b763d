"""Receiving a month's bytes: hashed as they are written, in bounded time and space."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi_duration.errors import SourceError, StorageError, TransientSourceError
from taxi_duration.settings import TransferSettings

Progress = Callable[[int, int | None], None]
"""Is told how many bytes have arrived, and of how many if that is known."""

Trace = Callable[[str, Mapping[str, Any]], None]
"""Is told by httpx, as its extension `trace`, what happens to a connection."""

PARQUET_MAGIC = b"PAR1"
LEAST_PARQUET_BYTES = 12
CHUNK_BYTES = 1 << 16


@contextmanager
def shut_at_deadline(seconds: float) -> Iterator[Trace]:
    """Lend a trace that learns of encrypted connections, and shut them down when time is up.

    httpx's timeouts are each read's, so headers that come a byte at a time would never end.
    """
    connections: list[socket.socket] = []

    def note(event: str, details: Mapping[str, Any]) -> None:
        if event.endswith("start_tls.complete"):
            connections.append(details["return_value"].get_extra_info("socket"))

    def shut() -> None:
        for connection in connections:
            with suppress(OSError):  # it has ended already
                # Not the SSLSocket's own, which would take the encryption off a read under way.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield note
    finally:
        timer.cancel()


def read_as_it_comes(body: Any) -> Iterator[bytes]:
    """The chunks of a botocore response's body, each as soon as there is anything of it.

    Its own reads wait until there is as much as they ask for, which a byte a second may take
    hours to be; each of them starts the read timeout anew with every byte.
    """
    with body as stream:
        stream.read = stream.read1
        yield from body.iter_chunks(CHUNK_BYTES)


@dataclass(frozen=True)
class Transfer:
    """One transfer from `address`, begun when this is made."""

    address: str
    settings: TransferSettings
    begun: float
    report: Progress | None = None

    def receive(self, chunks: Iterable[bytes], promised: int | None, target: Path) -> str:
        """Write the chunks to `target` as they come.

        Args:
            promised: how many bytes the source says there are.

        Returns:
            The sha256 of what was written.

        Raises:
            TransientSourceError: too slow, too late, or cut off.
            SourceError: more bytes than allowed.
            StorageError: more bytes than the disk has free.
        """
        self._check_size(promised or 0, target)
        digest, received, first, last = hashlib.sha256(), 0, b"", b""
        with target.open("wb") as file:
            for chunk in self.watch(chunks, promised):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                first, last = (first + chunk[:4])[:4], (last + chunk[-4:])[-4:]
        if promised is not None and received != promised:
            raise self._cut_off(f"{received:,} bytes of the {promised:,} it promised")
        # Without a promise, the end of a connection looks like the end of the file.
        if first == PARQUET_MAGIC and (last != PARQUET_MAGIC or received < LEAST_PARQUET_BYTES):
            raise self._cut_off(f"{received:,} bytes that do not end as a parquet file does")
        return digest.hexdigest()

    def watch(self, chunks: Iterable[bytes], promised: int | None = None) -> Iterator[bytes]:
        """Pass the chunks on as they come, which they must do soon enough after one another.

        Raises:
            TransientSourceError: too slow, or too late.
            SourceError: more bytes than allowed.
        """
        received, answered = 0, time.monotonic()
        for chunk in chunks:
            received += len(chunk)
            self._check_limit(received)
            now = time.monotonic()
            self._check_pace(received, now - self.begun, now - answered)
            if self.report:
                self.report(received, promised)
            yield chunk

    def _check_limit(self, size: int) -> None:
        most = self.settings.most_bytes
        if size > most:
            raise SourceError(
                f"{self.address} is larger than the {most:,} bytes allowed: find out what it is, "
                "or raise TAXI_DURATION_TRANSFER_MOST_BYTES."
            )

    def _check_size(self, size: int, target: Path) -> None:
        self._check_limit(size)
        free = shutil.disk_usage(target.parent).free
        if size > free:
            raise StorageError(
                f"{self.address} has {size:,} bytes and the disk of {target.parent.parent} has "
                f"{free:,} free: make room, or name another data directory."
            )

    def _check_pace(self, received: int, seconds: float, body_seconds: float) -> None:
        settings = self.settings
        if seconds > settings.deadline_seconds:
            raise self._cut_off(
                f"{received:,} bytes in {seconds:.1f} s, which is more than the "
                f"{settings.deadline_seconds:g} of TAXI_DURATION_TRANSFER_DEADLINE_SECONDS"
            )
        slowest = settings.slowest_bytes_a_second
        if body_seconds > settings.grace_seconds and received < slowest * body_seconds:
            raise self._cut_off(
                f"{received:,} bytes in {body_seconds:.1f} s, which is slower than the "
                f"{slowest:,} a second of TAXI_DURATION_TRANSFER_SLOWEST_BYTES_A_SECOND"
            )

    def _cut_off(self, what: str) -> TransientSourceError:
        return TransientSourceError(f"{self.address} sent {what}: nothing was kept; try again.")
