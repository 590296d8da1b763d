"""The `S3Bucket` block and its credentials block: saved from the environment, and loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from taxi_duration.errors import InputError, hide_credentials
from taxi_duration.flows.options import check_block_name

CREATE_BLOCKS = "python -m taxi_duration create-s3-blocks"
DEFAULT_BLOCK = "s3-bucket-block"
BUCKET_VARIABLE = "TAXI_DURATION_S3_BUCKET"

ENDPOINT = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/\S*)?")
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
        raise InputError(f"{', '.join(absent)} not set: export it and run {CREATE_BLOCKS} again.")
    bucket, endpoint = environment[BUCKET_VARIABLE], environment.get("AWS_ENDPOINT_URL")
    if not BUCKET_NAME.fullmatch(bucket):
        raise InputError(
            f"{BUCKET_VARIABLE} is {bucket!r}, which is no bucket's name: give 3 to 63 lowercase "
            "letters, digits, dots and dashes, the first and the last a letter or a digit."
        )
    if endpoint and not ENDPOINT.fullmatch(endpoint):
        raise InputError(
            f"AWS_ENDPOINT_URL is {hide_credentials(endpoint)!r}: give http:// or https:// and a "
            "host, such as https://s3.example.org, or unset it for AWS."
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
    """
    try:
        return cast(S3Bucket, S3Bucket.load(name))
    except (ValueError, ObjectNotFound) as error:
        raise InputError(
            f"S3Bucket block {name!r} is not saved on this server (a block of another type by that "
            f"name does not count): save one with {CREATE_BLOCKS} --name {name}."
        ) from error
