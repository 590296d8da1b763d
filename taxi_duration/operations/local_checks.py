"""The machine that this runs on: what is installed, the disk, and the MLflow store."""

from __future__ import annotations

import getpass
import platform
import re
import shlex
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.exc import DBAPIError

from taxi_duration.cli.cli import find_program
from taxi_duration.errors import InputError, SourceError, TransientSourceError, hide_credentials
from taxi_duration.files import check_writable
from taxi_duration.operations.examination import CheckError
from taxi_duration.operations.requirements import find_misfits, fits_python, read_requirements
from taxi_duration.registry.store import find_database, is_store_there, reach_store
from taxi_duration.settings import URI_VARIABLE, resolve_tracking_uri

NO_PERMISSION = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def check_versions(checkout: Path) -> str:
    """That Python and every distribution installed here are those the project runs with."""
    requirements = read_requirements(checkout)
    if requirements is None:
        raise CheckError(
            f"{checkout} is no checkout of nyc-taxi-duration, which is not installed either: "
            "nothing says which versions it needs",
            "run doctor in the checkout",
        )
    if not fits_python(requirements):
        raise CheckError(
            f"Python {platform.python_version()} runs here, and {requirements.python} is required",
            "rm -rf .venv && make setup PYTHON=python3.11",
        )
    misfits = [*find_misfits(requirements)]
    if misfits:
        wanted = " ".join(shlex.quote(str(misfit.requirement)) for misfit in misfits)
        raise CheckError(
            ", ".join(map(str, misfits)), f"{find_program('python')} -m pip install {wanted}"
        )
    return (
        f"Python {platform.python_version()} and {len(requirements.required)} distributions as "
        f"{requirements.source} requires"
    )


def check_disk(directories: dict[str, Path], least_free_gigabytes: float) -> str:
    """That every directory takes files, and its disk has room for a run.

    Args:
        directories: by what the user calls them.
    """
    found = []
    for what, directory in directories.items():
        try:
            check_writable(directory, what)
        except InputError as error:
            raise CheckError(*_name_unwritable(error, what, directory)) from None
        free = shutil.disk_usage(_find_existing(directory)).free / 1e9
        if free < least_free_gigabytes:
            raise CheckError(
                f"{what} {directory} has {free:.1f} GB free, of {least_free_gigabytes:g} GB that "
                "a run may need",
                "remove what is not needed (models/sums is made again when it is gone), or name a "
                "directory on another disk",
            )
        found.append(f"{what} {directory} takes files, {free:.1f} GB free")
    return "; ".join(found)


def _name_unwritable(error: InputError, what: str, directory: Path) -> tuple[str, str]:
    place = shlex.quote(str(directory))
    if directory.is_file():
        return f"{what} {directory} is a file", f"mv {place} {place}.aside"
    existing = shlex.quote(str(_find_existing(directory)))
    reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error.__cause__
    return (
        f"{what} {directory} is not writable ({reason})",
        f"sudo chown {getpass.getuser()} {existing} && chmod u+rwx {existing}",
    )


def _find_existing(directory: Path) -> Path:
    return next(each for each in [directory, *directory.absolute().parents] if each.exists())


def check_mlflow() -> str:
    """That runs can be logged to the MLflow store; one that is not there yet is not made."""
    uri = resolve_tracking_uri()
    shown = hide_credentials(uri)
    database = find_database(uri)
    if database is not None and not is_store_there(uri):
        check_writable(database.parent, "the MLflow store's directory")
        return f"{shown} is not there yet: the first run makes it"
    try:
        with reach_store(uri) as client:
            client.search_experiments(max_results=1)
    except SourceError as error:
        found = re.split(r"\. | Response body: ", error.problem)[0]
        is_passing = isinstance(error, TransientSourceError)
        if database is None:
            fix = _mend_server(uri, found)
        else:
            fix = _mend_database(database, error, is_passing)
        raise CheckError(found, fix) from None
    return shown


def _mend_server(uri: str, found: str) -> str:
    if "code 401" in found or "code 403" in found:
        return "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=..."
    parts = urlsplit(uri)
    if parts.hostname in ("127.0.0.1", "localhost"):
        return (
            f"{find_program('mlflow')} server --host {parts.hostname} --port {parts.port or 5000} "
            "--backend-store-uri sqlite:///mlflow.db"
        )
    return f"start the store, or correct {URI_VARIABLE}"


def _mend_database(database: Path, error: SourceError, is_passing: bool) -> str:
    path = shlex.quote(str(database))
    if is_passing:
        return f"end the process that holds it, which this names: fuser -v {path}"
    if "out-of-date database schema" in str(error):
        upgrade = f"{find_program('mlflow')} db upgrade sqlite:///{path}"
        return f"cp {path} {path}.before && {upgrade}"
    cause = error.__cause__
    cause = cause.orig if isinstance(cause, DBAPIError) else cause
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in NO_PERMISSION:
        return f"sudo chown {getpass.getuser()} {path} && chmod u+rw {path}"
    return f"mv {path} {path}.aside"
