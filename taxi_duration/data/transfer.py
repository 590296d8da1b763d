"""Receiving a month's bytes: hashed while they are written, in bounded time and space."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from taxi_duration.errors import SourceError, StorageError, TransientSourceError
from taxi_duration.settings import TransferSettings

Progress = Callable[[int, int | None], None]
"""Takes how many bytes have arrived, and how many there will be if that is known."""

PARQUET_MAGIC = b"PAR1"
LEAST_PARQUET_BYTES = 12
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Transfer:
    """The limits of one transfer.

    Args:
        address: where the bytes come from, for messages.
        begun: when the request was sent, by `time.monotonic`.
    """

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
            TransientSourceError: the transfer is too slow, takes too long or is cut off.
            SourceError: there are more bytes than allowed.
            StorageError: there are more bytes than the disk has free.
        """
        self._check_size(promised or 0)
        free = shutil.disk_usage(target.parent).free
        if promised and promised > free:
            raise StorageError(
                f"{self.address} has {promised:,} bytes and the disk of {target.parent.parent} has "
                f"{free:,} free",
                "make room, or name another data directory",
            )
        digest, received, first, last = hashlib.sha256(), 0, b"", b""
        answered = time.monotonic()
        with target.open("wb") as file:
            for chunk in chunks:
                received += len(chunk)
                self._check_size(received)
                self._check_pace(received, answered)
                if self.report:
                    self.report(received, promised)
                file.write(chunk)
                digest.update(chunk)
                first, last = (first + chunk[:4])[:4], (last + chunk[-4:])[-4:]
        if promised is not None and received != promised:
            raise self._cut_off(f"{received:,} bytes of the {promised:,} it promised")
        # Without a promise, the end of a connection looks like the end of the file.
        if first == PARQUET_MAGIC and (last != PARQUET_MAGIC or received < LEAST_PARQUET_BYTES):
            raise self._cut_off(f"{received:,} bytes that do not end as a parquet file does")
        return digest.hexdigest()

    def _check_size(self, size: int) -> None:
        most = self.settings.most_bytes
        if size > most:
            raise SourceError(
                f"{self.address} is larger than the {most:,} bytes allowed",
                "find out what it is, or raise TAXI_DURATION_TRANSFER_MOST_BYTES",
            )

    def _check_pace(self, received: int, answered: float) -> None:
        settings, now = self.settings, time.monotonic()
        if now - self.begun > settings.deadline_seconds:
            raise self._cut_off(
                f"{received:,} bytes in {now - self.begun:.1f} s, which is more than the "
                f"{settings.deadline_seconds:g} of TAXI_DURATION_TRANSFER_DEADLINE_SECONDS"
            )
        seconds, slowest = now - answered, settings.slowest_bytes_a_second
        if seconds > settings.grace_seconds and received < slowest * seconds:
            raise self._cut_off(
                f"{received:,} bytes in {seconds:.1f} s, which is slower than the "
                f"{slowest:,} a second of TAXI_DURATION_TRANSFER_SLOWEST_BYTES_A_SECOND"
            )

    def _cut_off(self, what: str) -> TransientSourceError:
        return TransientSourceError(f"{self.address} sent {what}", "nothing was kept; try again")
