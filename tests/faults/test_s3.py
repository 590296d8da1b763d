"""What a bucket can do wrong, and what is left in it and on the disk when it does."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from taxi_duration.data.bucket import CLIENT_CONFIG, Folder, load_bucket, locate_month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.errors import (
    DataError,
    InputError,
    ModelError,
    SourceError,
    StorageError,
    TransientSourceError,
)
from taxi_duration.files import hash_file
from taxi_duration.flows.options import S3Options, read_options
from taxi_duration.model.directory import FILES, MODEL_FORMAT, dump_json, verify_model
from taxi_duration.registry.upload import upload_model
from tests.support.buckets import BUCKET, KEY, SECRET, S3Server
from tests.support.downloads import FILE, GREEN, JANUARY, SIDECAR, list_names, start
from tests.support.months import write_month
from tests.support.s3_stub import Answer, Handler, S3Stub, get_always, refuse, serve_stub
from tests.support.servers import find_free_port

PREFIX = "faults"
OBJECT = f"{PREFIX}/{FILE}"
ADDRESS = f"s3://{BUCKET}/{OBJECT}"
MODEL = "2023-01-0123456789ab"
FOLDER = f"models/green/{MODEL}"
POINTER = "models/green/latest.json"
MANIFEST = f"{FOLDER}/manifest.json"
UPLOADED = [*(f"{FOLDER}/{name}" for name in FILES), MANIFEST, POINTER]


def make_bucket(endpoint: str, secret: str = SECRET, attempts: int = 1) -> S3Bucket:
    """A bucket block as `create-s3-blocks` makes it, but unsaved and less patient."""
    config = {**CLIENT_CONFIG, "retries": {"mode": "standard", "total_max_attempts": attempts}}
    credentials = AwsCredentials(
        aws_access_key_id=KEY,
        aws_secret_access_key=SecretStr(secret),
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=endpoint, config=config),
    )
    return S3Bucket(bucket_name=BUCKET, credentials=credentials)


def locate(bucket: S3Bucket, data: Path, prefix: str = PREFIX) -> MonthFile:
    return locate_month(bucket, prefix, GREEN, JANUARY, data)


def refuse_month(
    bucket: S3Bucket, data: Path, kind: type[Exception], message: str, prefix: str = PREFIX
) -> None:
    """Have the month refused with exactly this kind of error, and nothing kept of it."""
    with pytest.raises(kind, match=message) as caught:
        locate(bucket, data, prefix)
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
    assert list_names(data) == []


# A server that checks signatures


@pytest.fixture
def bucket(s3_server: S3Server) -> S3Bucket:
    return make_bucket(s3_server.endpoint)


@pytest.fixture
def prefix(s3_server: S3Server) -> Iterator[Path]:
    """The prefix in the bucket, with the month in it."""
    directory = s3_server.bucket / PREFIX
    write_month(directory / FILE)
    time.sleep(0.05)  # longer than the server remembers a directory
    yield directory
    shutil.rmtree(directory)


def write_model(models: Path, content: str) -> Path:
    """A directory whose files are a model's to the manifest."""
    directory = models / "green" / MODEL
    directory.mkdir(parents=True)
    for name in FILES:
        (directory / name).write_text(f"the {name} of {content}")
    hashes = {name: hash_file(directory / name) for name in FILES}
    manifest = dump_json({"format": MODEL_FORMAT, "sha256": hashes})
    (directory / "manifest.json").write_bytes(manifest)
    return directory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "models", "one worker")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same run's model, as it came out with other last digits elsewhere."""
    return write_model(tmp_path / "elsewhere", "another worker")


def test_wrong_secret(s3_server: S3Server, prefix: Path, data: Path, model: Path) -> None:
    bucket = make_bucket(s3_server.endpoint, secret="wrong")
    refusal = (
        r"access denied \(.+\), or the object is missing: check the block's key, secret and policy"
    )
    refuse_month(bucket, data, SourceError, f"{ADDRESS}: {refusal}")
    with pytest.raises(SourceError, match=f"s3://{BUCKET}/{FOLDER}: {refusal}"):
        upload_model(Folder.open(bucket, "models"), model)
    assert not (s3_server.bucket / "models" / "green" / MODEL).exists()


def test_missing_bucket(bucket: S3Bucket, data: Path, model: Path) -> None:
    bucket.bucket_name = "not-there"
    message = f"s3://not-there/{OBJECT}: the bucket does not exist: correct the block"
    refuse_month(bucket, data, SourceError, message)
    with pytest.raises(SourceError, match=r"s3://not-there/models/.*: the bucket does not exist"):
        upload_model(Folder.open(bucket, "models"), model)


def test_missing_object(bucket: S3Bucket, data: Path) -> None:
    message = f"{ADDRESS} does not exist: upload it, or correct the prefix"
    refuse_month(bucket, data, DataError, message)


@pytest.mark.parametrize("sibling", ["fault", "faults2", "Faults", "faults/sub"])
def test_sibling_prefix(sibling: str, bucket: S3Bucket, prefix: Path, data: Path) -> None:
    message = f"s3://{BUCKET}/{sibling}/{FILE} does not exist"
    refuse_month(bucket, data, DataError, message, prefix=sibling)


def test_months_of_another_cab(bucket: S3Bucket, prefix: Path, data: Path) -> None:
    trips = pd.read_parquet(prefix / FILE)
    trips.rename(columns=lambda name: name.replace("lpep", "tpep")).to_parquet(prefix / FILE)
    time.sleep(0.05)
    message = f"^{ADDRESS} sent no month of green trips: {FILE}: column lpep_pickup_datetime is mis"
    refuse_month(bucket, data, DataError, message)


def test_altered_copy_is_fetched_again(bucket: S3Bucket, prefix: Path, data: Path) -> None:
    first = locate(bucket, data)
    write_month(data / FILE, minutes=20)
    found = hash_file(data / FILE)
    again = locate(bucket, data)
    assert again.sha256 == hash_file(data / FILE) == first.sha256
    assert again.notices == (
        f"{data / FILE} has sha256 {found}, but {first.sha256} was fetched from {ADDRESS}: its "
        "bytes changed on this disk, and it is fetched again.",
        f"What was there is kept as {FILE}.altered-1.",
    )


def test_verified_copy_is_used_when_the_bucket_is_down(
    bucket: S3Bucket, prefix: Path, data: Path
) -> None:
    first = locate(bucket, data)
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    endpoint = f"http://127.0.0.1:{find_free_port()}"
    file = locate(make_bucket(endpoint), data)
    assert (file.path, file.sha256) == (first.path, first.sha256)
    (notice,) = file.notices
    assert notice.startswith(f"{ADDRESS} failed (")
    assert notice.endswith(f" The {FILE} that is here, verified by its sha256, is used instead.")
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_nobody_listens(data: Path, model: Path) -> None:
    endpoint = f"http://127.0.0.1:{find_free_port()}"
    bucket = make_bucket(endpoint)
    message = f"{ADDRESS} failed .*{endpoint}.*: check the block's bucket, endpoint"
    refuse_month(bucket, data, TransientSourceError, message)
    with pytest.raises(TransientSourceError, match=f"s3://{BUCKET}/{FOLDER} failed"):
        upload_model(Folder.open(bucket, "models"), model)


@pytest.mark.parametrize("endpoint", ["http://has_underscore:9000", "http://[::1", "no-scheme"])
def test_endpoint_that_boto_refuses(endpoint: str, data: Path) -> None:
    message = rf"{ADDRESS} cannot be asked for \(Invalid .*\): check the block's bucket"
    refuse_month(make_bucket(endpoint), data, SourceError, message)


def test_full_disk_is_not_the_buckets_fault(
    bucket: S3Bucket, prefix: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("taxi_duration.data.transfer.Transfer.receive", fill)
    message = rf"^writing {data / FILE} failed \(No space left on device\): free space on its disk"
    refuse_month(bucket, data, StorageError, message)


# Blocks


def answer_with(status: int) -> Exception:
    request = httpx.Request("GET", "http://prefect/api")
    response = httpx.Response(status, request=request)
    return httpx.HTTPStatusError("not found", request=request, response=response)


@pytest.mark.parametrize(
    ("error", "cause", "kind", "message"),
    [
        (
            ValueError("Unable to find"),
            ObjectNotFound(answer_with(404)),
            InputError,
            "is not saved",
        ),
        (RuntimeError("Unable to load"), ValueError(SECRET), SourceError, "cannot be read .*load"),
        (RuntimeError("no API"), httpx.ConnectError("none"), TransientSourceError, "failed"),
        (answer_with(500), None, TransientSourceError, "failed"),
        (answer_with(401), None, SourceError, "failed"),
        (httpx.ConnectError("refused"), None, TransientSourceError, "failed"),
    ],
)
def test_block_that_cannot_be_loaded(
    error: Exception,
    cause: Exception | None,
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str) -> None:
        raise error from cause

    monkeypatch.setattr(S3Bucket, "load", fail)
    with pytest.raises(kind, match=f"S3Bucket block 'mine' {message}") as caught:
        load_bucket("mine")
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)


# Prefixes and folders


WRONG_PREFIXES = [
    "", "/", "/trip-data", "trip-data/", "..", "../x", "a/../b", "a//b", ".", "a/./b", "a b", "%2e",
    "a\\b", "\0", "a\n",
]  # fmt: skip


@pytest.mark.parametrize("option", ["prefix", "models_prefix"])
@pytest.mark.parametrize("prefix", WRONG_PREFIXES)
def test_prefix_that_could_lead_elsewhere(prefix: str, option: str) -> None:
    with pytest.raises(InputError, match="is not a key prefix: give names joined by single slas"):
        read_options(S3Options, {option: prefix})


@pytest.mark.parametrize("folder", ["..", "../x", "a/../b", "a//b", ".", "a/./b"])
def test_folder_of_a_block_that_could_lead_elsewhere(
    folder: str, stub: S3Stub, data: Path, model: Path
) -> None:
    bucket = make_bucket(stub.endpoint)
    bucket.bucket_folder = folder
    for act in (
        lambda: locate(bucket, data),
        lambda: upload_model(Folder.open(bucket, "models"), model),
    ):
        with pytest.raises(InputError, match=r"^bucket_folder '.*' is not a key prefix: give nam"):
            act()
    assert stub.requests == []
    assert list_names(data) == []


# A server that misbehaves


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    with serve_stub() as stub:
        yield stub


@pytest.fixture
def content(stub: S3Stub, tmp_path: Path) -> bytes:
    """The bytes of a month that the stub holds."""
    stub.objects[OBJECT] = write_month(tmp_path / "made" / FILE).read_bytes()
    return stub.objects[OBJECT]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (refuse(403, "AccessDenied"), SourceError, r"access denied \(AccessDenied\), or the"),
        (refuse(404, "NoSuchBucket"), SourceError, "the bucket does not exist: correct the block"),
        (refuse(503, "SlowDown"), TransientSourceError, r"answered 503 \(SlowDown\): it is busy"),
        (refuse(400, "RequestTimeout"), TransientSourceError, r"400 \(RequestTimeout\): it is bus"),
        (refuse(429, "TooMany"), TransientSourceError, r"answered 429 \(TooMany\): it is busy or"),
        (refuse(500, "InternalError"), TransientSourceError, r"answered 500 \(InternalError\)"),
        (
            refuse(400, "ExpiredToken"),
            SourceError,
            r"the server answered 400 \(ExpiredToken\): check the block's bucket, endpoint, reg",
        ),
        (refuse(412, "PreconditionFailed"), SourceError, "the server answered 412"),
        (lambda request: request.answer(503, b"<html>"), TransientSourceError, "answered 503"),
    ],
)  # fmt: skip
def test_refusal(
    answer: Answer, kind: type[Exception], message: str, stub: S3Stub, data: Path, model: Path
) -> None:
    stub.faults = {("GET", OBJECT): answer, ("PUT", UPLOADED[0]): answer}
    bucket = make_bucket(stub.endpoint)
    refuse_month(bucket, data, kind, f"{ADDRESS}: .*{message}")
    with pytest.raises(kind, match=f"s3://{BUCKET}/{FOLDER}: .*{message}") as caught:
        upload_model(Folder.open(bucket, "models"), model)
    assert type(caught.value) is kind
    assert stub.requests == [("GET", OBJECT), ("GET", MANIFEST), ("PUT", UPLOADED[0])]


def test_throttled_request_is_repeated_once_by_the_client(stub: S3Stub, data: Path) -> None:
    stub.faults = {("GET", OBJECT): refuse(503, "SlowDown")}
    attempts = CLIENT_CONFIG["retries"]["total_max_attempts"]  # type: ignore[index]
    bucket = make_bucket(stub.endpoint, attempts=attempts)
    refuse_month(bucket, data, TransientSourceError, f"{ADDRESS}: the server answered 503")
    assert stub.requests == [("GET", OBJECT)] * 2


def cut(request: Handler) -> None:
    body = request.stub.objects[request.key]
    request.answer(200, body[:1000], Content_Length=str(len(body)), ETag='"x"')


def send_damaged(request: Handler) -> None:
    """Send other bytes than those whose checksum is sent."""
    body = bytes(len(request.stub.objects[request.key]))
    request.answer(200, body, ETag='"x"', x_amz_checksum_crc32="AAAAAQ==")


@pytest.mark.parametrize("answer", [cut, send_damaged])
def test_transfer_that_breaks(answer: Answer, stub: S3Stub, content: bytes, data: Path) -> None:
    stub.faults = {("GET", OBJECT): answer}
    bucket = make_bucket(stub.endpoint)
    refuse_month(bucket, data, TransientSourceError, f"{ADDRESS} failed")
    stub.faults.clear()
    assert locate(bucket, data).path.read_bytes() == content


def trickle(request: Handler) -> None:
    """Promise much and send a byte at a time, each long before a read's timeout."""
    request.answer(200, Content_Length="100000", ETag='"x"')
    while not request.stub.released.wait(0.01):
        request.wfile.write(b"P")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("GRACE", "which is slower than the 20,000 a second of TAXI_DURATION_TRANSFER_SLOWEST_"),
        ("DEADLINE", "which is more than the 0.2 of TAXI_DURATION_TRANSFER_DEADLINE_SECONDS"),
    ],
)
def test_a_byte_at_a_time(
    setting: str,
    message: str,
    stub: S3Stub,
    data: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"TAXI_DURATION_TRANSFER_{setting}_SECONDS", "0.2")
    stub.faults = {("GET", OBJECT): trickle, ("GET", MANIFEST): trickle}
    bucket = make_bucket(stub.endpoint)
    sent = rf" sent [\d,]{{1,4}} bytes in .* s, {message}"
    refuse_month(bucket, data, TransientSourceError, f"^{ADDRESS}{sent}")
    with pytest.raises(TransientSourceError, match=f"^s3://{BUCKET}/{MANIFEST}{sent}"):
        upload_model(Folder.open(bucket, "models"), model)


def test_object_larger_than_allowed(
    stub: S3Stub, content: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TRANSFER_MOST_BYTES", "1000")
    message = f"{ADDRESS} is larger than the 1,000 bytes allowed: find out what it is, or raise"
    refuse_month(make_bucket(stub.endpoint), data, SourceError, message)


def test_unchanged_object_is_not_sent_again(stub: S3Stub, content: bytes, data: Path) -> None:
    bucket = make_bucket(stub.endpoint)
    first = locate(bucket, data)
    assert locate(bucket, data) == first
    etag = json.loads((data / SIDECAR).read_text("utf-8"))["etag"]
    assert stub.conditions == [None, etag]


def test_server_that_ignores_conditions(
    stub: S3Stub, content: bytes, data: Path, tmp_path: Path
) -> None:
    stub.faults = {("GET", OBJECT): get_always}
    bucket = make_bucket(stub.endpoint)
    first = locate(bucket, data)
    assert locate(bucket, data) == first
    stub.objects[OBJECT] = write_month(tmp_path / FILE, minutes=20).read_bytes()
    second = locate(bucket, data)
    assert second.sha256 == hash_file(data / FILE) != first.sha256
    assert second.notices[0].startswith(f"{FILE} was published anew: sha256 {first.sha256} of 12")
    assert len(stub.requests) == 3


def test_server_that_says_nothing_about_objects(
    stub: S3Stub, content: bytes, data: Path, tmp_path: Path
) -> None:
    stub.faults = {("GET", OBJECT): lambda request: request.answer(200, stub.objects[request.key])}
    bucket = make_bucket(stub.endpoint)
    first = locate(bucket, data)
    assert locate(bucket, data) == first
    stub.objects[OBJECT] = write_month(tmp_path / FILE, minutes=20).read_bytes()
    assert locate(bucket, data).sha256 == hash_file(tmp_path / FILE) != first.sha256
    assert stub.conditions == [None] * 3


# Uploads


def read_pointer(stub: S3Stub) -> tuple[str, str]:
    pointer = json.loads(stub.objects[POINTER])
    return pointer["model"], pointer["manifest_sha256"]


def test_pointer_is_put_after_all_else(stub: S3Stub, model: Path) -> None:
    location = upload_model(Folder.open(make_bucket(stub.endpoint), "models"), model)
    assert location == f"s3://{BUCKET}/{FOLDER}"
    assert stub.requests == [
        ("GET", MANIFEST),
        *(("PUT", key) for key in UPLOADED),
    ]
    for path in model.iterdir():
        assert stub.objects[f"{FOLDER}/{path.name}"] == path.read_bytes()
    assert read_pointer(stub) == (MODEL, hash_file(model / "manifest.json"))


def read_uploaded(stub: S3Stub, directory: Path) -> str:
    """The text of the uploaded model, after all of it was found whole in a copy."""
    directory.mkdir()
    for key in UPLOADED[:-1]:
        (directory / Path(key).name).write_bytes(stub.objects[key])
    verify_model(directory)
    assert read_pointer(stub) == (MODEL, hash_file(directory / "manifest.json"))
    return (directory / "model.skops").read_text()


def test_first_upload_of_a_run_stays(
    stub: S3Stub, model: Path, other: Path, tmp_path: Path
) -> None:
    bucket = make_bucket(stub.endpoint)
    location = upload_model(Folder.open(bucket, "models"), model)
    stub.requests.clear()
    stub.objects[POINTER] = b'{"model": "later", "manifest_sha256": "ab"}'
    assert upload_model(Folder.open(bucket, "models"), other) == location
    assert [key for method, key in stub.requests if method == "PUT"] == [POINTER]
    assert read_uploaded(stub, tmp_path / "copy") == "the model.skops of one worker"


def test_report_of_the_same_model_is_renewed(stub: S3Stub, model: Path, tmp_path: Path) -> None:
    folder = Folder.open(make_bucket(stub.endpoint), "models")
    upload_model(folder, model)
    (model / "report.json").write_text("another")
    hashes = {name: hash_file(model / name) for name in FILES}
    (model / "manifest.json").write_bytes(dump_json({"format": MODEL_FORMAT, "sha256": hashes}))
    stub.requests.clear()
    upload_model(folder, model)
    put = [Path(key).name for method, key in stub.requests if method == "PUT"]
    assert put == ["report.json", "manifest.json", "latest.json"]
    assert read_uploaded(stub, tmp_path / "copy") == "the model.skops of one worker"


@pytest.mark.parametrize("key", UPLOADED[:-1])
def test_damaged_upload_is_replaced(
    key: str, stub: S3Stub, model: Path, other: Path, tmp_path: Path
) -> None:
    bucket = make_bucket(stub.endpoint)
    upload_model(Folder.open(bucket, "models"), model)
    stub.objects[key] = b"damaged"
    upload_model(Folder.open(bucket, "models"), other)
    assert read_uploaded(stub, tmp_path / "copy") == "the model.skops of another worker"


def test_bytes_that_arrive_otherwise_are_refused(stub: S3Stub, model: Path) -> None:
    stub.faults = {("PUT", UPLOADED[0]): lambda put: put.answer(200, x_amz_checksum_sha256="AAAA")}
    with pytest.raises(TransientSourceError, match="did not arrive as it was sent: try again"):
        upload_model(Folder.open(make_bucket(stub.endpoint), "models"), model)
    assert POINTER not in stub.objects


def test_only_the_files_of_a_model_are_uploaded(stub: S3Stub, model: Path) -> None:
    (model / "notes").mkdir()
    (model / "notes.txt").write_text("mine")
    upload_model(Folder.open(make_bucket(stub.endpoint), "models"), model)
    assert sorted(stub.objects) == sorted(UPLOADED)


def test_damaged_directory_is_not_uploaded(stub: S3Stub, model: Path) -> None:
    (model / "model.skops").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"model.skops is not what was written, since its sha256"):
        upload_model(Folder.open(make_bucket(stub.endpoint), "models"), model)
    assert stub.requests == []


def hang(request: Handler) -> None:
    request.stub.released.wait()


def upload(endpoint: str, directory: Path) -> str:
    return upload_model(Folder.open(make_bucket(endpoint), "models"), directory)


@pytest.mark.parametrize("key", [UPLOADED[0], MANIFEST, POINTER])
def test_process_that_is_killed_before_the_pointer_leaves_the_old_one(
    key: str, stub: S3Stub, model: Path, other: Path, tmp_path: Path
) -> None:
    old = stub.objects[POINTER] = b'{"model": "old", "manifest_sha256": "ab"}'
    stub.faults = {("PUT", key): hang}
    with start(upload, stub.endpoint, model, environment={}) as child:
        while ("PUT", key) not in stub.requests:
            assert child.process.is_alive()
            time.sleep(0.01)
        child.kill()
        assert child.end() == -signal.SIGKILL
    assert stub.objects[POINTER] == old
    assert sorted(stub.objects) == sorted([*UPLOADED[: UPLOADED.index(key)], POINTER])
    stub.faults.clear()
    upload(stub.endpoint, other)
    first = "one" if key == POINTER else "another"
    assert read_uploaded(stub, tmp_path / "copy") == f"the model.skops of {first} worker"
