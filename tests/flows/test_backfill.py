"""Backfills: planned, by their command, resumed, of months published anew, at once."""

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import UUID

import mlflow
import pytest
from mlflow.entities import Run as MlflowRun
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact

from taxi_duration.data.month import Month
from taxi_duration.errors import InputError
from taxi_duration.flows.backfill import (
    ARTIFACT_KEY,
    PROGRESS_KEY,
    BackfillPlan,
    plan_backfill,
)
from taxi_duration.flows.options import BackfillOptions, read_options
from taxi_duration.registry.runs import (
    BACKFILL_ID,
    CHAMPION,
    MODEL_ID,
    PARENT,
    PLOT_FILE,
    REGISTERED_MODEL,
    TABLE_FILE,
)
from taxi_duration.registry.store import EXPERIMENT
from tests.conftest import REPOSITORY, connected_to
from tests.support.killed_backfills import AT_ONCE, KILLED
from tests.support.months import identify, write_month
from tests.support.runs import Run, call_taxi_duration, read_logs, run_backfill
from tests.support.servers import make_environment
from tests.support.web import Tlc, serve_tlc

SMALL_SPAN = ("--from", "2023-01", "--to", "2023-04", "--features", "course")
TODAY = date(2024, 2, 15)
MINUTES = {"2023-01": 10, "2023-02": 12, "2023-03": 15, "2023-04": 19}
"""What every trip of a small month takes; so a model of one is wrong by the difference."""

BEFORE_LOGGING, WHILE_LOGGING, WHILE_LOGGING_BACKFILL = KILLED


def write_small_months(directory: Path, **minutes: float) -> Path:
    for month, each in {**MINUTES, **minutes}.items():
        path = directory / f"green_tripdata_{month}.parquet"
        write_month(path, minutes=each, month=Month.parse(month))
    return directory


def read_table(output: str) -> list[list[str]]:
    """The rows of the printed table."""
    rows = re.findall(r"^  (\d{4}-\d{2}  .*\.\d{4}.*)$", output, re.MULTILINE)
    return [re.split(r"  +", row) for row in rows]


def read_rmse(run: Run) -> dict[str, str]:
    """The model's RMSE by validation month, as printed."""
    return {row[0]: row[3] for row in read_table(run.output)}


def list_models(directory: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(directory.glob("models/green/*"))}


def read_reports(directory: Path) -> dict[str, bytes]:
    models = list_models(directory)
    return {name: (path / "report.json").read_bytes() for name, path in models.items()}


def open_store(directory: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")


@dataclass(frozen=True)
class Logged:
    """The MLflow runs of a directory's store: of trainings by model, and of backfills."""

    trainings: list[MlflowRun]
    backfills: list[MlflowRun]

    @property
    def models(self) -> list[str]:
        return sorted(run.data.tags[MODEL_ID].removeprefix("green/") for run in self.trainings)

    @property
    def statuses(self) -> list[str]:
        return [run.info.status for run in self.backfills]


def read_logged(directory: Path) -> Logged:
    client = open_store(directory)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    alone = [run for run in runs if PARENT not in run.data.tags]
    return Logged(
        [run for run in alone if MODEL_ID in run.data.tags],
        [run for run in alone if BACKFILL_ID in run.data.tags],
    )


def read_file(directory: Path, run: MlflowRun, name: str, target: Path) -> bytes:
    client = open_store(directory)
    return Path(client.download_artifacts(run.info.run_id, name, str(target))).read_bytes()


def read_artifacts(flow_run_id: UUID) -> dict[str, Artifact]:
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_run)
    keyed = {str(artifact.key): artifact for artifact in found if artifact.key}
    assert len(keyed) == len([artifact for artifact in found if artifact.key])
    return keyed


def read_messages(run: Run) -> list[str]:
    return [log.message for log in read_logs(run.flow_run.id, "backfill published")]


def list_reused(run: Run) -> list[str]:
    """The validation months of models that were found finished."""
    found = (re.match(r"(\S+): reused, its model was", message) for message in read_messages(run))
    return [match[1] for match in found if match]


def count_fits(run: Run) -> int:
    return sum(message.startswith("fitted alpha") for message in read_messages(run))


def plan_for(from_month: object, to_month: object, **values: object) -> BackfillPlan:
    given = {"from_month": from_month, "to_month": to_month, **values}
    return plan_backfill(read_options(BackfillOptions, given), TODAY)


def list_months(plan: BackfillPlan) -> list[str]:
    """Each training as `first last>validation`, its window by its ends."""
    return [f"{each.train[0]} {each.train[-1]}>{each.validation}" for each in plan.steps]


def test_each_month_validates_a_model_of_the_month_before() -> None:
    plan = plan_for("2022-11", "2023-02")
    assert list_months(plan) == [
        "2022-11 2022-11>2022-12",
        "2022-12 2022-12>2023-01",
        "2023-01 2023-01>2023-02",
    ]
    assert [str(month) for month in plan.months] == ["2022-11", "2022-12", "2023-01", "2023-02"]
    assert (plan.span, plan.title) == ("2022-11 to 2023-02", "green backfill 2022-11 to 2023-02")


def test_a_window_rolls_and_reads_nothing_outside_the_span() -> None:
    plan = plan_for("2023-01", "2023-05", train_months="3")
    assert list_months(plan) == ["2023-01 2023-03>2023-04", "2023-02 2023-04>2023-05"]
    assert len(plan.months) == 5


@pytest.mark.parametrize(
    ("first", "last", "train_months", "months"),
    [
        ("2023-01", "2023-02", 1, 2),
        ("2013-08", "2023-08", 120, 121),
        ("2024-01", "2024-02", 1, 2),  # in February 2024
    ],
    ids=["two months", "the longest window", "to the month of today"],
)
def test_the_shortest_spans(first: str, last: str, train_months: int, months: int) -> None:
    plan = plan_for(first, last, train_months=train_months)
    assert (len(plan.steps), len(plan.months)) == (1, months)


def test_the_longest_span() -> None:
    given = {"cab": "yellow", "from_month": "2011-01", "to_month": "2030-12"}
    plan = plan_backfill(read_options(BackfillOptions, given), date(2031, 1, 1))
    assert (len(plan.steps), len(plan.months)) == (239, 240)


def test_options_are_those_of_every_step() -> None:
    plan = plan_for(
        "2023-01", "2023-04", features="course", alpha="2", no_cache=True, runner="dask",
        dask_address="tcp://127.0.0.1:8786",
    )  # fmt: skip
    assert {
        (each.features.name, each.alphas, each.no_cache, each.runner, each.dask_address)
        for each in plan.steps
    } == {("course", (2.0,), True, "dask", "tcp://127.0.0.1:8786")}
    assert plan_for("2023-01", "2023-02").common.runner == "threads"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"to_month": "2023-01"},
            "from 2023-01 to 2023-01 leaves no month to validate a model trained on 1 month: give "
            "a last month of 2023-02 or later.",
        ),
        (
            {"to_month": "2022-06", "train_months": 3},
            "from 2023-01 to 2022-06 leaves no month to validate a model trained on 3 months: give "
            "a last month of 2023-04 or later.",
        ),
        (
            {"from_month": "2013-08", "to_month": "2033-08"},
            "from 2013-08 to 2033-08 is 241 months: give at most 240.",
        ),
        (
            {"to_month": "2024-03"},
            "last month 2024-03 has not begun: give one that is published, such as 2023-11.",
        ),
        (
            {"from_month": "2013-07"},
            "green month 2013-07 cannot be used: green cabs began in August 2013: give 2013-08 or "
            "later.",
        ),
        ({"from_month": "2023-13"}, "month 13 is not a month: give a number from 1 to 12."),
        (
            {"from_month": "january"},
            "month 'january' is not of the form YYYY-MM: give one such as 2023-01.",
        ),
        (
            {"from_month": "2023-1"},
            "month '2023-1' is not of the form YYYY-MM: give one such as 2023-01.",
        ),
        ({"to_month": None}, "to_month None is invalid: input should be a valid string."),
        ({"train_months": 121}, "train_months 121 is invalid: input should be less than or equal"),
        ({"runner": None}, "runner None is invalid: input should be 'threads' or 'dask'."),
        (
            {"dask_address": "tcp://127.0.0.1:8786"},
            "dask_address tcp://127.0.0.1:8786 is given: give runner dask with it.",
        ),
        ({"year": 2023}, "year is no option: give from_month, to_month, cab,"),
    ],
)
def test_a_span_or_option_that_cannot_be_is_refused(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        plan_for(**{"from_month": "2023-01", "to_month": "2023-06", **values})
    assert message in str(raised.value)


# Of months from the TLC, some published anew.


@dataclass(frozen=True)
class Repeated:
    """Backfills of the same span in one directory, and what each asked of the TLC."""

    runs: dict[str, Run]
    requests: dict[str, list[tuple[str, str | None]]]
    """Month and the ETag it was asked after by."""
    models: dict[str, dict[str, tuple[int, int]]]
    """The report of each model there was, identified."""


@pytest.fixture(scope="module")
def repeated(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Repeated:
    directory = tmp_path_factory.mktemp("repeated")
    repeated = Repeated({}, {}, {})

    def run(name: str, tlc: Tlc, *arguments: str) -> None:
        tlc.requests.clear()
        tlc.headers.clear()
        repeated.runs[name] = run_backfill(directory, *SMALL_SPAN, *arguments)
        asked = [headers.get("if-none-match") for headers in tlc.headers]
        months = [name.removeprefix("green_tripdata_")[:7] for name in tlc.requests]
        repeated.requests[name] = sorted(zip(months, asked, strict=True))
        repeated.models[name] = {
            model: identify(path / "report.json") for model, path in list_models(directory).items()
        }

    with (
        serve_tlc(tmp_path_factory.mktemp("tlc")) as tlc,
        pytest.MonkeyPatch.context() as patch,
        connected_to(prefect_server),
    ):
        for variable, value in tlc.environment.items():
            patch.setenv(variable, value)
        made = write_small_months(tmp_path_factory.mktemp("made"))
        tlc.files.update({path.name: path.read_bytes() for path in made.iterdir()})
        run("first", tlc)
        run("without cache", tlc, "--no-cache")
        anew = write_month(made / "anew", minutes=16, month=Month(2023, 3))
        tlc.files[Month(2023, 3).file_name("green")] = anew.read_bytes()
        run("published anew", tlc)
        # Version 2 was trained on 2023-02.
        open_store(directory).set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "2")
        run("beside a champion", tlc)
    return repeated


@pytest.mark.usefixtures("prefect_api")
def test_summary_says_what_it_is_and_where_everything_is(repeated: Repeated) -> None:
    run = repeated.runs["first"]
    assert run.exit_code == 0
    page = read_artifacts(run.flow_run.id)[ARTIFACT_KEY]
    shown = " ".join(run.output.split())
    for part in (
        "green trips, course features, 2023-01 to 2023-04; RMSE in minutes on each month of a "
        "model trained on the month before it",
        "models models/green MLflow run green backfill 2023-01 to 2023-04 to see it: ",
        f"sqlite:///{run.directory / 'mlflow.db'}, then open http://",
        " Prefect artifact backfill-report to see it: ",
        f"/artifacts/artifact/{page.id}",
    ):
        assert part in shown


@pytest.mark.usefixtures("prefect_api")
def test_prefect_shows_the_table_the_plot_and_the_progress(
    repeated: Repeated, tmp_path: Path
) -> None:
    run = repeated.runs["beside a champion"]
    artifacts = read_artifacts(run.flow_run.id)
    assert {*artifacts} == {ARTIFACT_KEY, PROGRESS_KEY}
    progress = artifacts[PROGRESS_KEY]
    assert (progress.type, progress.data) == ("progress", 100)
    assert progress.description == "2023-04: RMSE 3.0000 minutes"
    page = artifacts[ARTIFACT_KEY]
    assert page.description == (
        "green 2023-01 to 2023-04: best validation RMSE 2.0000 minutes, 2023-02"
    )
    lines = str(page.data).splitlines()
    (header,) = (line for line in lines if line.startswith("| validated on |"))
    assert header.endswith(" | model | zone-pair median | training mean | champion, version 2 |")
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| 2023")]
    assert rows == read_table(run.output)
    assert not [line for line in lines if line.startswith((" ", "\t", "```"))]
    (picture,) = re.findall(
        r"^!\[RMSE by month\]\(data:image/png;base64,(.*)\)$", str(page.data), re.M
    )
    (logged,) = list_with_champion(run.directory)
    same = read_file(run.directory, logged, PLOT_FILE, tmp_path)
    assert base64.b64decode(picture, validate=True) == same
    assert f"/runs/{logged.info.run_id})" in lines[-1]


def list_with_champion(directory: Path) -> list[MlflowRun]:
    logged = read_logged(directory).backfills
    return [run for run in logged if "champion_rmse" in run.data.metrics]


def test_mlflow_has_the_backfill_as_a_run(repeated: Repeated, tmp_path: Path) -> None:
    directory = repeated.runs["first"].directory
    (logged,) = list_with_champion(directory)
    assert (logged.info.status, logged.info.run_name) == (
        "FINISHED",
        "green backfill 2023-01 to 2023-04",
    )
    assert logged.data.params == {
        "cab": "green",
        "features": "course",
        "alphas": "0",
        "from": "2023-01",
        "to": "2023-04",
        "train_months": "1",
    }
    table = json.loads(read_file(directory, logged, TABLE_FILE, tmp_path))
    history = {
        name: open_store(directory).get_metric_history(logged.info.run_id, name)
        for name in logged.data.metrics
    }
    assert {name: [(each.step, each.value) for each in kept] for name, kept in history.items()} == {
        f"{name}_rmse": [*enumerate(step[name] for step in table)]
        for name in ("model", "zone_pair_median", "mean", "champion")
    }
    assert [(step["champion_version"], step["champion_is_seen"]) for step in table] == [
        ("2", True), ("2", False), ("2", False),
    ]  # fmt: skip
    assert {step["model_id"] for step in table} <= {
        f"green/{name}" for name in list_models(directory)
    }
    assert "champion, version 2 |" in logged.data.tags["mlflow.note.content"]


def test_mlflow_has_each_model_and_no_candidate(repeated: Repeated) -> None:
    directory = repeated.runs["first"].directory
    assert read_logged(directory).models == [*list_models(directory)]
    client = open_store(directory)
    assert len(client.search_model_versions(f"name = '{REGISTERED_MODEL}'")) == 4
    assert client.get_registered_model(REGISTERED_MODEL).aliases.keys() == {CHAMPION}


# Killed, and two at once.


@dataclass(frozen=True)
class Forked:
    """Where backfills ran that were killed or met."""

    directory: Path
    data: Path

    def read_printed(self, name: str) -> str:
        return (self.directory / f"{name}.printed").read_text("utf-8")


@pytest.fixture(scope="module")
def forked(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Forked:
    directory = tmp_path_factory.mktemp("forked")
    data = write_small_months(directory / "data")
    small = [*SMALL_SPAN, "--offline", "--data-dir", str(data)]
    jobs: Mapping[str, list[str]] = {
        BEFORE_LOGGING: small,
        WHILE_LOGGING: small,
        WHILE_LOGGING_BACKFILL: small,
        f"{AT_ONCE} 1": [*small, "--train-months", "2"],
        f"{AT_ONCE} 2": [*small, "--train-months", "2"],
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_backfills", json.dumps(jobs)],
        cwd=directory,
        env=make_environment(PREFECT_API_URL=prefect_server, PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE, text=True, check=True, timeout=600,
    )  # fmt: skip
    forked = Forked(directory, data)
    codes = {name: 0 if name.startswith(AT_ONCE) else -signal.SIGKILL for name in jobs}
    assert json.loads(ran.stdout) == codes, {name: forked.read_printed(name) for name in jobs}
    return forked


def resume(forked: Forked, name: str) -> Run:
    arguments = (*SMALL_SPAN, "--offline", "--data-dir", str(forked.data))
    return run_backfill(forked.directory / name, *arguments)


@pytest.mark.usefixtures("prefect_api")
def test_resumed_backfill_does_what_was_not_done(
    repeated: Repeated, forked: Forked, tmp_path: Path
) -> None:
    resumed, first = resume(forked, WHILE_LOGGING), repeated.runs["first"]
    assert resumed.exit_code == 0
    assert read_table(resumed.output) == read_table(first.output)
    reports = read_reports(resumed.directory)
    assert len(reports) == 3
    (validated_anew,) = (name for name in reports if name.startswith("2023-02-"))
    del reports[validated_anew]
    assert reports.items() <= read_reports(first.directory).items()
    assert (list_reused(resumed), count_fits(resumed)) == (["2023-02", "2023-03"], 1)
    logged = read_logged(resumed.directory)
    assert logged.models == [*list_models(resumed.directory)]
    assert {run.info.status for run in logged.trainings} == {"FINISHED"}
    assert logged.statuses == ["FINISHED"]


@pytest.mark.usefixtures("prefect_api")
def test_model_that_was_saved_and_not_logged_is_logged(forked: Forked) -> None:
    directory = forked.directory / BEFORE_LOGGING
    saved = [*list_models(directory)]
    assert (len(saved), len(read_logged(directory).trainings)) == (2, 1)
    run = resume(forked, BEFORE_LOGGING)
    assert (list_reused(run), count_fits(run)) == (["2023-02", "2023-03"], 1)
    assert read_rmse(run) == {"2023-02": "2.0000", "2023-03": "3.0000", "2023-04": "4.0000"}
    assert read_logged(directory).models == [*list_models(directory)]
    assert [*list_models(directory)][:2] == saved


@pytest.mark.usefixtures("prefect_api")
def test_backfill_that_died_while_it_was_logged_is_logged_once(forked: Forked) -> None:
    directory = forked.directory / WHILE_LOGGING_BACKFILL
    assert read_logged(directory).statuses == ["RUNNING"]
    runs = [resume(forked, WHILE_LOGGING_BACKFILL) for _ in range(2)]
    assert [count_fits(run) for run in runs] == [0, 0]
    logged = read_logged(directory)
    assert logged.statuses == ["FINISHED"]
    assert logged.models == [*list_models(directory)]
    assert read_table(runs[0].output) == read_table(runs[1].output)


def test_two_at_once_leave_what_one_does(forked: Forked) -> None:
    directory = forked.directory / AT_ONCE
    printed = [forked.read_printed(f"{AT_ONCE} {number}") for number in (1, 2)]
    tables = [read_table(text) for text in printed]
    assert tables[0] == tables[1]
    assert [row[:2] for row in tables[0]] == [
        ["2023-03", "2023-01 to 2023-02"],
        ["2023-04", "2023-02 to 2023-03"],
    ]
    logged = read_logged(directory)
    assert logged.models == [*list_models(directory)]
    assert (len(logged.models), logged.statuses) == (2, ["FINISHED"])
    assert [*directory.rglob("*.partial")] == []


@pytest.mark.usefixtures("prefect_api")
def test_without_cache_all_is_fetched_and_trained_again(repeated: Repeated) -> None:
    run = repeated.runs["without cache"]
    assert run.exit_code == 0
    assert repeated.requests["without cache"] == [(month, None) for month in MINUTES]
    assert (list_reused(run), count_fits(run)) == ([], 3)
    messages = "\n".join(read_messages(run))
    assert messages.count(", fetched, sha256 ") == 4
    assert "reused" not in messages
    assert read_table(run.output) == read_table(repeated.runs["first"].output)


def test_without_cache_nothing_is_kept_or_logged_twice(repeated: Repeated) -> None:
    assert repeated.models["without cache"] == repeated.models["first"]
    assert len(repeated.models["first"]) == 3


@pytest.mark.usefixtures("prefect_api")
def test_month_published_anew_is_done_again_and_no_other(repeated: Repeated) -> None:
    run = repeated.runs["published anew"]
    assert [month for month, asked in repeated.requests["published anew"] if asked] == [*MINUTES]
    assert (list_reused(run), count_fits(run)) == (["2023-02"], 2)
    assert read_rmse(repeated.runs["first"]) == {
        "2023-02": "2.0000", "2023-03": "3.0000", "2023-04": "4.0000",
    }  # fmt: skip
    assert read_rmse(run) == {"2023-02": "2.0000", "2023-03": "4.0000", "2023-04": "3.0000"}
    before, after = repeated.models["first"], repeated.models["published anew"]
    # It validates the model of 2023-02 anew, and trains another of 2023-03.
    assert (len(after), before.keys() <= after.keys()) == (4, True)
    kept = {name: report for name, report in before.items() if not name.startswith("2023-02-")}
    assert {name: after[name] for name in kept} == kept
    assert sum("sums of the same bytes reused" in each for each in read_messages(run)) == 3
    assert read_logged(run.directory).models == sorted(after)


def test_champion_is_scored_on_every_month(repeated: Repeated) -> None:
    run = repeated.runs["beside a champion"]
    assert "champion, version 2" in run.output
    assert [row[-1] for row in read_table(run.output)] == [
        "0.0000 (trained on it)",
        "4.0000",
        "7.0000",
    ]
    assert [row[:-1] for row in read_table(run.output)] == read_table(
        repeated.runs["published anew"].output
    )
    assert repeated.models["beside a champion"] == repeated.models["published anew"]


def test_each_table_of_a_span_is_logged_once(repeated: Repeated) -> None:
    tables = {run.output.split("\n  models ")[0] for run in repeated.runs.values()}
    logged = read_logged(repeated.runs["first"].directory)
    assert logged.statuses == ["FINISHED"] * len(tables)
    scored = [run.data.metrics for run in logged.backfills if "champion_rmse" in run.data.metrics]
    assert [each["champion_rmse"] for each in scored] == [pytest.approx(7.0)]


# What stops one.


@pytest.mark.usefixtures("prefect_api")
def test_month_that_breaks_the_contract_stops_no_step_before_it(tmp_path: Path) -> None:
    arguments = (
        "--offline",
        "--data-dir",
        str(write_small_months(tmp_path / "data", **{"2023-03": 0})),
    )
    run = run_backfill(tmp_path, *SMALL_SPAN, *arguments)
    assert run.exit_code == 2
    (line,) = (line for line in run.output.splitlines() if line.startswith("error: "))
    assert "green_tripdata_2023-03.parquet" in line
    assert "drop-off not after pick-up" in line
    (model,) = list_models(tmp_path)
    assert model.startswith("2023-01-")
    logged = read_logged(tmp_path)
    assert (logged.models, logged.backfills) == ([model], [])
    progress = read_artifacts(run.flow_run.id)[PROGRESS_KEY]
    assert progress.data == pytest.approx(100 * 3 / 7, abs=0.01)
    assert progress.description == "2023-02: RMSE 2.0000 minutes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--from", "2023-01", "--to", "2023-01"),
            "from 2023-01 to 2023-01 leaves no month to validate a model trained on 1 month: give "
            "a last month of 2023-02 or later.",
        ),
        (
            ("--from", "2023-01", "--to", "2023-02", "--offline"),
            "data/green_tripdata_2023-01.parquet is missing and offline is set: download ",
        ),
        (
            ("--from", "2023-01", "--to", "2023-06", "--train-months", "all"),
            "train_months 'all' is invalid: input should be a valid integer, unable to parse",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_any_work(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call_taxi_duration("backfill", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_both_ends_of_the_span_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        call_taxi_duration("backfill", "--to", "2023-06")
    assert raised.value.code == 2
    assert "the following arguments are required: --from" in capsys.readouterr().err
