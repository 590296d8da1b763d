"""Fetching a month from the TLC over https: whole, in bounded time and space, or not at all."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from taxi_duration.data.cache import Delivery, Sidecar, find_month, has_sidecar, obtain_month
from taxi_duration.data.month import PUBLICATION_LAG_MONTHS, Month, newest_published
from taxi_duration.data.parquet import MonthFile, check_footer
from taxi_duration.data.schema import Cab
from taxi_duration.data.transfer import Progress, Transfer
from taxi_duration.errors import (
    PASSING_STATUSES,
    DataError,
    InputError,
    SourceError,
    TransientSourceError,
    describe,
    hide_credentials,
)
from taxi_duration.files import check_directory, check_writable
from taxi_duration.settings import TlcSettings, TransferSettings, read_settings

MOST_REDIRECTS = 3
RECENT_MONTHS = 3
"""Publication is late by a month or two at times: until then, 403 is taken for "not yet"."""


def month_url(cab: Cab, month: Month, settings: TlcSettings) -> str:
    """Return the address of a month's file at the TLC, or at the operator's mirror."""
    return f"{settings.url}/{month.file_name(cab.name)}"


def check_months(
    cab: Cab,
    months: Sequence[Month],
    directory: Path,
    offline: bool,
    today: date,
    *,
    validates: bool = True,
) -> None:
    """Check, before any work, that each month is on the disk or can be downloaded.

    Args:
        validates: whether the last month validates a model that is trained on those before it.

    Raises:
        InputError: a month that is not in `directory` cannot have been published by `today`, or
            `directory` cannot take it, or a setting is wrong.
        DataError: a month is missing and `offline` is set, or its file is no month of this cab.
    """
    check_directory(directory, "data directory")
    settings, _ = read_settings(TlcSettings), read_settings(TransferSettings)
    absent = []
    for month in months:
        present = find_month(directory, cab, month)
        if present is None:
            absent.append(month)
        elif not has_sidecar(present):  # else a file that is damaged can be fetched again
            check_footer(present, cab)
    for month in absent:
        if today < month.published_by:
            newest = newest_published(today)
            other = (
                f"Train on {newest.shift(-1)} or earlier (the next month validates)"
                if validates
                else f"Give {newest} or earlier"
            )
            raise InputError(
                f"{cab.name} month {month} is not published yet",
                f"expect it by {month.published_by}. {other}, or place "
                f"{month.file_name(cab.name)} in {directory}",
            )
        if offline:
            raise describe_missing(cab, month, directory, settings)
    if absent:
        check_writable(directory, "data directory")


@dataclass(frozen=True)
class LocalMonths:
    """Months in a local directory, downloaded when absent; see `locate_month`."""

    cab: Cab
    directory: Path
    offline: bool = False
    fresh: bool = False

    def __call__(self, month: Month, report: Progress | None = None) -> MonthFile:
        return locate_month(self.cab, month, self.directory, self.offline, report, fresh=self.fresh)


def locate_month(
    cab: Cab,
    month: Month,
    directory: Path,
    offline: bool,
    report: Progress | None = None,
    *,
    fresh: bool = False,
) -> MonthFile:
    """Return the month's file in `directory`: the user's own, or the TLC's as published now.

    Args:
        fresh: as in `obtain_month`.

    Raises:
        DataError: it is missing and `offline` is set; or it is not what was downloaded, or not
            a month of this cab type.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused.
        StorageError: the disk did not take it.
    """
    settings = read_settings(TlcSettings)
    if offline and find_month(directory, cab, month) is None:
        raise describe_missing(cab, month, directory, settings)
    limits = read_settings(TransferSettings)
    source = None if offline else Tlc(cab, month, settings, limits, report)
    return obtain_month(directory, cab, month, source, fresh=fresh)


def describe_missing(cab: Cab, month: Month, directory: Path, settings: TlcSettings) -> DataError:
    """Return the error for a month that is not on the disk when the network may not be used."""
    return DataError(
        f"{directory / month.file_name(cab.name)} is missing and offline is set",
        f"download {hide_credentials(month_url(cab, month, settings))} and place it there, or run "
        "without offline",
    )


@dataclass(frozen=True)
class Tlc:
    """A month's file on the TLC's server."""

    cab: Cab
    month: Month
    settings: TlcSettings
    transfer_settings: TransferSettings
    report: Progress | None = None

    @property
    def address(self) -> str:
        return hide_credentials(month_url(self.cab, self.month, self.settings))

    def fetch(self, known: Sidecar | None, target: Path) -> Delivery | None:
        """Download the month to `target`, unless its ETag is still the known one.

        Raises:
            TransientSourceError: a timeout, a broken connection, a short body, a transfer that is
                too slow, or a status 408, 425, 429 or 5xx.
            SourceError: any other refusal, a redirect to another host, or a file too large.
        """
        begun = time.monotonic()
        etag = known.etag if known is not None and known.etag.isascii() else ""
        with self._ask("GET", {"If-None-Match": etag} if etag else {}) as response:
            if known is not None and response.status_code == httpx.codes.NOT_MODIFIED:
                return None
            self._check_status(response)
            headers = response.headers
            encoding = headers.get("content-encoding", "identity").lower()
            if encoding != "identity":
                raise SourceError(
                    f"{self.address} sent a body encoded as {encoding}, which was not asked for",
                    "check TAXI_DURATION_TLC_URL",
                )
            promised = int(headers["content-length"]) if "content-length" in headers else None
            transfer = Transfer(self.address, self.transfer_settings, begun, self.report)
            sha256 = transfer.receive(response.iter_raw(), promised, target)
        etag, modified = (headers.get(name, "") for name in ("etag", "last-modified"))
        return Delivery(etag, modified, target.stat().st_size, sha256)

    def ask_size(self) -> int | None:
        """Ask whether the month is published, in one small request.

        Returns:
            Its size in bytes; None if the server does not say.

        Raises:
            TransientSourceError, SourceError: as `fetch`.
        """
        with self._ask("HEAD") as response:
            self._check_status(response)
            length = response.headers.get("content-length", "")
            return int(length) if length.isascii() and length.isdigit() else None

    @contextmanager
    def _ask(self, method: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """Send a request and yield the answer, having followed redirects within one host."""
        limits = self.transfer_settings
        try:
            with _open_client(limits, self._check_host) as client:
                request = client.build_request(
                    method,
                    month_url(self.cab, self.month, self.settings),
                    # Unencoded, so that Content-Length counts the bytes that are written.
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                )
                for _ in range(1 + MOST_REDIRECTS):
                    # httpx's own following reads a redirect's body, however long; this reads none.
                    with closing(client.send(request, stream=True)) as response:
                        if response.next_request is None:
                            yield response
                            return
                        request = response.next_request
            raise SourceError(
                f"{self.address} redirects more than {MOST_REDIRECTS} times",
                "check TAXI_DURATION_TLC_URL",
            )
        except httpx.InvalidURL as error:
            raise SourceError(
                f"{self.address} is not an address ({error})", "set TAXI_DURATION_TLC_URL"
            ) from error
        except httpx.TransportError as error:
            if _is_of_certificate(error):
                raise SourceError(
                    f"{self.address} does not prove who it is ({error})",
                    "check the network, or name the authority that vouches for a mirror in "
                    "SSL_CERT_FILE",
                ) from error
            raise TransientSourceError(
                f"{self.address} did not answer ({type(error).__name__}: {error})",
                "check the network, or place the file in the data directory and run with offline",
            ) from error

    def _check_host(self, request: httpx.Request) -> None:
        """Refuse a redirect to another scheme or host before it is followed."""
        source, target = httpx.URL(month_url(self.cab, self.month, self.settings)), request.url
        if (target.scheme, target.netloc) != (source.scheme, source.netloc):
            raise SourceError(
                f"{self.address} redirects to {hide_credentials(str(target))}, which is another "
                "host and was not asked",
                "check TAXI_DURATION_TLC_URL",
            )

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == httpx.codes.OK:
            return
        problem = f"{self.address} answered {status} {response.reason_phrase}"
        if status in PASSING_STATUSES:
            longest = self.transfer_settings.longest_wait_seconds
            raise TransientSourceError(
                f"{problem}: the server is busy or failing",
                "try again later",
                wait_seconds=min(_read_wait(response.headers), longest),
            )
        remedy = "choose another month, or place the file in the data directory"
        if status == httpx.codes.FORBIDDEN:
            # The TLC's server answers a missing month as it does a denied request.
            today = datetime.now(UTC).date()
            if today < self.month.published_by:
                why = f"{self.month} is not published yet; expect it by {self.month.published_by}"
            elif today < self.month.shift(1 + PUBLICATION_LAG_MONTHS + RECENT_MONTHS).first_day:
                why = f"{self.month} is not published yet, though it is due"
            else:
                why = f"access to {self.month}, which should long be published, is denied"
            raise SourceError(f"{problem}: {why}", remedy)
        if status == httpx.codes.NOT_FOUND:
            raise SourceError(f"{problem}: there is no such file", remedy)
        raise SourceError(f"{problem}: it should answer 200", "check TAXI_DURATION_TLC_URL")


def _open_client(limits: TransferSettings, check: Callable[[httpx.Request], None]) -> httpx.Client:
    """Return a client that trusts the authorities its operator names.

    Raises:
        InputError: `SSL_CERT_FILE` holds none. The operating system's words for that would be
            taken for the data directory's.
    """
    try:
        return httpx.Client(
            timeout=httpx.Timeout(limits.read_seconds, connect=limits.connect_seconds),
            event_hooks={"request": [check]},
        )
    except OSError as error:
        raise InputError(
            f"SSL_CERT_FILE is {os.environ.get('SSL_CERT_FILE', '')!r}, which holds no "
            f"certificates that can be read ({describe(error)})",
            "correct or unset it",
        ) from error


def _is_of_certificate(error: BaseException | None) -> bool:
    """Return whether an error came of a certificate; httpcore hides what its errors came of."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__context__
    return error is not None


def _read_wait(headers: httpx.Headers) -> float:
    """Return the seconds that Retry-After asks for, as a number or a date; 0 without it."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0
