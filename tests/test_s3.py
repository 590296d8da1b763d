import base64
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest
from prefect_aws import S3Bucket

from taxi_duration import load_model
from taxi_duration.__main__ import main
from taxi_duration.disk import hash_file
from taxi_duration.errors import DataError, SourceError, TransientSourceError
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.s3 import create_blocks, fetch_month, load_bucket, upload_model
from taxi_duration.trips import CABS
from tests.buckets import SECRET, S3Server
from tests.conftest import connected_to
from tests.months import write_month
from tests.runs import Run, read_logs, read_report_artifact, read_task_runs, run_s3
from tests.servers import find_free_port

GREEN = CABS["green"]
JANUARY = Month(2023, 1)
FILE = JANUARY.file_name("green")
COURSE_2023 = ("--year", "2023", "--month", "1", "--features", "course")
WRONG_SECRET = "not-the-secret-of-the-taxi-bucket"


@pytest.fixture(scope="module")
def run(
    prefect_server: str,
    s3_block: str,
    months_in_s3: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run of main_flow_s3 on real months."""
    sibling = months_in_s3.bucket / "trip-data-2" / FILE
    write_month(sibling)
    write_month(months_in_s3.bucket / "trip-data" / "2023" / FILE)
    with connected_to(prefect_server):
        return run_s3(tmp_path_factory.mktemp("run-s3"), *COURSE_2023)


def test_report_is_that_of_the_local_flow(
    run: Run, train_on_real_months: Callable[..., Run]
) -> None:
    assert run.exit_code == 0
    assert round(run.report["validation"]["rmse"], 6) == 6.033847
    assert run.report_bytes == train_on_real_months(*COURSE_2023).report_bytes


def test_model_is_in_the_bucket(run: Run, s3_server: S3Server) -> None:
    uploaded = s3_server.bucket / "models" / "green" / run.model_directory.name
    names = sorted(path.name for path in run.model_directory.iterdir())
    assert names == ["manifest.json", "model.skops", "report.json"]
    assert sorted(path.name for path in uploaded.iterdir()) == names
    for name in names:
        assert (uploaded / name).read_bytes() == (run.model_directory / name).read_bytes()
    assert load_model(uploaded).features.name == "course"
    assert f"model             s3://taxi/models/green/{run.model_directory.name}\n" in run.output


@pytest.mark.usefixtures("prefect_api")
def test_upload_is_a_task_and_the_artifact_names_its_place(run: Run) -> None:
    task_runs = read_task_runs(run.flow_run.id, expected=10)
    assert task_runs["upload-artifacts"].state_name == "Completed"
    location = f"s3://taxi/models/green/{run.model_directory.name}"
    assert f"Model: `{location}`" in str(read_report_artifact(run.flow_run.id).data)


def test_nothing_but_the_months_is_fetched(run: Run, s3_server: S3Server) -> None:
    files = ["green_tripdata_2023-01.parquet", "green_tripdata_2023-02.parquet"]
    kept = run.directory / "data" / "s3"
    expected = sorted([*files, *(f"{file}.json" for file in files)])
    assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*")) == expected
    prefix = s3_server.bucket / "trip-data"
    assert [hash_file(kept / file) for file in files] == [hash_file(prefix / f) for f in files]


@pytest.mark.usefixtures("prefect_api", "s3_block")
def test_second_run_fetches_nothing_again(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.directory / "data", tmp_path / "data")
    kept = [*(tmp_path / "data" / "s3").iterdir()]
    before = [path.stat() for path in kept]
    again = run_s3(tmp_path, *COURSE_2023)
    assert again.report_bytes == run.report_bytes
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in kept] == [
        (stat.st_ino, stat.st_mtime_ns) for stat in before
    ]


# Below, single months of a prefix that no other test uses.


@pytest.fixture
def bucket(s3_server: S3Server, prefect_api: str, s3_block: str) -> S3Bucket:
    return load_bucket(s3_block)


@pytest.fixture
def prefix(s3_server: S3Server) -> Iterator[Path]:
    directory = s3_server.bucket / "single"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def fetch(bucket: S3Bucket, directory: Path, prefix: str = "single") -> MonthFile:
    time.sleep(0.05)  # longer than the server remembers a directory
    return fetch_month(bucket, prefix, GREEN, JANUARY, directory)


def test_changed_object_is_fetched_again(bucket: S3Bucket, prefix: Path, tmp_path: Path) -> None:
    write_month(prefix / FILE)
    first = fetch(bucket, tmp_path)
    stat = first.path.stat()
    assert fetch(bucket, tmp_path) == first
    assert (first.path.stat().st_ino, first.path.stat().st_mtime_ns) == (
        stat.st_ino,
        stat.st_mtime_ns,
    )
    write_month(prefix / FILE, minutes=20)
    second = fetch(bucket, tmp_path)
    assert second.sha256 == hash_file(prefix / FILE) != first.sha256


def test_object_changed_to_as_many_bytes_is_fetched_again(
    bucket: S3Bucket, prefix: Path, tmp_path: Path
) -> None:
    content = bytearray(write_month(prefix / FILE).read_bytes())
    first = fetch(bucket, tmp_path)
    content[len(content) // 4] ^= 1
    (prefix / FILE).write_bytes(content)
    assert fetch(bucket, tmp_path).sha256 == hash_file(prefix / FILE) != first.sha256


def test_local_copy_from_elsewhere_is_replaced(
    bucket: S3Bucket, prefix: Path, tmp_path: Path
) -> None:
    write_month(prefix / FILE)
    write_month(tmp_path / FILE, minutes=20)
    assert fetch(bucket, tmp_path).sha256 == hash_file(prefix / FILE)


def test_altered_local_copy_is_noticed(bucket: S3Bucket, prefix: Path, tmp_path: Path) -> None:
    write_month(prefix / FILE)
    fetched = fetch(bucket, tmp_path)
    write_month(fetched.path, minutes=20)
    found = hash_file(fetched.path)
    with pytest.raises(DataError, match=f"has sha256 {found}, but {fetched.sha256} was fetched"):
        fetch(bucket, tmp_path)


def test_missing_object(bucket: S3Bucket, prefix: Path, tmp_path: Path) -> None:
    message = f"s3://taxi/single/{FILE} does not exist: upload it, or correct the prefix"
    with pytest.raises(DataError, match=message):
        fetch(bucket, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_months_of_another_cab(bucket: S3Bucket, prefix: Path, tmp_path: Path) -> None:
    trips = pd.read_parquet(write_month(prefix / FILE))
    trips.rename(columns=lambda name: name.replace("lpep", "tpep")).to_parquet(prefix / FILE)
    with pytest.raises(DataError, match=r"column lpep_pickup_datetime is missing; .* tpep_pickup"):
        fetch(bucket, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_key_of_a_sibling_prefix_is_not_used(
    bucket: S3Bucket, prefix: Path, tmp_path: Path
) -> None:
    write_month(prefix / FILE)
    with pytest.raises(DataError, match=f"s3://taxi/sing/{FILE} does not exist"):
        fetch(bucket, tmp_path, prefix="sing")


def test_folder_of_the_block_comes_before_the_prefix(
    bucket: S3Bucket, prefix: Path, tmp_path: Path
) -> None:
    write_month(prefix / "months" / FILE)
    bucket.bucket_folder = "single"
    assert fetch(bucket, tmp_path, prefix="months").sha256 == hash_file(prefix / "months" / FILE)


def test_missing_bucket(bucket: S3Bucket, tmp_path: Path) -> None:
    bucket.bucket_name = "not-there"
    message = f"s3://not-there/single/{FILE}: the bucket does not exist; correct the block"
    with pytest.raises(SourceError, match=message) as caught:
        fetch(bucket, tmp_path)
    assert not isinstance(caught.value, TransientSourceError)


def test_missing_bucket_to_upload_to(bucket: S3Bucket, run: Run) -> None:
    bucket.bucket_name = "not-there"
    with pytest.raises(SourceError, match=r"s3://not-there/models/.*: the bucket does not exist"):
        upload_model(bucket, "models", run.model_directory)


@pytest.fixture
def wrong_secret(s3_server: S3Server, prefect_api: str) -> str:
    environment = {**s3_server.environment, "AWS_SECRET_ACCESS_KEY": WRONG_SECRET}
    create_blocks(environment, "wrong-secret")
    return "wrong-secret"


def test_wrong_secret(wrong_secret: str, run: Run, tmp_path: Path) -> None:
    refusal = r"access denied \(.+\); check the block's key, secret and policy"
    bucket = load_bucket(wrong_secret)
    with pytest.raises(SourceError, match=f"s3://taxi/single/{FILE}: {refusal}") as caught:
        fetch(bucket, tmp_path)
    assert not isinstance(caught.value, TransientSourceError)
    with pytest.raises(SourceError, match=f"s3://taxi/models/green/2023-01-.*: {refusal}"):
        upload_model(bucket, "models", run.model_directory)


def test_nobody_listens(bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    endpoint = f"http://127.0.0.1:{find_free_port()}"
    bucket.credentials.aws_client_parameters.endpoint_url = endpoint
    message = f"s3://taxi/single/{FILE} could not be reached .*{endpoint}.* check the block's"
    with pytest.raises(TransientSourceError, match=message):
        fetch(bucket, tmp_path)


def test_server_that_fails(
    bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        endpoint = f"http://127.0.0.1:{web.server_port}"
        bucket.credentials.aws_client_parameters.endpoint_url = endpoint
        with pytest.raises(TransientSourceError, match=f"{FILE}: the server answered 503"):
            fetch(bucket, tmp_path)
        web.shutdown()
        thread.join()


# Secrets


def read_everything_kept(of: Run, awaited: str, prefect_home: Path) -> str:
    """What people and programs can read of a run: its output, logs, parameters and results."""
    logs = read_logs(of.flow_run.id, awaited=awaited)
    results = [path.read_bytes() for path in prefect_home.glob("storage/*")]
    return "\n".join(
        [
            of.output,
            *(log.message for log in logs),
            of.flow_run.model_dump_json(),
            *(base64.b64decode(result).decode("latin-1") for result in results),
        ]
    )


@pytest.mark.usefixtures("prefect_api")
def test_secret_is_nowhere(
    run: Run,
    prefect_home: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = read_everything_kept(run, "report published", prefect_home)
    assert "s3://taxi/models/green/" in kept
    assert SECRET not in kept
    assert SECRET not in repr(load_bucket("s3-bucket-block"))


@pytest.mark.usefixtures("months_in_s3")
def test_refused_secret_is_nowhere(
    wrong_secret: str,
    tmp_path: Path,
    prefect_home: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = run_s3(tmp_path, *COURSE_2023, "--block", wrong_secret)
    assert refused.exit_code == 1
    assert refused.output.startswith(
        "error: s3://taxi/trip-data/green_tripdata_2023-01.parquet: acc"
    )
    kept = read_everything_kept(refused, "Finished in state Failed", prefect_home)
    assert kept.count("access denied") > 2
    assert WRONG_SECRET not in kept + caplog.text + "".join(capfd.readouterr())
    assert [*tmp_path.rglob("*.parquet")] == []
    (failed,) = (each for each in read_task_runs(refused.flow_run.id, expected=1).values())
    assert failed.run_count == 1


# The command that saves the blocks


@pytest.fixture
def create(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server) -> Callable[..., int]:
    """Run the command in this process."""

    def run(*arguments: str, without: str | None = None) -> int:
        for name, value in s3_server.environment.items():
            if name != without:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["taxi_duration", "create-s3-blocks", *arguments])
        return main()

    return run


@pytest.mark.parametrize(
    "variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TAXI_DURATION_S3_BUCKET"]
)
def test_variable_that_is_not_set(
    variable: str, create: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(without=variable) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == (
        f"error: {variable} not set: export it and run python -m taxi_duration create-s3-blocks "
        "again.\n"
    )


@pytest.mark.usefixtures("prefect_api")
def test_name_that_no_block_may_have(
    create: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert create("--name", "My Bucket!") == 2
    assert capsys.readouterr().err.startswith("error: block name 'My Bucket!' ")


@pytest.mark.usefixtures("prefect_api")
def test_blocks_are_replaced(
    create: Callable[..., int], monkeypatch: pytest.MonkeyPatch, s3_server: S3Server
) -> None:
    create_blocks({**s3_server.environment, "AWS_SECRET_ACCESS_KEY": WRONG_SECRET}, "replaced")
    assert create("--name", "replaced") == 0
    bucket = load_bucket("replaced")
    secret = bucket.credentials.aws_secret_access_key
    assert secret is not None
    assert secret.get_secret_value() == SECRET
    assert bucket.credentials.aws_client_parameters.endpoint_url == s3_server.endpoint
