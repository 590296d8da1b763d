"""What the operator of a machine sets in its environment, never a flow's parameter."""

from __future__ import annotations

from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taxi_duration.errors import InputError, hide_credentials

TLC_HOST = "d37ci6vzurychx.cloudfront.net"
"""Where the TLC Trip Record Data page links to."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]


class TlcSettings(BaseSettings):
    """Where months are downloaded from, and how long and how much that may take."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_TLC_", frozen=True)

    url: str = f"https://{TLC_HOST}/trip-data"
    hosts: Annotated[tuple[str, ...], NoDecode] = (TLC_HOST,)
    connect_seconds: Seconds = 10
    read_seconds: Seconds = 30
    deadline_seconds: Seconds = 1800
    slowest_bytes_a_second: Bytes = 20_000
    most_bytes: Bytes = 4_000_000_000
    longest_wait_seconds: Seconds = 120

    @field_validator("hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(host.strip().lower() for host in value.split(",") if host.strip())

    @field_validator("url")
    @classmethod
    def _check_scheme(cls, value: str) -> str:
        if urlsplit(value).scheme != "https" or not urlsplit(value).hostname:
            raise ValueError("it is no https address")
        return value.rstrip("/")


class Thresholds(BaseSettings):
    """The data contract's limits: shares of a month's rows, and of earlier months' row counts."""

    model_config = SettingsConfigDict(env_prefix="TAXI_DURATION_CONTRACT_", frozen=True)

    most_outside_month: Share = 0.05
    most_negative_durations: Share = 0.05
    fewest_within_hour: Share = 0.85
    most_null_zones: Share = 0.01
    most_zones_out_of_range: Share = 0.001
    fewest_rows: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    most_rows: Annotated[float, Field(gt=0)] = 2.0


Settings = TypeVar("Settings", bound=BaseSettings)


def read_settings(kind: type[Settings]) -> Settings:
    """Read settings from the environment.

    Raises:
        InputError: a variable's value is not one; the message names the first.
    """
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        variable = f"{kind.model_config['env_prefix']}{first['loc'][0]}".upper()
        value = hide_credentials(str(first["input"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{variable} is {value!r}: {reason}; correct or unset it.") from None
