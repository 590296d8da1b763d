"""What other libraries raise, as errors of ours."""

import sqlite3

import httpx
import pyarrow as pa
import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError
from sqlalchemy.exc import ArgumentError, OperationalError

from taxi_duration.errors import (
    DataError,
    InputError,
    SourceError,
    StorageError,
    TaxiDurationError,
    TransientSourceError,
    translate,
    translated,
)


def answer(status: int) -> ClientError:
    response = {"Error": {"Code": "Any"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")  # type: ignore[arg-type]


def refuse_connection() -> EndpointConnectionError:
    error = EndpointConnectionError(endpoint_url="http://host")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadTimeout("late"), TransientSourceError),
        (httpx.InvalidURL("none"), SourceError),
        (requests.ConnectionError("refused"), TransientSourceError),
        (requests.exceptions.SSLError("who?"), SourceError),
        (answer(404), DataError),
        (answer(403), SourceError),
        (answer(503), TransientSourceError),
        (refuse_connection(), TransientSourceError),
        (sqlite3.DatabaseError("not a database"), SourceError),
        (OperationalError("SELECT 1", {}, Exception("gone")), TransientSourceError),
        (ArgumentError("no address"), SourceError),
        (pa.ArrowInvalid("no parquet"), DataError),
        (OSError(28, "No space left on device"), StorageError),
        (ConnectionResetError(104, "reset"), TransientSourceError),
        (KeyError("a mistake of ours"), None),
    ],
)
def test_kind_of_a_foreign_error(error: Exception, kind: type[TaxiDurationError] | None) -> None:
    assert translate(error) is kind


def test_translated_names_the_subject_and_keeps_the_cause() -> None:
    cause = OSError(28, "No space left on device")
    with pytest.raises(StorageError) as caught, translated("writing a.json", "free space"):
        raise cause
    assert str(caught.value) == "writing a.json failed (No space left on device): free space."
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("error", [KeyError("mistake"), InputError("wrong", "correct it")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated("reading", "try again"):
        raise error
    assert caught.value is error
