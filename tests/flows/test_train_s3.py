import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect_aws import S3Bucket

from taxi_duration import load_model
from taxi_duration.__main__ import main
from taxi_duration.data.bucket import check_block, create_blocks, load_bucket, locate_month
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import CABS
from taxi_duration.errors import InputError
from taxi_duration.files import hash_file
from tests.conftest import connected_to
from tests.support.buckets import BUCKET, KEY, SECRET, S3Server
from tests.support.downloads import list_names
from tests.support.months import identify, write_month
from tests.support.runs import Run, read_logs, read_report_artifact, read_task_runs, run_s3

GREEN = CABS["green"]
JANUARY = Month(2023, 1)
FILE = JANUARY.file_name("green")
COURSE_2023 = ("--year", "2023", "--month", "1", "--features", "course")
WRONG_SECRET = "not-the-secret-of-the-taxi-bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "TAXI_DURATION_S3_BUCKET": BUCKET,
}


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
    assert names == ["README.md", "manifest.json", "model.skops", "report.html", "report.json"]
    assert sorted(path.name for path in uploaded.iterdir()) == names
    for name in names:
        assert (uploaded / name).read_bytes() == (run.model_directory / name).read_bytes()
    assert load_model(uploaded).features.name == "course"
    assert json.loads((uploaded.parent / "latest.json").read_bytes()) == {
        "model": uploaded.name,
        "manifest_sha256": hash_file(uploaded / "manifest.json"),
    }
    assert f"model             s3://taxi/models/green/{run.model_directory.name}\n" in run.output


@pytest.mark.usefixtures("prefect_api")
def test_upload_is_a_task_and_the_artifact_names_its_place(run: Run) -> None:
    task_runs = read_task_runs(run.flow_run.id, expected=13)
    assert task_runs["upload-artifacts"].state_name == "Completed"
    location = f"s3://taxi/models/green/{run.model_directory.name}"
    assert f"Model: `{location}`" in str(read_report_artifact(run.flow_run.id).data)


def test_nothing_but_the_months_is_fetched(run: Run, s3_server: S3Server) -> None:
    files = ["green_tripdata_2023-01.parquet", "green_tripdata_2023-02.parquet"]
    kept = run.directory / "data" / "s3"
    expected = sorted([*files, *(f"{file}.json" for file in files)])
    assert list_names(kept) == expected
    prefix = s3_server.bucket / "trip-data"
    assert [hash_file(kept / file) for file in files] == [hash_file(prefix / f) for f in files]


@pytest.mark.usefixtures("prefect_api", "s3_block")
def test_second_run_fetches_nothing_again(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.directory / "data", tmp_path / "data")
    kept = [*(tmp_path / "data" / "s3").glob("*.parquet")]
    before = [identify(path) for path in kept]
    again = run_s3(tmp_path, *COURSE_2023)
    assert again.report_bytes == run.report_bytes
    assert [identify(path) for path in kept] == before


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
    return locate_month(bucket, prefix, GREEN, JANUARY, directory)


def test_changed_object_is_fetched_again(bucket: S3Bucket, prefix: Path, tmp_path: Path) -> None:
    write_month(prefix / FILE)
    first = fetch(bucket, tmp_path)
    before = identify(first.path)
    assert fetch(bucket, tmp_path) == first
    assert identify(first.path) == before
    write_month(prefix / FILE, minutes=20)
    second = fetch(bucket, tmp_path)
    assert second.sha256 == hash_file(prefix / FILE) != first.sha256
    assert second.notices == (
        f"{FILE} was published anew: sha256 {first.sha256} of 12 rows gave way to {second.sha256} "
        "of 12.",
    )


def test_object_changed_to_as_many_bytes_is_fetched_again(
    bucket: S3Bucket, prefix: Path, tmp_path: Path
) -> None:
    content = bytearray(write_month(prefix / FILE).read_bytes())
    first = fetch(bucket, tmp_path)
    content[len(content) // 4] ^= 1
    (prefix / FILE).write_bytes(content)
    assert fetch(bucket, tmp_path).sha256 == hash_file(prefix / FILE) != first.sha256


def test_a_users_own_file_is_taken_as_it_is(bucket: S3Bucket, prefix: Path, tmp_path: Path) -> None:
    write_month(prefix / FILE)
    own = write_month(tmp_path / FILE, minutes=20)
    notice = f"{FILE} has no sidecar: it is used as the file of your own that it seems to be."
    assert fetch(bucket, tmp_path) == MonthFile(JANUARY, own, hash_file(own), (notice,))


def test_folder_of_the_block_comes_before_the_prefix(
    bucket: S3Bucket, prefix: Path, tmp_path: Path
) -> None:
    write_month(prefix / "months" / FILE)
    bucket.bucket_folder = "single"
    assert fetch(bucket, tmp_path, prefix="months").sha256 == hash_file(prefix / "months" / FILE)


@pytest.fixture
def wrong_secret(s3_server: S3Server, prefect_api: str) -> str:
    environment = {**s3_server.environment, "AWS_SECRET_ACCESS_KEY": WRONG_SECRET}
    create_blocks(environment, "wrong-secret")
    return "wrong-secret"


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


@pytest.mark.usefixtures("prefect_api")
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


@pytest.mark.parametrize(
    "bucket",
    ["UPPER CASE!", "s3://taxi", "taxi/models", "ab", "a" * 64, "-taxi", "taxi.", "taxi\n"],
)
def test_bucket_that_no_server_has(bucket: str) -> None:
    environment = {**ENVIRONMENT, "TAXI_DURATION_S3_BUCKET": bucket}
    with pytest.raises(InputError, match=r"^TAXI_DURATION_S3_BUCKET is .*, which is no bucket's"):
        check_block(environment, "taxi")


@pytest.mark.parametrize(
    "endpoint",
    ["not a url", "localhost:9000", "ftp://host", "http://", "https://a b", "//host", "http://a_b"],
)
def test_endpoint_that_is_no_address(endpoint: str) -> None:
    message = f"^AWS_ENDPOINT_URL is {endpoint!r}: give http:// or https:// and a host, such as"
    with pytest.raises(InputError, match=message):
        check_block({**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}, "taxi")


def test_endpoint_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(InputError, match=r"^AWS_ENDPOINT_URL is 'https://host': give http"):
        check_block({**ENVIRONMENT, "AWS_ENDPOINT_URL": "https://me:secret@host"}, "taxi")


@pytest.mark.parametrize("endpoint", ["", "http://[::1]:9000", "https://host.example/s3/"])
def test_endpoint_of_another_server(endpoint: str) -> None:
    check_block({**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}, "taxi")


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
