import hashlib
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from orchestrate import main_flow
from taxi_duration import train_model
from taxi_duration.data.month import Month
from taxi_duration.flows.options import LocalOptions
from taxi_duration.flows.train import TrainedRun, make_plan, read_flow_day
from tests.support.months import identify, write_months
from tests.support.runs import Run, read_logs, read_report_artifact, read_task_runs, run_local
from tests.support.web import Tlc

Train = Callable[..., Run]

COURSE_2021 = ("--year", "2021", "--month", "1", "--features", "course")

GROUND_TRUTH = {
    ("2021", "1"): (76_518, 73_908, 61_921, 7.480827, 8.4227, 12.2131),
    ("2023", "1"): (68_211, 65_946, 62_574, 6.033847, 6.6424, 9.3221),
}
"""Rows read and kept to train on, rows kept to validate on; RMSE of the exact least-squares answer,
of the zone-pair median and of the training mean."""


@pytest.mark.parametrize("month", GROUND_TRUTH)
def test_course_figures_are_those_it_is_known_by(
    month: tuple[str, str], train_on_real_months: Train
) -> None:
    run = train_on_real_months("--year", month[0], "--month", month[1], "--features", "course")
    report = run.report
    assert run.exit_code == 0
    assert (
        report["train"]["rows_read"],
        report["train"]["rows_kept"],
        report["validation"]["rows_kept"],
        round(report["validation"]["rmse"], 6),
        round(report["baselines"]["zone_pair_median"]["rmse"], 4),
        round(report["baselines"]["mean"]["rmse"], 4),
    ) == GROUND_TRUTH[month]


@pytest.mark.usefixtures("prefect_api")
def test_summary_shows_the_figures_and_where_everything_is(train_on_real_months: Train) -> None:
    run = train_on_real_months(*COURSE_2021)
    artifact = read_report_artifact(run.flow_run.id)
    shown = " ".join(run.output.split())
    for part in (
        "validation RMSE 7.480827 minutes over 61,921 trips",
        "8.4227 zone-pair median; 12.2131 training mean",
        f"model {run.model_directory.relative_to(run.directory)} ",
        f"taxi_duration.load_model('{run.model_directory.relative_to(run.directory)}')",
        f"mlflow ui --backend-store-uri sqlite:///{run.directory / 'mlflow.db'}, then open http://",
        f"/artifacts/artifact/{artifact.id}",
    ):
        assert part in shown


def test_report_says_what_it_was_made_from(train_on_real_months: Train, real_data: Path) -> None:
    report = train_on_real_months(*COURSE_2021).report
    assert (report["cab"], report["features"], report["alpha"]) == ("green", "course", 0.0)
    assert (report["train"]["months"], report["validation"]["month"]) == (["2021-01"], "2021-02")
    files = [f"green_tripdata_2021-0{month}.parquet" for month in (1, 2)]
    assert report["inputs"] == {
        file: hashlib.sha256((real_data / file).read_bytes()).hexdigest() for file in files
    }
    assert {"python", "scikit-learn", "taxi_duration"} <= report["versions"].keys()


@pytest.mark.usefixtures("prefect_api")
def test_every_task_has_a_name_and_completes(train_on_real_months: Train) -> None:
    run = train_on_real_months(*COURSE_2021)
    task_runs = read_task_runs(run.flow_run.id, expected=12)
    assert set(task_runs) == {
        "download-2021-01",
        "download-2021-02",
        "clean-2021-01",
        "build-features",
        "train-regression",
        "find-champion",
        "validate",
        "judge-candidate",
        "save-artifacts",
        "log-to-mlflow",
        "promote-champion",
        "publish-report",
    }
    assert {task_run.state_name for task_run in task_runs.values()} == {"Completed"}


@pytest.mark.usefixtures("prefect_api")
def test_tasks_log_to_prefect(train_on_real_months: Train) -> None:
    run = train_on_real_months(*COURSE_2021)
    cleaning = read_task_runs(run.flow_run.id, expected=12)["clean-2021-01"]
    logs = read_logs(run.flow_run.id, awaited="report published")
    funnel, *_ = (log.message for log in logs if log.task_run_id == cleaning.id)
    assert funnel.startswith(
        "2021-01: kept 73,908 of 76,518 trips; 0 zone missing, 0 time or distance missing, "
        "0 zone not 1 to 265, 66 drop-off not after pick-up, 1,382 shorter than 1 minute, "
        "1,162 longer than 60 minutes, "
    )


@pytest.mark.usefixtures("prefect_api")
def test_artifact_is_a_table_with_a_link(train_on_real_months: Train) -> None:
    run = train_on_real_months(*COURSE_2021)
    artifact = read_report_artifact(run.flow_run.id)
    lines = str(artifact.data).splitlines()
    assert artifact.type == "markdown"
    assert not [line for line in lines if line.startswith((" ", "\t"))]
    assert [line for line in lines if line.startswith("```")] == ["```sh", "```"]  # the commands
    header = lines.index("| on 2021-02 | RMSE, minutes | model's RMSE is |")
    assert (lines[header - 1], lines[header + 1]) == ("", "| --- | ---: | ---: |")
    assert "| **linear regression, course features** | 7.4808 |  |" in lines
    assert "| zone-pair median | 8.4227 | 11.2% lower |" in lines
    (link,) = (line for line in lines if line.startswith("MLflow run: ["))
    assert "](http://127.0.0.1:5000/#/experiments/" in link


def test_window_of_two_months(train_on_real_months: Train) -> None:
    run = train_on_real_months("--year", "2023", "--month", "2", "--train-months", "2")
    report = run.report
    assert report["train"]["months"] == ["2023-01", "2023-02"]
    assert report["train"]["rows_read"] == 68_211 + 64_809
    assert report["train"]["rows_kept"] == 65_946 + 62_574
    assert (report["validation"]["month"], report["validation"]["rows_kept"]) == ("2023-03", 69_392)
    assert report["features"] == "extended"
    assert report["validation"]["rmse"] < report["baselines"]["zone_pair_median"]["rmse"]
    assert run.model_directory.name.startswith("2023-02-")


@pytest.mark.parametrize(
    ("train", "validation", "rows"),
    [
        ("2023-01", "2023-02", 62_574),
        ("2023-02", "2023-03", 69_392),
        ("2025-01", "2025-02", 44_218),
    ],
    ids=["to 2023-01", "from 2023-02", "from 2025-01"],
)
def test_every_green_schema_trains(train: str, validation: str, rows: int, real_data: Path) -> None:
    model = train_model([real_data / f"green_tripdata_{train}.parquet"])
    errors = model.evaluate(real_data / f"green_tripdata_{validation}.parquet")
    assert errors.rows == rows
    assert errors.rmse < 6


@pytest.mark.usefixtures("prefect_api")
def test_yellow_trains(real_data: Path, tmp_path: Path) -> None:
    sample = real_data / "yellow_tripdata_2022-01.head100000.parquet"
    shutil.copy(sample, tmp_path / "yellow_tripdata_2022-01.parquet")
    trips = pd.read_parquet(sample)
    for column in ("tpep_pickup_datetime", "tpep_dropoff_datetime"):
        trips[column] += pd.Timedelta(days=31)
    trips.to_parquet(tmp_path / "yellow_tripdata_2022-02.parquet")
    run = run_local(
        tmp_path, "--cab", "yellow", "--year", "2022", "--month", "1",
        "--data-dir", ".", "--offline",
    )  # fmt: skip
    report = run.report
    assert (run.exit_code, report["cab"], report["train"]["rows_read"]) == (0, "yellow", 100_000)
    assert report["validation"]["rmse"] < report["baselines"]["zone_pair_median"]["rmse"]
    assert run.model_directory.parent.name == "yellow"


@pytest.mark.parametrize(
    ("today", "trained_on"),
    [
        (date(2023, 5, 31), Month(2023, 1)),
        (date(2023, 6, 1), Month(2023, 2)),
        (date(2024, 1, 1), Month(2023, 9)),
    ],
)
def test_default_month_is_the_newest_that_can_be_validated(today: date, trained_on: Month) -> None:
    plan = make_plan(LocalOptions(), today)
    assert (plan.train, plan.validation) == ((trained_on,), trained_on.next)


def run_as_scheduled(scheduled: Flow[..., Any], day: datetime, **parameters: object) -> Any:
    """Run a flow now that was due on an earlier day, as a worker does with a late run."""
    with get_client(sync_client=True) as client:
        due = Scheduled(scheduled_time=day)
        flow_run = client.create_flow_run(scheduled, parameters=parameters, state=due)
    return run_flow(scheduled, flow_run=flow_run, parameters=parameters)


@flow
def report_day() -> date:
    return read_flow_day()


@pytest.mark.usefixtures("prefect_api")
def test_late_run_knows_the_day_it_was_due() -> None:
    day = datetime(2024, 2, 29, 23, 30, tzinfo=UTC)
    assert run_as_scheduled(report_day, day) == date(2024, 2, 29)


@pytest.mark.usefixtures("prefect_api")
def test_run_without_a_schedule_is_due_today() -> None:
    before = datetime.now(UTC).date()
    assert before <= report_day() <= datetime.now(UTC).date()


@pytest.mark.usefixtures("prefect_api")
def test_late_run_trains_on_the_month_it_was_due_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_months(tmp_path / "data", Month(2023, 1))
    day = datetime(2023, 5, 2, tzinfo=UTC)
    trained: TrainedRun = run_as_scheduled(main_flow, day, features="course", offline=True)
    assert trained.report.train.months == ["2023-01"]
    assert trained.report.validation.month == "2023-02"


@pytest.mark.usefixtures("prefect_api")
def test_log_says_what_was_reused_and_without_cache_nothing_is(
    tmp_path: Path, tlc: Tlc, prefect_home: Path
) -> None:
    made = write_months(tmp_path / "made", Month(2023, 1))
    tlc.files = {path.name: path.read_bytes() for path in made.iterdir()}
    pickled = {*prefect_home.glob("storage/**/*")}
    again = ("--year", "2023", "--month", "1", "--features", "course")
    seen, models = {}, set()
    for name, arguments in {"first": (), "again": (), "anew": ("--no-cache",)}.items():
        run = run_local(tmp_path, *again, *arguments)
        assert run.exit_code == 0
        log = "\n".join(each.message for each in read_logs(run.flow_run.id, "report published"))
        reused = (", fetched,", ", reused as it is here,", ": sums of the same bytes reused from ")
        seen[name] = tuple(log.count(text) for text in reused)
        models.add((run.model_directory, identify(run.model_directory / "model.skops")))
    assert seen == {"first": (2, 0, 0), "again": (0, 2, 1), "anew": (2, 0, 0)}
    assert len(models) == 1  # the one there is
    assert {*prefect_home.glob("storage/**/*")} == pickled  # nothing goes from task to task so
