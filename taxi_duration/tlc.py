"""Fetching a month from the TLC over https, once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import httpx

from taxi_duration.cache import find_month, place_month, verify_month
from taxi_duration.disk import check_directory, check_writable
from taxi_duration.errors import (
    DataError,
    InputError,
    SourceError,
    TransientSourceError,
    hide_credentials,
)
from taxi_duration.month import Month, newest_published
from taxi_duration.month_file import MonthFile, check_footer
from taxi_duration.trips import Cab

BASE_URL = "https://d37ci6vzurychx.cloudfront.net/trip-data"
"""Where the TLC Trip Record Data page links to."""

BASE_URL_VARIABLE = "TAXI_DURATION_TLC_URL"
"""Environment setting by which an operator names a mirror instead."""

TIMEOUT_SECONDS = 30.0
TRANSIENT_STATUSES = frozenset({408, 425, 429, *range(500, 600)})


def month_url(cab: Cab, month: Month) -> str:
    """The address of a month's file at the TLC, or at the operator's mirror."""
    base = os.environ.get(BASE_URL_VARIABLE, BASE_URL).rstrip("/")
    return f"{base}/{month.file_name(cab.name)}"


def check_months(
    cab: Cab, months: Sequence[Month], directory: Path, offline: bool, today: date
) -> None:
    """Find out before any work what will stop a run: what is here and what can be had.

    Raises:
        InputError: a month that is not in `directory` cannot have been published by `today`, or
            `directory` cannot take it.
        DataError: a month is absent and `offline` is set, or its file is no month of this cab.
    """
    check_directory(directory, "data directory")
    absent = []
    for month in months:
        present = find_month(directory, cab, month)
        if present is None:
            absent.append(month)
        else:
            check_footer(present, cab)
    for month in absent:
        if today < month.published_by:
            newest = newest_published(today)
            raise InputError(
                f"{cab.name} month {month} is not published yet: expect it by "
                f"{month.published_by}. Train on {newest.shift(-1)} or earlier (the next month "
                f"validates), or place {month.file_name(cab.name)} in {directory}."
            )
        if offline:
            raise missing_offline(cab, month, directory)
    if absent:
        check_writable(directory, "data directory")


def locate_month(cab: Cab, month: Month, directory: Path, offline: bool) -> MonthFile:
    """Find a month in `directory`, or download it there.

    A file already there is used without asking the network, after its hash was verified if
    this package had downloaded it.

    Raises:
        DataError: it is absent and `offline` is set; or it is not what was downloaded, or not
            a month of this cab type.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused.
    """
    present = find_month(directory, cab, month)
    if present is not None:
        return verify_month(present, cab, month)
    if offline:
        raise missing_offline(cab, month, directory)
    path = directory / month.file_name(cab.name)
    download_month(cab, month, path)
    return verify_month(path, cab, month)


def missing_offline(cab: Cab, month: Month, directory: Path) -> DataError:
    """The error for a month that is not on the disk when the network may not be used."""
    return DataError(
        f"{directory / month.file_name(cab.name)} is missing and offline is set: download "
        f"{hide_credentials(month_url(cab, month))} and place it there, or run without offline."
    )


def download_month(cab: Cab, month: Month, path: Path) -> None:
    """Download a month to `path`, whole and checked or not at all.

    Raises:
        TransientSourceError: a timeout, a broken connection, a short body, or a status 408,
            425, 429 or 5xx.
        SourceError: any other refusal.
        DataError: what arrived is no month of this cab type.
    """
    address = month_url(cab, month)
    url = hide_credentials(address)
    # Unencoded, so that Content-Length counts the bytes that are written.
    headers = {"Accept-Encoding": "identity"}
    try:
        with httpx.stream("GET", address, headers=headers, timeout=TIMEOUT_SECONDS) as response:
            _check_status(response, url, month)

            def write(target: Path) -> None:
                with target.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                _check_length(response, target, url)

            place_month(path, cab, url, response.headers.get("etag", ""), write)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise SourceError(f"{url} is not an address ({error}): set {BASE_URL_VARIABLE}.") from error
    except httpx.DecodingError as error:
        raise SourceError(
            f"{url} sent a body that cannot be decoded ({error}): check {BASE_URL_VARIABLE}."
        ) from error
    except httpx.TransportError as error:
        raise TransientSourceError(
            f"{url} did not answer ({type(error).__name__}: {error}): check the network, or place "
            f"the file at {path} and run with offline."
        ) from error


def _check_status(response: httpx.Response, url: str, month: Month) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    message = f"{url} answered {status} {response.reason_phrase}"
    if status in TRANSIENT_STATUSES:
        raise TransientSourceError(f"{message}: the server is busy or failing; try again later.")
    if status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        raise SourceError(
            f"{message}: the TLC has not published {month} there, or denies it; "
            "choose an earlier month or place the file in the data directory."
        )
    raise SourceError(f"{message}: it should answer 200; check {BASE_URL_VARIABLE}.")


def _check_length(response: httpx.Response, target: Path, url: str) -> None:
    promised, received = response.headers.get("content-length"), target.stat().st_size
    if promised is not None and int(promised) != received:
        raise TransientSourceError(
            f"{url} sent {received:,} bytes of the {int(promised):,} it promised; try again."
        )
