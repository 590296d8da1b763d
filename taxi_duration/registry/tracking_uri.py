"""The address of the MLflow store, checked without asking the store or importing mlflow."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from taxi_duration.errors import InputError, hide_credentials

URI_VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
DEFAULT_STORE = "mlflow.db"
SERVERS = ("http://", "https://")
DATABASES = ("postgresql", "mysql", "mssql")
"""What MLflow can keep runs in besides sqlite; their drivers are the operator's to install."""


def check_tracking_uri() -> None:
    """Refuse, before any work, a store that runs cannot be logged to whatever answers there.

    Raises:
        InputError: as `resolve_tracking_uri`.
    """
    resolve_tracking_uri()


def resolve_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the sqlite store in the working directory.

    Raises:
        InputError: it is of a kind that is not supported, malformed, or has no driver here.
    """
    uri = os.environ.get(URI_VARIABLE) or f"{SQLITE}{Path(DEFAULT_STORE).absolute()}"
    fault = _find_server_fault(uri) if uri.startswith(SERVERS) else _find_database_fault(uri)
    if fault is not None:
        # A password is there without a scheme too, as in user:password@host.
        shown = uri if uri.startswith(SQLITE) else hide_credentials(uri).rpartition("@")[2]
        raise InputError(
            f"MLflow store {shown!r} cannot be used: {fault}, or name another store in "
            f"{URI_VARIABLE}, such as {SQLITE}{DEFAULT_STORE} or https://host."
        )
    return uri


# What the libraries say of a malformed address may quote a part of its password.
MALFORMED = "its host or port is none; correct it (signs in a password are percent-encoded)"


def _find_server_fault(uri: str) -> str | None:
    try:
        parts = urlsplit(uri)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        return MALFORMED
    if "?" in uri or "#" in uri:  # mlflow appends the path of each request
        return "it has a query or a fragment; leave that out"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    if not (token.isascii() and token.isprintable()):  # the error of the request would quote it
        return "MLFLOW_TRACKING_TOKEN has a line break or another sign no token has; correct it"
    return None


def _find_database_fault(uri: str) -> str | None:
    unknown = (
        f"it is neither an MLflow server nor a sqlite, {', '.join(DATABASES[:-1])} or "
        f"{DATABASES[-1]} database (directories are not supported); correct it"
    )
    try:
        url = make_url(uri)
    except SQLAlchemyError:
        return unknown
    except ValueError:
        return MALFORMED
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _find_sqlite_fault(uri, url)
    if kind not in DATABASES:
        return unknown
    try:
        url.get_dialect().import_dbapi()
    except ImportError as error:
        return f"its driver is not installed here ({error}); install it"
    except SQLAlchemyError:
        return f"SQLAlchemy knows no {url.drivername}; correct it"
    return None


def _find_sqlite_fault(uri: str, url: URL) -> str | None:
    """A store in memory would be gone with the run; of any other we must know the file to lock."""
    path = uri.removeprefix(SQLITE)
    if not uri.startswith(SQLITE) or path in ("", ":memory:") or "\0" in path:
        return f"it is no file of its own; write {SQLITE}path, without driver or host"
    if url.database != path:  # something was cut off it
        return "its path has a ?; choose one without"
    if Path(path).is_dir():
        return "it is a directory; add the name of a file"
    return None
