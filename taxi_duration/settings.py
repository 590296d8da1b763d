"""What the operator of a machine sets in its environment, never a flow's parameter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taxi_duration.errors import InputError, hide_credentials

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

TLC_HOST = "d37ci6vzurychx.cloudfront.net"
"""Where the TLC Trip Record Data page links to."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What an address of this very machine has for a host."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]


class TlcSettings(BaseSettings):
    """Where months are downloaded from, and which hosts may be asked for them."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_TLC_", frozen=True)

    # Before the address, which is held against them.
    hosts: Annotated[tuple[str, ...], NoDecode] = (TLC_HOST,)
    url: str = f"https://{TLC_HOST}/trip-data"

    @field_validator("hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(host.strip().lower() for host in value.split(",") if host.strip())

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str, info: ValidationInfo) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("it is no https address")
        hosts = info.data.get("hosts", ())
        if parts.hostname not in hosts:
            raise ValueError(
                f"its host is not among the allowed ones ({', '.join(hosts) or 'none'}), which "
                "TAXI_DURATION_TLC_HOSTS names"
            )
        return value.rstrip("/")


class TransferSettings(BaseSettings):
    """How long and how large the transfer of a month may be."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_TRANSFER_", frozen=True)

    connect_seconds: Seconds = 10
    read_seconds: Seconds = 30
    deadline_seconds: Seconds = 1800
    slowest_bytes_a_second: Bytes = 20_000
    grace_seconds: Seconds = 10
    most_bytes: Bytes = 4_000_000_000
    longest_wait_seconds: Seconds = 120


class Thresholds(BaseSettings):
    """The data contract's limits: shares of a month's rows, and of earlier months' row counts."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_CONTRACT_", frozen=True)

    most_outside_month: Share = 0.05
    most_negative_durations: Share = 0.05
    fewest_within_hour: Share = 0.85
    most_null_zones: Share = 0.01
    most_zones_out_of_range: Share = 0.001
    fewest_rows: AtLeastZero = 0.5
    most_rows: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0


class StabilityLimits(BaseSettings):
    """How far a month's trips may be from those of other months, unremarked."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_STABILITY_", frozen=True)

    most_index: AtLeastZero = 0.1
    most_unseen_pairs: Share = 0.25


class GateSettings(BaseSettings):
    """How much better than the champion a candidate must be, and how sure one must be of it.

    `margin` and `most_slice_worsening` are shares of the champion's RMSE.
    """

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_GATE_", frozen=True)

    margin: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    # Of 999 resamples the lowest ten are beyond 0.99; there is nothing to tell more by.
    confidence: Annotated[float, Field(ge=0.5, le=0.99, allow_inf_nan=False)] = 0.95
    most_slice_worsening: AtLeastZero = 0.05
    fewest_slice_trips: Annotated[int, Field(ge=1)] = 500


def check_alert_url(value: str) -> str:
    """Check that something can be posted to an address, which is not repeated: it may be secret.

    Raises:
        ValueError: it is no http or https address of a host.
    """
    reason = "it is no http or https address such as https://hooks.example.org/taxi"
    if not is_http_address(value) or not value.isprintable() or " " in value:
        raise ValueError(reason)
    return value


def is_http_address(text: str) -> bool:
    """Return whether a text is an http or https address with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class AlertSettings(BaseSettings):
    """Who is told of runs that fail or crash, and how long telling may keep such a run."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_ALERT_", frozen=True)

    url: SecretStr | None = None
    deadline_seconds: Seconds = 10

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(check_alert_url(value.get_secret_value()))


Settings = TypeVar("Settings", bound=BaseSettings)


def name_variable(kind: type[BaseSettings], field: str) -> str:
    """Return the environment variable that a field of some settings is read from.

    >>> name_variable(Thresholds, "most_rows")
    'TAXI_DURATION_CONTRACT_MOST_ROWS'
    """
    return f"{kind.model_config['env_prefix']}{field}".upper()


def read_settings(kind: type[Settings]) -> Settings:
    """Read settings from the environment.

    Raises:
        InputError: a variable's value is not one; the message names the first.
    """
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        variable = name_variable(kind, field)
        is_secret = SecretStr in get_args(kind.model_fields[field].annotation)
        value = "" if is_secret else f" is {hide_credentials(str(first['input']))!r}"
        # pydantic keeps what a validator of ours raised beside its own words for it.
        reason = str(first.get("ctx", {}).get("error", first["msg"]))
        raise InputError(f"{variable}{value}: {reason}", "correct or unset it") from None


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
    """Return `MLFLOW_TRACKING_URI`, or the sqlite store in the working directory.

    Raises:
        InputError: it is of a kind that is not supported, malformed, or has no driver here.
    """
    uri = os.environ.get(URI_VARIABLE) or f"{SQLITE}{Path(DEFAULT_STORE).absolute()}"
    fault = _find_server_fault(uri) if uri.startswith(SERVERS) else _find_database_fault(uri)
    if fault is not None:
        # A password is there without a scheme too, as in user:password@host.
        shown = uri if uri.startswith(SQLITE) else hide_credentials(uri).rpartition("@")[2]
        raise InputError(
            f"MLflow store {shown!r} cannot be used",
            f"{fault}, or name another store in {URI_VARIABLE}, such as {SQLITE}{DEFAULT_STORE} or "
            "https://host",
        )
    return uri


# What the libraries say of a malformed address may quote a part of its password.
MALFORMED = "its host or port is none; correct it (signs in a password are percent-encoded)"


def _find_server_fault(uri: str) -> str | None:
    if not is_http_address(uri):
        return MALFORMED
    if "?" in uri or "#" in uri:  # mlflow appends the path of each request
        return "it has a query or a fragment; leave that out"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    if not (token.isascii() and token.isprintable()):  # the error of the request would quote it
        return "MLFLOW_TRACKING_TOKEN has a line break or another sign no token has; correct it"
    return None


def _find_database_fault(uri: str) -> str | None:
    # Here, and not above: most commands read settings and have no database.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

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
    """Return why an sqlite store cannot be used; None if it can.

    A store in memory would be gone with the run; of any other we must know the file to lock.
    """
    path = uri.removeprefix(SQLITE)
    if not uri.startswith(SQLITE) or path in ("", ":memory:") or "\0" in path:
        return f"it is no file of its own; write {SQLITE}path, without driver or host"
    if url.database != path:  # something was cut off it
        return "its path has a ?; choose one without"
    if Path(path).is_dir():
        return "it is a directory; add the name of a file"
    return None
