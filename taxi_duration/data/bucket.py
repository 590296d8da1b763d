"""Months behind an `S3Bucket` block: the block saved and loaded, exact keys, errors named.

The block's client is used with keys built here, not the block's folder methods: those write
outside their target for some keys and succeed on a missing prefix (prefect-aws 0.7.12).
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
from botocore.exceptions import ClientError
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from taxi_duration.data.cache import Delivery, Sidecar, obtain_month
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import Cab
from taxi_duration.data.transfer import CHUNK_BYTES, Progress, Transfer
from taxi_duration.errors import (
    DataError,
    InputError,
    SourceError,
    StorageError,
    TaxiDurationError,
    TransientSourceError,
    describe,
    hide_credentials,
    translate,
    translated,
)
from taxi_duration.settings import TransferSettings, read_settings

if TYPE_CHECKING:  # where it is used it is imported: it takes half a second
    from prefect_aws import S3Bucket


def check_key_prefix(value: object, what: str = "prefix") -> str:
    """Refuse a prefix of keys that could lead elsewhere than below itself.

    Raises:
        InputError: it is empty, absolute, has an empty part or one of dots only.
    """
    text = str(value)
    if not text or not all(
        re.fullmatch(r"[\w.=-]+", part) and set(part) != {"."} for part in text.split("/")
    ):
        raise InputError(
            f"{what} {text!r} is not a key prefix",
            "give names joined by single slashes, such as trip-data, with no leading or "
            "trailing slash and no '..'",
        )
    return text


def check_block_name(name: str) -> str:
    """Refuse a name that Prefect saves no block under.

    Raises:
        InputError: it has other characters than lowercase letters, digits and dashes.
    """
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise InputError(
            f"block name {name!r} is not one Prefect takes",
            "use lowercase letters, digits and dashes",
        )
    return name


@contextmanager
def named_errors(location: str) -> Iterator[None]:
    """Turn what boto raises into errors of ours that name the object.

    Raises:
        DataError: the object is missing.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused, or cannot be asked.
        OSError: the local disk, which is not the bucket's fault.
    """
    remedy = "check the block's bucket, endpoint, region and credentials"
    try:
        yield
    except TaxiDurationError:
        raise
    except ClientError as error:
        raise _name_answer(location, error, remedy) from error
    except ValueError as error:  # such as boto raises at an endpoint
        raise SourceError(f"{location} cannot be asked for ({describe(error)})", remedy) from error
    except Exception as error:
        if translate(error) is StorageError:
            raise  # by the disk that a download is written to, which `stage` names
        with translated(location, remedy):
            raise


def _name_answer(location: str, error: ClientError, remedy: str) -> TaxiDurationError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status, kind = read_status(error), translate(error) or SourceError
    if kind is DataError:
        return DataError(f"{location} does not exist", "upload it, or correct the prefix")
    if code == "NoSuchBucket":
        return kind(f"{location}: the bucket does not exist", "correct the block")
    if status == httpx.codes.FORBIDDEN:
        # S3 denies what is missing, too, to those who may not list the bucket.
        return kind(
            f"{location}: access denied ({code}), or the object is missing",
            "check the block's key, secret and policy",
        )
    problem = f"{location}: the server answered {status} ({code})"
    if kind is TransientSourceError:
        return kind(f"{problem}: it is busy or failing", "try again later")
    return kind(problem, remedy)


def read_status(error: ClientError) -> int:
    """Return the HTTP status the server answered with; 0 without one."""
    response: Mapping[str, Any] = error.response
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


CREATE_BLOCKS = "python -m taxi_duration create-s3-blocks"
DEFAULT_BLOCK = "s3-bucket-block"
BUCKET_VARIABLE = "TAXI_DURATION_S3_BUCKET"

ENDPOINT = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/\S*)?")
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3's rules for a new bucket, all but its reserved words."""

CLIENT_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
"""boto3's own minutes and five attempts would multiply with the task's retries."""


def check_block(environment: Mapping[str, str], name: str) -> None:
    """Refuse what no block can be made of, before any server is asked.

    Raises:
        InputError: a required variable is not set, a variable's value cannot be one, or the name
            is no block's name.
    """
    required = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", BUCKET_VARIABLE)
    absent = [variable for variable in required if not environment.get(variable)]
    if absent:
        raise InputError(f"{', '.join(absent)} not set", f"export it and run {CREATE_BLOCKS} again")
    bucket, endpoint = environment[BUCKET_VARIABLE], environment.get("AWS_ENDPOINT_URL")
    if not BUCKET_NAME.fullmatch(bucket):
        raise InputError(
            f"{BUCKET_VARIABLE} is {bucket!r}, which is no bucket's name",
            "give 3 to 63 lowercase letters, digits, dots and dashes, the first and the last a "
            "letter or a digit",
        )
    if endpoint and not ENDPOINT.fullmatch(endpoint):
        raise InputError(
            f"AWS_ENDPOINT_URL is {hide_credentials(endpoint)!r}",
            "give http:// or https:// and a host, such as https://s3.example.org, or unset it "
            "for AWS",
        )
    check_block_name(name)


def create_blocks(environment: Mapping[str, str], name: str) -> str:
    """Save a credentials block and an `S3Bucket` block from the environment, over any before.

    Args:
        environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket under
            `BUCKET_VARIABLE`; optionally AWS_SESSION_TOKEN, AWS_DEFAULT_REGION, and
            AWS_ENDPOINT_URL for a server other than AWS.
        name: of the bucket block; the credentials block is `<name>-credentials`.

    Returns:
        The bucket's name.

    Raises:
        InputError: as `check_block`.
    """
    from prefect_aws import AwsCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters

    check_block(environment, name)
    token = environment.get("AWS_SESSION_TOKEN")
    credentials = AwsCredentials(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(environment["AWS_SECRET_ACCESS_KEY"]),
        aws_session_token=token or None,
        region_name=environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        aws_client_parameters=AwsClientParameters(
            endpoint_url=environment.get("AWS_ENDPOINT_URL") or None, config=CLIENT_CONFIG
        ),
    )
    credentials.save(f"{name}-credentials", overwrite=True)
    bucket = S3Bucket(bucket_name=environment[BUCKET_VARIABLE], credentials=credentials)
    bucket.save(name, overwrite=True)
    return bucket.bucket_name


def load_bucket(name: str) -> S3Bucket:
    """Load the saved `S3Bucket` block of that name.

    Raises:
        InputError: there is none; Prefect looks blocks up by type and name.
        SourceError: Prefect's server failed (TransientSourceError when it may yet answer), or the
            block cannot be read.
    """
    from prefect_aws import S3Bucket

    block, again = f"S3Bucket block {name!r}", f"{CREATE_BLOCKS} --name {name}"
    with translated(f"loading {block}", "check Prefect's server"):
        try:
            return cast("S3Bucket", S3Bucket.load(name))
        except (ValueError, RuntimeError) as error:
            if isinstance(error.__cause__, ObjectNotFound):
                raise InputError(
                    f"{block} is not saved on this server (a block of another type by that name "
                    "does not count)",
                    f"save one with {again}",
                ) from error
            if translate(error) is not None:
                raise  # by the server, whose failures Prefect may wrap
            # Its cause may quote the block's fields; Prefect's own words do not.
            raise SourceError(
                f"{block} cannot be read ({describe(error)})", f"save it anew with {again}"
            ) from error


@dataclass(frozen=True)
class BucketMonths:
    """Months in a bucket, kept locally once fetched; see `locate_month`.

    It bears the block's name, not its secrets: another process loads the block itself.
    """

    block: str
    prefix: str
    cab: Cab
    directory: Path
    fresh: bool = False

    def __call__(self, month: Month, report: Progress | None = None) -> MonthFile:
        bucket = load_bucket(self.block)
        return locate_month(
            bucket, self.prefix, self.cab, month, self.directory, report, fresh=self.fresh
        )


def locate_month(
    bucket: S3Bucket,
    prefix: str,
    cab: Cab,
    month: Month,
    directory: Path,
    report: Progress | None = None,
    *,
    fresh: bool = False,
) -> MonthFile:
    """Return the month's file in `directory`: the user's own, or the bucket's as it is now.

    Args:
        fresh: as in `obtain_month`.

    Raises:
        DataError: the object is missing, or is no month of this cab type.
        TransientSourceError: the server failed in a way worth a retry.
        SourceError: the server refused.
        StorageError: the disk did not take it.
    """
    key = make_key(bucket, prefix, month.file_name(cab.name))
    source = BucketObject(bucket, key, read_settings(TransferSettings), report)
    return obtain_month(directory, cab, month, source, fresh=fresh)


@dataclass(frozen=True)
class BucketObject:
    """A month's file in a bucket, under its exact key."""

    bucket: S3Bucket
    key: str
    settings: TransferSettings
    report: Progress | None = None

    @property
    def address(self) -> str:
        return f"s3://{self.bucket.bucket_name}/{self.key}"

    def fetch(self, known: Sidecar | None, target: Path) -> Delivery | None:
        """Download the object to `target`, unless its ETag is still the known one.

        Raises:
            DataError: the object is missing.
            TransientSourceError, SourceError: the server failed or refused.
        """
        begun = time.monotonic()
        place = {"Bucket": self.bucket.bucket_name, "Key": self.key}
        unless = {"IfNoneMatch": known.etag} if known and known.etag else {}
        with named_errors(self.address):
            client = self.bucket.credentials.get_s3_client()
            try:
                found = client.get_object(**place, **unless)
            except ClientError as error:
                if known is not None and read_status(error) == httpx.codes.NOT_MODIFIED:
                    return None
                raise
            with closing(found["Body"]) as body:
                etag = found.get("ETag", "")
                if unless and known and etag == known.etag:
                    return None  # a server that knows no conditions
                transfer = Transfer(self.address, self.settings, begun, self.report)
                promised = found.get("ContentLength")
                sha256 = transfer.receive(read_chunks(body), promised, target)
        modified = found["LastModified"].isoformat() if "LastModified" in found else ""
        return Delivery(etag, modified, target.stat().st_size, sha256)


def read_chunks(body: Any) -> Iterator[bytes]:
    """Yield a response's bytes as they come; boto's own reads wait for as many as they ask for."""
    with body as stream:
        stream.read = stream.read1
        yield from body.iter_chunks(CHUNK_BYTES)


def make_key(bucket: S3Bucket, *parts: str) -> str:
    """Return the exact key below the folder that the block may have.

    Raises:
        InputError: the folder could lead elsewhere.
    """
    folder = bucket.bucket_folder.strip("/")
    return "/".join([check_key_prefix(folder, "bucket_folder"), *parts] if folder else parts)


@dataclass(frozen=True)
class Folder:
    """Exact keys below `prefix` in a bucket."""

    client: Any
    bucket: str
    prefix: str

    @classmethod
    def open(cls, bucket: S3Bucket, prefix: str) -> Folder:
        """Return a folder below the one that a block may have.

        Raises:
            InputError: the block's folder could lead elsewhere.
        """
        key = make_key(bucket, prefix)
        with named_errors(f"s3://{bucket.bucket_name}/{key}"):
            return cls(bucket.credentials.get_s3_client(), bucket.bucket_name, key)

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def below(self, name: str) -> Folder:
        """Return a folder in this one."""
        return replace(self, prefix=f"{self.prefix}/{name}")

    def put(self, file: str, content: bytes) -> None:
        """Put a file, its sha256 with it."""
        sha256 = base64.b64encode(hashlib.sha256(content).digest()).decode()
        answer = self.client.put_object(
            **self._locate(file), Body=content, ChecksumAlgorithm="SHA256", ChecksumSHA256=sha256
        )
        # Some servers, such as rclone's, ignore checksums and answer none.
        if answer.get("ChecksumSHA256", sha256) != sha256:
            raise TransientSourceError(
                f"{self.address}/{file} did not arrive as it was sent",
                "try again",
            )

    def get(self, file: str, target: Path) -> bool:
        """Download a file; return False if it is missing."""
        begun = time.monotonic()
        with named_errors(self.address):
            try:
                found = self.client.get_object(**self._locate(file))
            except ClientError as error:
                if read_status(error) != httpx.codes.NOT_FOUND:
                    raise
                return False
            limits = read_settings(TransferSettings)
            transfer = Transfer(f"{self.address}/{file}", limits, begun)
            with closing(found["Body"]) as body:
                transfer.receive(read_chunks(body), found.get("ContentLength"), target)
        return True

    def _locate(self, file: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{file}"}
