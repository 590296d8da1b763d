"""The command line: one line that names the value and the remedy, an exit code, nothing written."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

import orchestrate
import orchestrate_s3
from taxi_duration.cli.app import main
from taxi_duration.cli.ending import Stopped, end_in_one_line
from taxi_duration.cli.train import run_from_command_line
from taxi_duration.data.month import Month
from taxi_duration.errors import SourceError
from tests.conftest import REPOSITORY
from tests.support.months import SAMPLE, write_month, write_months
from tests.support.servers import find_free_port, make_environment, make_prefect_home
from tests.support.watched import receive

JANUARY = ("--year", "2023", "--month", "1")
SAMPLE_MONTH = ("--year", "2025", "--month", "1", "--data-dir", str(SAMPLE))
BOTH = pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3"])
Refuse = Callable[..., str]


@pytest.fixture
def refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refuse:
    """Run a flow file, which must refuse and write nothing; return its one line."""

    def run(*arguments: str, of: str = "orchestrate") -> str:
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.chdir(empty)
        assert start(of, arguments) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert [*empty.iterdir()] == []
        line = re.fullmatch(r"error: (.+)\n", errors)
        assert line is not None, errors
        return line[1]

    return run


def start(of: str, arguments: tuple[str, ...]) -> int:
    if of == "orchestrate":
        options, prepare = orchestrate.LocalOptions, orchestrate.prepare
        return run_from_command_line(orchestrate.main_flow, options, prepare, arguments)
    options, prepare = orchestrate_s3.S3Options, orchestrate_s3.prepare
    return run_from_command_line(orchestrate_s3.main_flow_s3, options, prepare, arguments)


# Options


@BOTH
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("month", "0"),
        ("month", "13"),
        ("month", "-1"),
        ("month", "3.5"),
        ("month", "true"),
        ("month", ""),
        ("year", "21"),
        ("year", "2008"),
        ("year", "20x3"),
        ("cab", "geen"),
        ("cab", "fhv"),
        ("features", "extendd"),
        ("alpha", "-0.001"),
        ("alpha", "nan"),
        ("alpha", "inf"),
        ("alpha", "much"),
        ("train-months", "0"),
        ("train-months", "121"),
    ],
)
def test_an_option_that_cannot_be(option: str, value: str, of: str, refuse: Refuse) -> None:
    given = {"year": "2023", "month": "1", option: value}
    line = refuse(*(f"--{name}={each}" for name, each in given.items()), of=of)
    assert option.split("-")[0].removesuffix("s") in line
    assert value in line
    assert re.search(r"[:;] .+", line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--year", "2023"), "year is given without month: give both, or neither."),
        (("--month", "1"), "month is given without year: give both, or neither."),
        (
            ("--year", "2099", "--month", "1"),
            "month 2099-01 cannot be trained on, as its ",
        ),
        (("--year", "2013", "--month", "7"), "green month 2013-07 cannot be used: green cabs "),
        ((*JANUARY, "--cab", "geen"), "cab 'geen' is not a cab type; did you mean 'green'?"),
        ((*JANUARY, "--cab", "bus"), "cab 'bus' is not a cab type; give green or yellow."),
        ((*JANUARY, "--cab", "fhv"), "cab 'fhv' cannot be used: its files hold no distance; "),
        ((*JANUARY, "--features", "extendd"), "feature set 'extendd' is unknown; did you mean "),
        ((*JANUARY, "--offline"), "data/green_tripdata_2023-01.parquet is missing and offline is "),
        (
            ("--year", "2013", "--month", "9", "--train-months", "3"),
            "train_months 3 reaches before green month 2013-08",
        ),
    ],
)
def test_a_run_that_cannot_be(arguments: tuple[str, ...], message: str, refuse: Refuse) -> None:
    # However the problem and the remedy are joined.
    assert refuse(*arguments).replace(";", ":").startswith(message.replace(";", ":"))


@pytest.mark.parametrize("months_ago", [1, 3])
def test_month_whose_next_is_not_published(months_ago: int, refuse: Refuse) -> None:
    month = Month.of(date.today()).shift(-months_ago)
    line = refuse("--year", str(month.year), "--month", str(month.month))
    assert re.match(r"green month 20\d\d-\d\d is not published yet", line)
    assert f"rain on {Month.of(date.today()).shift(-4)} or earlier" in line


def test_unpublished_month_that_is_here_is_used(tmp_path: Path, refuse: Refuse) -> None:
    month = Month.of(date.today()).shift(-2)
    data = write_months(tmp_path / "data", month)
    (data / month.next.file_name("green")).unlink()
    line = refuse("--year", str(month.year), "--month", str(month.month), "--data-dir", str(data))
    assert line.startswith(f"green month {month.next} is not published yet")


@BOTH
@pytest.mark.parametrize(
    ("flag", "name"), [("--data-dir", "data directory"), ("--models-dir", "models directory")]
)
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/taxi"])
def test_directory_that_takes_no_file(
    place: str, flag: str, name: str, of: str, tmp_path: Path, refuse: Refuse
) -> None:
    if place.startswith("/proc") and sys.platform != "linux":
        pytest.skip("no directory here refuses every user")  # in /proc not even root creates one
    (tmp_path / "file").touch()
    directory = tmp_path / place
    line = refuse(*JANUARY, flag, str(directory), of=of)
    reason = "is a file" if place == "file" else "is not writable ("
    assert line.startswith(f"{name} {directory} {reason}")


def test_validation_month_missing_offline(tmp_path: Path, refuse: Refuse) -> None:
    data = write_month(tmp_path / "data" / "green_tripdata_2023-01.parquet").parent
    line = refuse(*JANUARY, "--offline", "--data-dir", str(data))
    assert line.startswith(f"{data}/green_tripdata_2023-02.parquet is missing and offline is")


@pytest.mark.parametrize("column", ["lpep_pickup_datetime", "PULocationID", "trip_distance"])
def test_month_with_a_column_missing(column: str, tmp_path: Path, refuse: Refuse) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1), without=column)
    line = refuse(*JANUARY, "--data-dir", str(data))
    assert line.startswith(f"{data}/green_tripdata_2023-01.parquet: column {column} is missing")


def test_month_that_is_no_parquet_file(tmp_path: Path, refuse: Refuse) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1))
    (data / "green_tripdata_2023-02.parquet").write_text("pickup,dropoff\n", "utf-8")
    line = refuse(*JANUARY, "--data-dir", str(data))
    assert line.startswith(f"{data}/green_tripdata_2023-02.parquet is not a parquet file")


def test_help_shows_units_and_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        start("orchestrate_s3", ("--help",))
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for shown in (
        "--month MONTH last training month, 1 to 12; the next one validates",
        "--cab CAB cab type: green or yellow (default: green)",
        "directory of the months' parquet files (default: data/s3)",
        "by default 0 for course, the best of 1, 3 and 10 for extended",
        "name of the saved S3Bucket block (default: s3-bucket-block)",
        "key prefix of the months in the bucket (default: trip-data)",
    ):
        assert shown in text


# The bucket's block and prefixes


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("name", ["not-there", "My Bucket!", "../x", "a-secret"])
def test_block_that_is_not_saved(name: str, refuse: Refuse) -> None:
    Secret(value="quiet").save("a-secret", overwrite=True)  # a block of another type
    line = refuse(*JANUARY, "--block", name, of="orchestrate_s3")
    assert line.startswith(f"S3Bucket block '{name}' is not saved on this server")
    assert "python -m taxi_duration create-s3-blocks --name" in line


@pytest.mark.parametrize("prefix", ["", "/months", "months/", "a//b", "../other", "a/./b"])
@pytest.mark.parametrize("flag", ["--prefix", "--models-prefix"])
def test_prefix_that_is_no_prefix(flag: str, prefix: str, refuse: Refuse) -> None:
    line = refuse(*JANUARY, f"{flag}={prefix}", of="orchestrate_s3")
    assert line.startswith(f"prefix '{prefix}' is not a key prefix: give names joined by ")


# Prefect's server


@pytest.fixture
def no_server() -> Iterator[str]:
    """An address with a password, at which no Prefect server answers."""
    address = f"127.0.0.1:{find_free_port()}/api"
    with temporary_settings({PREFECT_API_URL: f"http://user:word@{address}"}):
        yield f"http://{address}"


@pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3", "create-s3-blocks", "watch"])
def test_server_that_does_not_answer_is_named_in_one_line(
    of: str,
    no_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TAXI_DURATION_S3_BUCKET"):
        monkeypatch.setenv(name, "anything")
    if of.startswith("orchestrate"):
        assert start(of, SAMPLE_MONTH) == 1
    else:
        assert main([of, *(["--block", "slack-webhook/ops"] if of == "watch" else [])]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(
        rf"error: Prefect server {re.escape(no_server)} failed \(.+\): check PREFECT_API_URL and "
        r"PREFECT_API_AUTH_STRING, or .+\n",
        errors,
    )
    assert "word" not in errors


def test_no_server_and_none_allowed(refuse: Refuse) -> None:
    assert refuse(*SAMPLE_MONTH).startswith(
        "PREFECT_API_URL is not set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is false"
    )


def test_own_server_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "file" / "home"
    home.parent.touch()
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True, PREFECT_HOME: home}):
        assert start("orchestrate", SAMPLE_MONTH) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: the run's own Prefect server ")
    assert f"check that {home} is writable" in errors


# How a command ends


def test_an_error_of_ours_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise SourceError("the server of it failed", "start it")

    assert end_in_one_line(fail) == 1
    assert capsys.readouterr() == ("", "error: the server of it failed: start it.\n")
    assert end_in_one_line(lambda: 3) == 3
    assert end_in_one_line(lambda: None) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_one_line_and_its_exit_code(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    assert end_in_one_line(lambda: signal.raise_signal(number)) == 128 + number
    assert capsys.readouterr().err.startswith(f"error: stopped by {number.name}: nothing was left")
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert end_in_one_line(lambda: signal.raise_signal(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert issubclass(Stopped, SystemExit)  # which no `except Exception` of a flow takes


def test_a_reader_that_has_left_is_told_nothing() -> None:
    script = (
        "import sys; from taxi_duration.cli.ending import end_in_one_line\n"
        "sys.exit(end_in_one_line(lambda: print('a line that is written at the end')))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


# Processes: no server configured, so that a run starts one of its own


def run_script(
    script: str, *arguments: str, directory: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    empty = directory / "empty"
    empty.mkdir()
    environment = make_environment(
        PREFECT_HOME=make_prefect_home(directory / "prefect"),
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
        COLUMNS="200",
        **variables,
    )
    return subprocess.run(
        [sys.executable, REPOSITORY / script, *arguments],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_that_fails_prints_one_line_without_a_traceback_and_tells_itself(
    tmp_path: Path,
) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1), minutes=61)
    with receive() as receiver:
        ended = run_script(
            "orchestrate.py",
            *(*JANUARY, "--data-dir", str(data)),
            directory=tmp_path,
            TAXI_DURATION_ALERT_URL=receiver.url(),
        )
    assert (ended.returncode, ended.stdout) == (2, "")
    (error,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert re.search(
        r"/green_tripdata_2023-01\.parquet: no trip is left of 12: 12 longer than 60 minutes", error
    )
    assert "Traceback" not in ended.stderr
    assert [*(tmp_path / "empty").iterdir()] == []
    (told,) = receiver.told
    subject = told.content["subject"]
    assert re.fullmatch(r"main-flow run \S+ is Failed", subject)
    message = r"Flow run encountered an exception: DataError: \S+ no trip is left of 12: .+"
    link = r"http://127\.0\.0\.1:4200/runs/flow-run/[0-9a-f-]{36} on \S+, after `prefect server .+"
    assert re.fullmatch(rf"{re.escape(subject)}: {message}\n{link}", told.content["text"])
    assert told.kind == "application/json"
