"""Bad input: one line that names the value and the remedy, exit code 2, and nothing written."""

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
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

import orchestrate
import orchestrate_s3
from taxi_duration.__main__ import main as create_s3_blocks
from taxi_duration.cli.cli import run_from_command_line
from taxi_duration.data.month import Month
from tests.conftest import REPOSITORY
from tests.support.months import SAMPLE, write_month, write_months
from tests.support.servers import find_free_port, make_environment

JANUARY = ("--year", "2023", "--month", "1")
Refuse = Callable[..., str]


@pytest.fixture
def refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refuse:
    """Run orchestrate.py (or the flow file of `main`), which must refuse; return its one line."""

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


@pytest.mark.parametrize(
    ("month", "message"),
    [
        ("0", "month 0 is not a month: give a number from 1 to 12."),
        ("13", "month 13 is not a month: give a number from 1 to 12."),
        ("-1", "month -1 is not a month: give a number from 1 to 12."),
        ("3.5", "month '3.5' is not a whole number: give one from 1 to 12."),
        ("true", "month 'true' is not a whole number: give one from 1 to 12."),
        ("1_0", "month '1_0' is not a whole number: give one from 1 to 12."),
        ("", "month '' is not a whole number: give one from 1 to 12."),
    ],
)
@pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3"])
def test_month(month: str, message: str, of: str, refuse: Refuse) -> None:
    assert refuse("--year", "2023", f"--month={month}", of=of) == message


@pytest.mark.parametrize(
    ("year", "message"),
    [
        ("21", "year 21 has no trip records: they begin in 2009: did you mean 2021?"),
        ("2008", "year 2008 has no trip records: they begin in 2009: give a later one."),
        ("2023.0", "year '2023.0' is not a whole number: give one such as 2023."),
    ],
)
def test_year(year: str, message: str, refuse: Refuse) -> None:
    assert refuse("--year", year, "--month", "1") == message


def test_year_that_has_not_begun(refuse: Refuse) -> None:
    message = refuse("--year", "2099", "--month", "1")
    assert message.startswith(
        "month 2099-01 cannot be trained on: its validation month 2099-02 has not begun; give 20"
    )


def test_month_before_green_cabs(refuse: Refuse) -> None:
    assert refuse("--year", "2013", "--month", "7") == (
        "green month 2013-07 cannot be used: green cabs began in August 2013; "
        "give 2013-08 or later."
    )


def test_month_of_today(refuse: Refuse) -> None:
    today = Month.of(date.today())
    message = refuse("--year", str(today.year), "--month", str(today.month))
    assert message.startswith(
        f"month {today} cannot be trained on: its validation month {today.next} has not begun; "
    )
    assert re.search(r"; give 20\d\d-\d\d or earlier\.$", message)


@pytest.mark.parametrize("months_ago", [1, 2, 3])
def test_month_whose_next_is_not_published(months_ago: int, refuse: Refuse) -> None:
    month = Month.of(date.today()).shift(-months_ago)
    message = refuse("--year", str(month.year), "--month", str(month.month))
    assert re.match(r"green month 20\d\d-\d\d is not published yet: expect it by 20", message)
    newest = Month.of(date.today()).shift(-4)
    assert f"Train on {newest} or earlier (the next month validates), or place green_" in message


def test_unpublished_month_that_is_here_is_used(tmp_path: Path, refuse: Refuse) -> None:
    month = Month.of(date.today()).shift(-2)
    data = write_months(tmp_path / "data", month)
    (data / month.next.file_name("green")).unlink()
    message = refuse(
        "--year", str(month.year), "--month", str(month.month), "--data-dir", str(data)
    )
    assert message.startswith(f"green month {month.next} is not published yet: ")


def test_mistyped_cab(refuse: Refuse) -> None:
    message = refuse(*JANUARY, "--cab", "geen")
    assert message == "cab 'geen' is not a cab type: did you mean 'green'?"


def test_unknown_cab(refuse: Refuse) -> None:
    assert refuse(*JANUARY, "--cab", "bus") == (
        "cab 'bus' is not a cab type: give green or yellow."
    )


@pytest.mark.parametrize(
    ("cab", "reason"),
    [
        ("fhv", "its files hold no distance"),
        ("fhvhv", "its columns are not in the data contract"),
    ],
)
def test_cab_that_cannot_be_used(cab: str, reason: str, refuse: Refuse) -> None:
    assert refuse(*JANUARY, "--cab", cab) == (
        f"cab '{cab}' cannot be used: {reason}; give green or yellow."
    )


def test_year_without_month(refuse: Refuse) -> None:
    assert refuse("--year", "2023") == "year is given without month: give both, or neither."


def test_month_without_year(refuse: Refuse) -> None:
    assert refuse("--month", "1") == "month is given without year: give both, or neither."


def test_mistyped_feature_set(refuse: Refuse) -> None:
    assert refuse(*JANUARY, "--features", "extendd") == (
        "feature set 'extendd' is unknown: did you mean 'extended'?"
    )


def test_unknown_feature_set(refuse: Refuse) -> None:
    assert refuse(*JANUARY, "--features", "all") == (
        "feature set 'all' is unknown: give course or extended."
    )


@pytest.mark.parametrize("alpha", ["-1", "-0.001", "nan", "inf", "-inf"])
def test_alpha_that_is_no_penalty(alpha: str, refuse: Refuse) -> None:
    message = refuse(*JANUARY, f"--alpha={alpha}")
    shown = float(alpha)
    assert message == f"alpha {shown} is not a penalty: give a finite number of at least 0."


@pytest.mark.parametrize("alpha", ["much", "1_0", ""])
def test_alpha_that_is_no_number(alpha: str, refuse: Refuse) -> None:
    message = refuse(*JANUARY, f"--alpha={alpha}")
    assert message == f"alpha '{alpha}' is not a number: give one of at least 0, such as 3."


def test_window_of_no_month(refuse: Refuse) -> None:
    assert refuse(*JANUARY, "--train-months", "0") == "train_months 0 is no window: give 1 to 120."


def test_window_that_reaches_too_far_back(refuse: Refuse) -> None:
    assert refuse("--year", "2013", "--month", "9", "--train-months", "3") == (
        "train_months 3 reaches before green month 2013-08 (green cabs began in August 2013): "
        "give fewer."
    )


@pytest.mark.parametrize(
    ("flag", "name"), [("--data-dir", "data directory"), ("--models-dir", "models directory")]
)
@pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3"])
def test_directory_that_is_a_file(
    flag: str, name: str, of: str, tmp_path: Path, refuse: Refuse
) -> None:
    file = tmp_path / "file"
    file.touch()
    message = refuse(*JANUARY, flag, str(file), of=of)
    assert message == f"{name} {file} is a file: give a directory."


@pytest.mark.parametrize(
    ("flag", "name"), [("--data-dir", "data directory"), ("--models-dir", "models directory")]
)
@pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3"])
def test_directory_below_a_file(
    flag: str, name: str, of: str, tmp_path: Path, refuse: Refuse
) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    message = refuse(*JANUARY, flag, str(below), of=of)
    assert message.startswith(f"{name} {below} is not writable (")
    assert message.endswith("): give another directory.")


# In /proc not even root creates a file.
@pytest.mark.skipif(sys.platform != "linux", reason="no directory here refuses every user")
@pytest.mark.parametrize("directory", ["/proc", "/proc/taxi"])
@pytest.mark.parametrize(
    ("flag", "name"), [("--data-dir", "data directory"), ("--models-dir", "models directory")]
)
@pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3"])
def test_directory_that_takes_no_file(
    directory: str, flag: str, name: str, of: str, refuse: Refuse
) -> None:
    message = refuse(*JANUARY, flag, directory, of=of)
    assert message.startswith(f"{name} {directory} is not writable (")
    assert message.endswith("): give another directory.")


def test_month_missing_offline(refuse: Refuse) -> None:
    message = refuse(*JANUARY, "--offline")
    assert re.fullmatch(
        r"data/green_tripdata_2023-01\.parquet is missing and offline is set: download "
        r"https://\S+/green_tripdata_2023-01\.parquet and place it there, or run without offline\.",
        message,
    )


def test_validation_month_missing_offline(tmp_path: Path, refuse: Refuse) -> None:
    data = write_month(tmp_path / "data" / "green_tripdata_2023-01.parquet").parent
    message = refuse(*JANUARY, "--offline", "--data-dir", str(data))
    assert message.startswith(f"{data}/green_tripdata_2023-02.parquet is missing and offline is")


@pytest.mark.parametrize(
    "column",
    [
        "lpep_pickup_datetime",
        "lpep_dropoff_datetime",
        "PULocationID",
        "DOLocationID",
        "trip_distance",
    ],
)
def test_month_with_a_column_missing(column: str, tmp_path: Path, refuse: Refuse) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1), without=column)
    message = refuse(*JANUARY, "--data-dir", str(data))
    assert message.startswith(
        f"{data}/green_tripdata_2023-01.parquet: column {column} is missing: the columns are "
    )


def test_month_that_is_no_parquet_file(tmp_path: Path, refuse: Refuse) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1))
    (data / "green_tripdata_2023-02.parquet").write_text("pickup,dropoff\n", "utf-8")
    message = refuse(*JANUARY, "--data-dir", str(data))
    assert message.startswith(f"{data}/green_tripdata_2023-02.parquet is not a parquet file: ")
    assert message.endswith(": delete it and fetch it again.")


NOTHING_LEFT = re.compile(
    r"\S+/green_tripdata_2023-01\.parquet: no trip is left of 12: 12 longer than 60 minutes\. \w.+"
)


@pytest.mark.usefixtures("prefect_api")
def test_month_of_which_no_trip_is_left(tmp_path: Path, refuse: Refuse) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1), minutes=61)
    assert NOTHING_LEFT.fullmatch(refuse(*JANUARY, "--data-dir", str(data)))


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("name", ["not-there", "My Bucket!", "secret/not-there", "../x"])
def test_block_that_is_not_saved(name: str, refuse: Refuse) -> None:
    message = refuse(*JANUARY, "--block", name, of="orchestrate_s3")
    assert message.startswith(f"S3Bucket block '{name}' is not saved on this server (a block of ")


def test_block_without_a_name(refuse: Refuse) -> None:
    message = refuse(*JANUARY, "--block", "", of="orchestrate_s3")
    assert message.startswith("block '': ")


@pytest.mark.usefixtures("prefect_api")
def test_block_of_another_type(refuse: Refuse) -> None:
    Secret(value="quiet").save("a-secret", overwrite=True)
    assert refuse(*JANUARY, "--block", "a-secret", of="orchestrate_s3") == (
        "S3Bucket block 'a-secret' is not saved on this server "
        "(a block of another type by that name does not count): "
        "save one with python -m taxi_duration create-s3-blocks --name a-secret."
    )


@pytest.mark.parametrize("prefix", ["", "/months", "months/", "a//b", "../other", "a/./b"])
@pytest.mark.parametrize("flag", ["--prefix", "--models-prefix"])
def test_prefix_that_is_no_prefix(flag: str, prefix: str, refuse: Refuse) -> None:
    message = refuse(*JANUARY, f"{flag}={prefix}", of="orchestrate_s3")
    assert message.startswith(f"prefix '{prefix}' is not a key prefix: give names joined by ")


def run_script(script: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a flow file as a user does: no server configured, so Prefect starts one of its own."""
    empty = directory / "empty"
    empty.mkdir()
    environment = make_environment(
        PREFECT_HOME=str(directory / "prefect"),
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
        COLUMNS="200",
    )
    return subprocess.run(
        [sys.executable, REPOSITORY / script, *arguments],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_prints_one_line_and_no_traceback(tmp_path: Path) -> None:
    ended = run_script("orchestrate.py", "--year", "2023", "--month", "13", directory=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: month 13 is not a month: give a number from 1 to 12.\n"
    assert [*(tmp_path / "empty").iterdir()] == []


def test_script_that_fails_in_a_task_prints_one_line_and_no_traceback(tmp_path: Path) -> None:
    data = write_months(tmp_path / "data", Month(2023, 1), minutes=61)
    ended = run_script("orchestrate.py", *JANUARY, "--data-dir", str(data), directory=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    (error,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert NOTHING_LEFT.fullmatch(error.removeprefix("error: "))
    assert "Traceback" not in ended.stderr
    assert [*(tmp_path / "empty").iterdir()] == []


def test_script_trains_with_a_server_of_its_own(tmp_path: Path) -> None:
    sample = str(REPOSITORY / "data" / "sample")
    arguments = ("--year", "2025", "--month", "1", "--data-dir", sample, "--offline")
    ended = run_script("orchestrate.py", *arguments, directory=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (
        "green trips, extended features, trained on 2025-01, validated on 2025-02" in ended.stdout
    )
    shown = " ".join(ended.stdout.split())
    assert "prefect server start, then open http://127.0.0.1:4200/artifacts/artifact/" in shown
    assert not re.search("Traceback|Warning|ERROR", ended.stderr)
    assert {"models", "mlflow.db"} <= {path.name for path in (tmp_path / "empty").iterdir()}


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
        "--features FEATURES feature set: course or extended (default: extended)",
        "by default 0 for course, the best of 1, 3 and 10 for extended",
        "number of months to train on, the last one included (default: 1)",
        "name of the saved S3Bucket block (default: s3-bucket-block)",
        "key prefix of the months in the bucket (default: trip-data)",
    ):
        assert shown in text


@pytest.fixture
def no_server() -> Iterator[str]:
    """An address with a password, at which no Prefect server answers."""
    address = f"127.0.0.1:{find_free_port()}/api"
    with temporary_settings({PREFECT_API_URL: f"http://user:word@{address}"}):
        yield f"http://{address}"


UNREACHABLE = r"error: Prefect server {} failed \(.+\): check PREFECT_API_URL, or unset it for a "
SAMPLE_MONTH = ("--year", "2025", "--month", "1", "--data-dir", str(SAMPLE))


@pytest.mark.parametrize("of", ["orchestrate", "orchestrate_s3"])
def test_server_that_does_not_answer_is_named_in_one_line(
    of: str,
    no_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert start(of, SAMPLE_MONTH) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(UNREACHABLE.format(re.escape(no_server)) + r"server that .+\n", errors)
    assert "word" not in errors


def test_blocks_are_not_saved_on_a_server_that_does_not_answer(
    no_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["taxi_duration", "create-s3-blocks"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TAXI_DURATION_S3_BUCKET"):
        monkeypatch.setenv(name, "anything")
    assert create_s3_blocks() == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(UNREACHABLE.format(re.escape(no_server)) + r"server that .+\n", errors)


def test_no_server_and_none_allowed(refuse: Refuse) -> None:
    assert refuse(*SAMPLE_MONTH) == (
        "PREFECT_API_URL is not set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is false: set the "
        "address of a Prefect server, or allow the run to start one."
    )


def test_a_reader_that_has_left_is_told_nothing() -> None:
    script = (
        "import sys; from taxi_duration.cli.cli import end_in_one_line\n"
        "sys.exit(end_in_one_line(lambda: print('a line that is written at the end')))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


class FailingServer:
    """In the place of Prefect's embedded server, which is started again and again."""

    def start(self) -> None:
        for _ in range(10):
            self._run_uvicorn_command().wait()

    def _run_uvicorn_command(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["false"])


def test_own_server_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prefect.server.api.server.SubprocessASGIServer", FailingServer)
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}):
        assert start("orchestrate", SAMPLE_MONTH) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == (
        "error: the run's own Prefect server did not start (it ended 2 times while starting): "
        f"check that {os.environ['PREFECT_HOME']} is writable and its prefect.db whole, or set "
        "PREFECT_API_URL to the address of a server.\n"
    )
