"""What a bucket's server refuses or fails at, named with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)

from taxi_duration.errors import DataError, SourceError, TransientSourceError

TRANSIENT_CODES = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout"})


@contextmanager
def named_errors(location: str) -> Iterator[None]:
    """Turn what boto raises into this package's errors, each with its remedy.

    Raises:
        DataError: the object is missing.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused, or cannot be asked.
    """
    try:
        yield
    except ClientError as error:
        raise _name_client_error(location, error) from error
    except (
        HTTPClientError, EndpointConnectionError, IncompleteReadError, FlexibleChecksumError,
    ) as error:  # fmt: skip
        raise TransientSourceError(
            f"{location} could not be reached ({error}): check the block's endpoint and network."
        ) from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"{location} cannot be asked for ({reason}): check the block's bucket, endpoint and "
            "credentials."
        ) from error


def _name_client_error(location: str, error: ClientError) -> Exception:
    response: Mapping[str, Any] = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    status = read_status(error)
    if code == "NoSuchBucket":
        return SourceError(f"{location}: the bucket does not exist; correct the block.")
    if status == 404:
        return DataError(f"{location} does not exist: upload it, or correct the prefix.")
    if status == 403:
        return SourceError(
            f"{location}: access denied ({code}); check the block's key, secret and policy. (S3 "
            "denies what is missing, too, to those who may not list the bucket.)"
        )
    if status in (408, 429) or status >= 500 or code in TRANSIENT_CODES:
        return TransientSourceError(
            f"{location}: the server answered {status} ({code}): it is busy or failing; try again "
            "later."
        )
    return SourceError(
        f"{location}: the server answered {status} ({error}): check the block's region, endpoint "
        "and credentials."
    )


def read_status(error: ClientError) -> int:
    """The HTTP status the server answered with; 0 without one."""
    response: Mapping[str, Any] = error.response
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
