"""The errors this package raises, and the one translator of what other libraries raise.

TaxiDurationError            anything below
├── InputError               an option, argument or setting the caller can correct
├── DataError                a month's file is missing, unreadable or breaks the contract
├── ModelError               a model cannot be saved, loaded or used
├── StorageError             a local disk did not take a file
├── RunnerError              the workers that reduce months at the same time failed
└── SourceError              the TLC, a bucket, Prefect's server or the MLflow store did not deliver
    └── TransientSourceError ... and the same request may succeed later
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self


def hide_credentials(address: str) -> str:
    """Return text in which no address has a user, a password or a query.

    >>> hide_credentials("https://user:se/cret@host/path?token=secret is wrong")
    'https://host/path?... is wrong'
    >>> hide_credentials("sqlite:////home/me@work/mlflow.db")
    'sqlite:////home/me@work/mlflow.db'
    """
    unnamed = re.sub(r"(?<=://)(?!/)\S*@", "", address)
    return re.sub(r"(://[^\s?]*\?)[^\s'\")]+", r"\1...", unnamed)


class TaxiDurationError(Exception):
    """Base of the tree.

    Args:
        problem: what is wrong, naming the thing and its value; no full stop at its end.
        remedy: what to do about it; no full stop at its end.

    >>> print(TaxiDurationError("models is a file", "give a directory"))
    models is a file: give a directory.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        if not self.remedy:
            return self.problem
        return f"{self.problem}: {self.remedy}{'' if self.remedy.endswith('?') else '.'}"

    def about(self, subject: object) -> Self:
        """Return the same error with its problem said of a subject, such as a path.

        >>> print(DataError("it has no rows", "choose another month").about("a.parquet"))
        a.parquet: it has no rows: choose another month.
        """
        _, *others = self.args
        return type(self)(f"{subject}: {self.problem}", *others)


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
    """The Dask cluster that should reduce months does not answer, or its workers died."""


class StorageError(TaxiDurationError):
    """A local disk did not take a file: it is full, read-only, or denies this user."""


class SourceError(TaxiDurationError):
    """A server outside this process refused or failed; asking again does not help."""


class TransientSourceError(SourceError):
    """A server outside this process failed in a way that often passes; ask again.

    Args:
        wait_seconds: how long the server asked to be left alone, if it did.
    """

    def __init__(self, problem: str, remedy: str = "", wait_seconds: float = 0.0) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, wait_seconds)
        self.wait_seconds = wait_seconds


PASSING_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
"""HTTP statuses of a server that is busy or failing."""

BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Kind = type[TaxiDurationError]


def _kind_of_status(status: int) -> Kind:
    return TransientSourceError if status in PASSING_STATUSES else SourceError


def _kind_of_botocore(error: Any) -> Kind:
    code = error.response.get("Error", {}).get("Code", "")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout"):
        return TransientSourceError
    return DataError if status == 404 and code != "NoSuchBucket" else _kind_of_status(status)


def _kind_of_sqlite(error: Any) -> Kind:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return TransientSourceError if code in BUSY_CODES else SourceError


def _kind_of_answer(error: Any) -> Kind:
    return SourceError if error.response is None else _kind_of_status(error.response.status_code)


FOREIGN: dict[str, Kind | Callable[[Any], Kind]] = {
    "filelock.Timeout": TransientSourceError,
    "httpx.HTTPStatusError": _kind_of_answer,
    "httpx.TransportError": TransientSourceError,
    "httpx.InvalidURL": SourceError,
    "requests.HTTPError": _kind_of_answer,
    "requests.SSLError": SourceError,
    "requests.ConnectionError": TransientSourceError,
    "requests.Timeout": TransientSourceError,
    "requests.RetryError": TransientSourceError,
    "requests.ChunkedEncodingError": TransientSourceError,
    "requests.RequestException": SourceError,
    "botocore.ClientError": _kind_of_botocore,
    "botocore.HTTPClientError": TransientSourceError,
    "botocore.EndpointConnectionError": TransientSourceError,
    "botocore.IncompleteReadError": TransientSourceError,
    "botocore.FlexibleChecksumError": TransientSourceError,
    "botocore.BotoCoreError": SourceError,
    "boto3.Boto3Error": SourceError,
    "sqlite3.Error": _kind_of_sqlite,
    "sqlalchemy.OperationalError": TransientSourceError,
    "sqlalchemy.SQLAlchemyError": SourceError,
    "mlflow.MlflowException": SourceError,
    "prefect.PrefectException": SourceError,
    "pyarrow.ArrowException": DataError,
    "builtins.ConnectionError": TransientSourceError,
    "builtins.TimeoutError": TransientSourceError,
    "socket.gaierror": TransientSourceError,
    "ssl.SSLError": SourceError,
    "builtins.OSError": StorageError,
}
"""Top package and name of a foreign exception -> what it is here. Names, so that no library is
imported for this; of an exception's classes and causes, the deepest cause that is here counts, an
error of the disk last."""


def translate(error: BaseException) -> Kind | None:
    """Return the kind of error of ours that a foreign one is; None for one that is a mistake."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        hidden = cause.__suppress_context__
        cause = cause.__cause__ or (None if hidden else cause.__context__)
    of_disk: Kind | None = None
    for each in reversed(chain):
        for base in type(each).__mro__:
            kind = FOREIGN.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
            if kind is StorageError:
                # A refused connection is an OSError, too, below the one a library made of it.
                of_disk = StorageError
            elif kind is not None:
                return kind if isinstance(kind, type) else kind(each)
    return of_disk


@contextmanager
def translated(
    subject: str,
    remedy: str,
    kinds: Callable[[Kind], Kind] = lambda kind: kind,
    of: type[Exception] = Exception,
) -> Iterator[None]:
    """Turn what other libraries raise inside into an error of ours that names the subject.

    Errors of ours pass unchanged, and so does anything that is not in `FOREIGN`.

    Args:
        subject: what failed, such as a path or an address without a password.
        remedy: what to do about it.
        kinds: changes the kind, where a wing knows better.
        of: translate nothing but these, such as OSError.

    Raises:
        TaxiDurationError: of the kind that `FOREIGN` says.
    """
    try:
        yield
    except TaxiDurationError:
        raise
    except of as error:
        kind = translate(error)
        if kind is None:
            raise
        raise kinds(kind)(f"{subject} failed ({describe(error)})", remedy) from error


def describe(error: BaseException) -> str:
    """Return what a foreign error says, in one line, without passwords, SQL or where to read on.

    >>> describe(FileNotFoundError(2, "No such file or directory", "a.parquet"))
    'No such file or directory'
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = re.split(r" \[SQL:| - For more information", " ".join(said.split()))[0].rstrip(".")
    return hide_credentials(line)[:300] or type(error).__name__
