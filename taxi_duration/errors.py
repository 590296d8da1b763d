"""The errors this package raises, and the exit code each means on a command line.

TaxiDurationError            anything below
├── InputError               an option, argument or setting the caller can correct
├── DataError                a month's file is missing, unreadable or breaks the contract
├── ModelError               a model cannot be saved, loaded or used
├── StorageError             a local disk did not take a file
├── RunnerError              the workers that reduce months at the same time failed
└── SourceError              the TLC, a bucket or the tracking store did not deliver
    └── TransientSourceError ... and the same request may succeed later
"""

import re


def hide_credentials(address: str) -> str:
    """Text in which no address has a user, a password or a query, for messages, logs and reports.

    >>> hide_credentials("https://user:se/cret@host/path?token=secret is wrong")
    'https://host/path?... is wrong'
    >>> hide_credentials("sqlite:////home/me@work/mlflow.db")
    'sqlite:////home/me@work/mlflow.db'
    """
    unnamed = re.sub(r"(?<=://)(?!/)\S*@", "", address)
    return re.sub(r"(://[^\s?]*\?)[^\s'\")]+", r"\1...", unnamed)


class TaxiDurationError(Exception):
    """Base of the tree; the message names the thing, its value and what to do next."""

    exit_code = 1


class InputError(TaxiDurationError, ValueError):
    """A value the caller gave is wrong and was found wrong before any work began."""

    exit_code = 2


class DataError(TaxiDurationError):
    """A month's trips are missing, unreadable or break the data contract."""

    exit_code = 2


class ModelError(TaxiDurationError):
    """A model directory is incomplete, altered, or does not fit the trips it is given."""

    exit_code = 2


class RunnerError(TaxiDurationError):
    """The processes or the Dask cluster that should reduce months do not answer, or died."""


class StorageError(TaxiDurationError):
    """A local disk did not take a file: it is full, read-only, or denies this user."""


class SourceError(TaxiDurationError):
    """A server outside this process refused or failed; asking again does not help."""


class TransientSourceError(SourceError):
    """A server outside this process failed in a way that often passes; ask again.

    Args:
        wait_seconds: how long the server asked to be left alone, if it did.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message, wait_seconds)
        self.wait_seconds = wait_seconds

    def __str__(self) -> str:
        return str(self.args[0])
