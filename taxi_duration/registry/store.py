"""The MLflow store: opened, made at first use, and named when it fails."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import filelock
import mlflow
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from taxi_duration.errors import Kind, SourceError, StorageError, hide_credentials, translated
from taxi_duration.files import flush_to_disk, stage
from taxi_duration.settings import DEFAULT_STORE, SQLITE, URI_VARIABLE

Found = TypeVar("Found")

EXPERIMENT = "nyc-taxi-duration"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Which of MLflow's two kinds of experiment this is, so that its pages need not infer it."""

DEFAULT_ARTIFACTS = "mlartifacts"

LOCK_SECONDS = 60.0
"""How long to wait for another process's run to be logged; one takes about two."""
BUSY_SECONDS = 5.0
"""How long to wait for a lock that somebody else holds on a sqlite store."""

# It logs a traceback for each error that it also raises, and every step of making a store.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def find_database(uri: str) -> Path | None:
    """Return the file of a sqlite store; None for any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def is_store_there(uri: str) -> bool:
    """Return whether there is a store to ask; a server is taken to be there."""
    database = find_database(uri)
    return database is None or (database.exists() and database.stat().st_size > 0)


@contextmanager
def hold_store(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Lend a client of a store, to write to it; at first use a sqlite store is made.

    Of the processes that share a sqlite store one holds it at a time. For other stores there is no
    such lock.

    Args:
        uri: from `resolve_tracking_uri`, which refuses those that cannot be held.

    Raises:
        TransientSourceError: the store is locked or does not answer.
        SourceError: it is not an MLflow store, of another version, or refuses.
        StorageError: the disk did not take a new store.
    """
    database = find_database(uri)
    with _store_errors(uri), ExitStack() as held:
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(filelock.FileLock(f"{database}.lock", timeout=LOCK_SECONDS))
            if not is_store_there(uri):
                _make_database(database)
        yield held.enter_context(reach_store(uri))


@contextmanager
def reach_store(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Lend a client of a store that is there.

    Raises:
        TransientSourceError, SourceError: as `hold_store`.
    """
    database = find_database(uri)
    with _store_errors(uri):
        if database is not None:
            _check_database(database)
        with _tracking_in(uri):
            yield _open_client(uri)


def _store_errors(uri: str) -> AbstractContextManager[None]:
    remedy = (
        "give yourself permission to write it, end what holds it, or move it away and a new one is "
        f"made; or name another store in {URI_VARIABLE}. Running again logs nothing twice"
        if find_database(uri)
        else f"start it, or correct {URI_VARIABLE}, or unset it to use {DEFAULT_STORE} in this "
        "directory. Running again logs nothing twice"
    )

    def kinds(kind: Kind) -> Kind:
        return SourceError if kind is StorageError else kind

    return translated(f"MLflow store {hide_credentials(uri)}", remedy, kinds)


def get_if_there(get: Callable[..., Found], *arguments: str) -> Found | None:
    """Return what a call to the store gets; None if the store has no such thing."""
    try:
        return get(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def find_experiment(client: mlflow.MlflowClient, uri: str) -> str:
    """Return the id of our experiment, which is made at first use.

    Raises:
        SourceError: somebody deleted it.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            return _create_experiment(client, _artifact_location(uri))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(EXPERIMENT)  # another process was first
    if experiment is None or experiment.lifecycle_stage != "active":
        raise SourceError(
            f"MLflow experiment {EXPERIMENT} in {hide_credentials(uri)} is deleted",
            "restore it with `mlflow experiments restore`, or name another store in "
            f"{URI_VARIABLE}",
        )
    return str(experiment.experiment_id)


@contextmanager
def _tracking_in(uri: str) -> Iterator[None]:
    """Point mlflow at a store, and away again: what it is told outlives the call otherwise.

    It keeps the address in the environment too, where the next run would take it for the user's.
    """
    before = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ[URI_VARIABLE] = before


def _open_client(uri: str) -> mlflow.MlflowClient:
    """Open a store with mlflow's settings of the operator's, and a driver of theirs.

    Raises:
        SourceError: one of them is wrong.
    """
    try:
        for setting in (MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_HTTP_REQUEST_MAX_RETRIES):
            # Otherwise read at the first request, and not before.
            setting.get()  # type: ignore[no-untyped-call]
        return mlflow.MlflowClient(uri)
    # Here alone: later they are mistakes in what is logged.
    except (ImportError, ValueError) as error:
        said = str(error).rstrip(".")
        raise SourceError(
            f"MLflow cannot open a store ({said})", "correct or unset what is named"
        ) from error


def _check_database(database: Path) -> None:
    """Find out in seconds what mlflow would take minutes to say, or would write into."""
    address = f"{database.absolute().as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        is_ours = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'")
        found = is_ours.fetchone()
        connection.execute("ROLLBACK")
    if not found:
        raise sqlite3.DatabaseError("it is a database of something else, without MLflow's tables")


def _make_database(database: Path) -> None:
    """Make the store elsewhere and rename it into place.

    MLflow migrates a new database in many steps; a second process that opens it meanwhile, or
    the death of the first, would leave it broken for good.
    """
    with stage(database.parent, database.name) as scratch:
        made = Path(scratch, database.name)
        client = _open_client(f"{SQLITE}{made}")
        _create_experiment(client, _artifact_location(f"{SQLITE}{database}"))
        flush_to_disk(made)
        made.replace(database)
        flush_to_disk(database.parent)


def _create_experiment(client: mlflow.MlflowClient, artifact_location: str | None) -> str:
    return str(client.create_experiment(EXPERIMENT, artifact_location, EXPERIMENT_TAGS))


def _artifact_location(uri: str) -> str | None:
    """Return a place beside a sqlite store; wherever a server says for any other."""
    database = find_database(uri)
    return database.absolute().with_name(DEFAULT_ARTIFACTS).as_uri() if database else None
