"""Backfills by their command: over real months, resumed, of months published anew, at once."""

import base64
import inspect
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import mlflow
import pytest
from mlflow.entities import Run as MlflowRun
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
)
from prefect.client.schemas.objects import Artifact, FlowRun

from taxi_duration.data.month import Month
from taxi_duration.flows.backfill import backfill
from taxi_duration.flows.backfill_report import ARTIFACT_KEY
from taxi_duration.flows.progress import BACKFILL_KEY
from taxi_duration.flows.walk_forward import BackfillOptions
from taxi_duration.model.directory import load_model
from taxi_duration.registry.backfill_run import BACKFILL_ID, PLOT_FILE, TABLE_FILE
from taxi_duration.registry.mlflow_store import EXPERIMENT, MODEL_ID, PARENT
from taxi_duration.registry.tracking import CHAMPION, REGISTERED_MODEL
from tests.conftest import REPOSITORY, connected_to
from tests.support.killed_backfills import AT_ONCE, KILLED
from tests.support.months import identify, write_month
from tests.support.runs import Run, call_taxi_duration, read_logs, run_backfill
from tests.support.servers import make_environment
from tests.support.web import Tlc, serve_tlc

REAL_SPAN = ("--from", "2023-01", "--to", "2023-06")
SMALL_SPAN = ("--from", "2023-01", "--to", "2023-04", "--features", "course")
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


# Over real months.


@pytest.fixture(scope="module")
def real_arguments(real_data: Path) -> tuple[str, ...]:
    return (*REAL_SPAN, "--offline", "--data-dir", str(real_data))


@pytest.fixture(scope="module")
def uninterrupted(
    prefect_server: str, real_arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    directory = tmp_path_factory.mktemp("uninterrupted")
    with connected_to(prefect_server):
        return run_backfill(directory, *real_arguments)


def test_real_months_give_the_known_figures(uninterrupted: Run) -> None:
    assert uninterrupted.exit_code == 0
    assert [row[:4] for row in read_table(uninterrupted.output)] == [
        ["2023-02", "2023-01", "62,574", "4.5229"],
        ["2023-03", "2023-02", "69,392", "4.6847"],
        ["2023-04", "2023-03", "62,979", "4.6974"],
        ["2023-05", "2023-04", "66,313", "4.8662"],
        ["2023-06", "2023-05", "62,784", "4.9717"],
    ]
    baselines = [row[4:] for row in read_table(uninterrupted.output)]
    assert baselines[:2] == [["6.6424", "9.3221"], ["6.7760", "9.5755"]]


@pytest.mark.usefixtures("prefect_api")
def test_summary_says_what_it_is_and_where_everything_is(uninterrupted: Run) -> None:
    page = read_artifacts(uninterrupted.flow_run.id)[ARTIFACT_KEY]
    (logged,) = read_logged(uninterrupted.directory).backfills
    shown = " ".join(uninterrupted.output.split())
    for part in (
        "green trips, extended features, 2023-01 to 2023-06; RMSE in minutes on each month of a "
        "model trained on the month before it",
        "RMSE in minutes, by validation month",
        "models models/green MLflow run green backfill 2023-01 to 2023-06 to see it: ",
        f"sqlite:///{uninterrupted.directory / 'mlflow.db'}, then open http://",
        f"/runs/{logged.info.run_id} Prefect artifact backfill-report to see it: ",
        f"/artifacts/artifact/{page.id}",
    ):
        assert part in shown


@pytest.mark.usefixtures("prefect_api")
def test_prefect_shows_the_table_the_plot_and_the_progress(
    uninterrupted: Run, tmp_path: Path
) -> None:
    artifacts = read_artifacts(uninterrupted.flow_run.id)
    assert {*artifacts} == {ARTIFACT_KEY, BACKFILL_KEY}
    progress = artifacts[BACKFILL_KEY]
    assert (progress.type, progress.data) == ("progress", 100)
    assert progress.description == "2023-06: RMSE 4.9717 minutes"
    page = artifacts[ARTIFACT_KEY]
    assert page.description == (
        "green 2023-01 to 2023-06: best validation RMSE 4.5229 minutes, 2023-02"
    )
    lines = str(page.data).splitlines()
    assert (
        "| validated on | trained on | trips | model | zone-pair median | training mean |" in lines
    )
    assert "| 2023-02 | 2023-01 | 62,574 | 4.5229 | 6.6424 | 9.3221 |" in lines
    assert not [line for line in lines if line.startswith((" ", "\t", "```"))]
    (picture,) = re.findall(
        r"^!\[RMSE by month\]\(data:image/png;base64,(.*)\)$", str(page.data), re.M
    )
    (logged,) = read_logged(uninterrupted.directory).backfills
    same = read_file(uninterrupted.directory, logged, PLOT_FILE, tmp_path)
    assert base64.b64decode(picture, validate=True) == same
    assert f"/runs/{logged.info.run_id})" in lines[-1]


def test_mlflow_has_the_backfill_as_a_run(uninterrupted: Run, tmp_path: Path) -> None:
    directory = uninterrupted.directory
    (logged,) = read_logged(directory).backfills
    assert (logged.info.status, logged.info.run_name) == (
        "FINISHED",
        "green backfill 2023-01 to 2023-06",
    )
    assert logged.data.params == {
        "cab": "green",
        "features": "extended",
        "alphas": "1,3,10",
        "from": "2023-01",
        "to": "2023-06",
        "train_months": "1",
    }
    table = json.loads(read_file(directory, logged, TABLE_FILE, tmp_path))
    history = {
        name: open_store(directory).get_metric_history(logged.info.run_id, name)
        for name in logged.data.metrics
    }
    assert {name: [(each.step, each.value) for each in kept] for name, kept in history.items()} == {
        f"{name}_rmse": [*enumerate(step[name] for step in table)]
        for name in ("model", "zone_pair_median", "mean")
    }
    assert [step["model_id"] for step in table] == [
        f"green/{name}" for name in list_models(directory)
    ]
    assert "| 2023-02 | 2023-01 | 62,574 | 4.5229 |" in logged.data.tags["mlflow.note.content"]


def test_mlflow_has_each_model_and_no_candidate(uninterrupted: Run) -> None:
    assert read_logged(uninterrupted.directory).models == [*list_models(uninterrupted.directory)]
    client = open_store(uninterrupted.directory)
    assert len(client.search_model_versions(f"name = '{REGISTERED_MODEL}'")) == 5
    assert client.get_registered_model(REGISTERED_MODEL).aliases == {}


# Killed, and two at once.


@dataclass(frozen=True)
class Forked:
    """Where backfills ran that were killed or met, and the flow runs they left running."""

    directory: Path
    data: Path
    left: list[FlowRun]

    def read_printed(self, name: str) -> str:
        return (self.directory / f"{name}.printed").read_text("utf-8")


def read_flow_runs() -> list[FlowRun]:
    ours = FlowFilter(name=FlowFilterName(any_=["backfill"]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=ours)


@pytest.fixture(scope="module")
def forked(
    prefect_server: str, real_arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Forked:
    directory = tmp_path_factory.mktemp("forked")
    data = write_small_months(directory / "data")
    small = [*SMALL_SPAN, "--offline", "--data-dir", str(data)]
    jobs: Mapping[str, list[str]] = {
        BEFORE_LOGGING: small,
        WHILE_LOGGING: [*real_arguments],
        WHILE_LOGGING_BACKFILL: small,
        f"{AT_ONCE} 1": [*small, "--train-months", "2"],
        f"{AT_ONCE} 2": [*small, "--train-months", "2"],
    }
    with connected_to(prefect_server):
        before = {run.id for run in read_flow_runs()}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_backfills", json.dumps(jobs)],
        cwd=directory,
        env=make_environment(PREFECT_API_URL=prefect_server, PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE, text=True, check=True, timeout=600,
    )  # fmt: skip
    forked = Forked(directory, data, [])
    codes = {name: 0 if name.startswith(AT_ONCE) else -signal.SIGKILL for name in jobs}
    assert json.loads(ran.stdout) == codes, {name: forked.read_printed(name) for name in jobs}
    with connected_to(prefect_server):
        begun = [run for run in read_flow_runs() if run.id not in before]
    forked.left.extend(run for run in begun if run.state_name != "Completed")
    return forked


def resume(forked: Forked, name: str, *arguments: str) -> Run:
    return run_backfill(forked.directory / name, *arguments)


@pytest.fixture(scope="module")
def resumed(prefect_server: str, forked: Forked, real_arguments: tuple[str, ...]) -> Iterator[Run]:
    """The backfill over the real months, killed while its second model was logged, run again."""
    with connected_to(prefect_server):
        yield resume(forked, WHILE_LOGGING, *real_arguments)


def test_resumed_backfill_has_the_same_table(
    uninterrupted: Run, resumed: Run, tmp_path: Path
) -> None:
    assert resumed.exit_code == 0
    ours, theirs = (run.output.split("\n  models ")[0] for run in (resumed, uninterrupted))
    assert ours[ours.index("validated on") :] == theirs[theirs.index("validated on") :]
    assert read_reports(resumed.directory) == read_reports(uninterrupted.directory)
    tables = [
        read_file(run.directory, read_logged(run.directory).backfills[0], TABLE_FILE, tmp_path)
        for run in (resumed, uninterrupted)
    ]
    assert tables[0] == tables[1]


@pytest.mark.usefixtures("prefect_api")
def test_resumed_backfill_does_what_was_not_done(resumed: Run) -> None:
    assert list_reused(resumed) == ["2023-02", "2023-03"]
    assert count_fits(resumed) == 3
    logged = read_logged(resumed.directory)
    assert logged.models == [*list_models(resumed.directory)]
    assert {run.info.status for run in logged.trainings} == {"FINISHED"}
    assert logged.statuses == ["FINISHED"]


@pytest.mark.usefixtures("prefect_api")
def test_resumed_backfill_closes_the_killed_ones(forked: Forked, resumed: Run) -> None:
    assert len(forked.left) == len(KILLED)
    states = {run.id: run.state for run in read_flow_runs()}
    for run in forked.left:
        state = states[run.id]
        assert state is not None
        assert state.name == "Crashed"
        assert re.match(r"Its process \d+ on \S+ ended without a word", state.message or "")


@pytest.mark.usefixtures("prefect_api")
def test_model_that_was_saved_and_not_logged_is_logged(forked: Forked) -> None:
    directory = forked.directory / BEFORE_LOGGING
    saved = [*list_models(directory)]
    assert (len(saved), len(read_logged(directory).trainings)) == (2, 1)
    run = resume(forked, BEFORE_LOGGING, *SMALL_SPAN, "--offline", "--data-dir", str(forked.data))
    assert (list_reused(run), count_fits(run)) == (["2023-02", "2023-03"], 1)
    assert read_rmse(run) == {"2023-02": "2.0000", "2023-03": "3.0000", "2023-04": "4.0000"}
    assert read_logged(directory).models == [*list_models(directory)]
    assert [*list_models(directory)][:2] == saved


@pytest.mark.usefixtures("prefect_api")
def test_backfill_that_died_while_it_was_logged_is_logged_once(forked: Forked) -> None:
    directory = forked.directory / WHILE_LOGGING_BACKFILL
    assert read_logged(directory).statuses == ["RUNNING"]
    arguments = (*SMALL_SPAN, "--offline", "--data-dir", str(forked.data))
    runs = [resume(forked, WHILE_LOGGING_BACKFILL, *arguments) for _ in range(2)]
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
    assert len(after) == 5
    assert {name: after[name] for name in before} == before
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


# With a champion.


@dataclass(frozen=True)
class Crowned:
    """A backfill repeated while the model of February is champion, and its RMSE by month."""

    run: Run
    rmse: dict[str, float]
    version: str

    @property
    def shown(self) -> list[str]:
        """How the column of the champion reads."""
        seen = {"2023-02": " (trained on it)"}
        return [f"{rmse:.4f}{seen.get(month, '')}" for month, rmse in self.rmse.items()]

    @property
    def column(self) -> str:
        return f"champion, version {self.version}"


@pytest.fixture(scope="module")
def crowned(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Crowned:
    directory = tmp_path_factory.mktemp("crowned")
    data = write_small_months(directory / "data")
    arguments = (*SMALL_SPAN, "--offline", "--data-dir", str(data))
    with connected_to(prefect_server):
        assert run_backfill(directory, *arguments).exit_code == 0
        (path,) = directory.glob("models/green/2023-02-*")
        client = open_store(directory)
        (version,) = (
            each.version
            for each in client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
            if client.get_run(each.run_id).data.tags[MODEL_ID] == f"green/{path.name}"
        )
        client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
        run = run_backfill(directory, *arguments)
    model = load_model(path)
    months = {month: data / f"green_tripdata_{month}.parquet" for month in [*MINUTES][1:]}
    return Crowned(run, {m: model.evaluate(file).rmse for m, file in months.items()}, str(version))


@pytest.mark.usefixtures("prefect_api")
def test_champion_is_scored_on_each_month_of_reused_models(crowned: Crowned) -> None:
    assert crowned.run.exit_code == 0, crowned.run.output
    assert (list_reused(crowned.run), count_fits(crowned.run)) == ([*crowned.rmse], 0)
    assert [row[-1] for row in read_table(crowned.run.output)] == crowned.shown
    assert crowned.shown == ["0.0000 (trained on it)", "3.0000", "7.0000"]
    assert crowned.column in crowned.run.output
    assert read_rmse(crowned.run) == {"2023-02": "2.0000", "2023-03": "3.0000", "2023-04": "4.0000"}


@pytest.mark.usefixtures("prefect_api")
def test_champion_is_in_the_table_that_prefect_shows(crowned: Crowned) -> None:
    page = read_artifacts(crowned.run.flow_run.id)[ARTIFACT_KEY]
    lines = str(page.data).splitlines()
    (header,) = (line for line in lines if line.startswith("| validated on |"))
    assert header.endswith(f"| training mean | {crowned.column} |")
    shown = [line.split(" | ")[-1].removesuffix(" |") for line in lines if line[:6] == "| 2023"]
    assert shown == crowned.shown


def test_champion_is_a_metric_of_the_backfill_in_mlflow(crowned: Crowned, tmp_path: Path) -> None:
    directory = crowned.run.directory
    with_champion, without = sorted(
        read_logged(directory).backfills, key=lambda run: "champion_rmse" not in run.data.metrics
    )
    assert "champion_rmse" not in without.data.metrics
    history = open_store(directory).get_metric_history(with_champion.info.run_id, "champion_rmse")
    assert [(each.step, each.value) for each in history] == [*enumerate(crowned.rmse.values())]
    table = json.loads(read_file(directory, with_champion, TABLE_FILE, tmp_path))
    assert [(step["champion_version"], step["champion_is_seen"]) for step in table] == [
        (crowned.version, month == "2023-02") for month in crowned.rmse
    ]
    assert f"| {crowned.column} |" in with_champion.data.tags["mlflow.note.content"]


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
    progress = read_artifacts(run.flow_run.id)[BACKFILL_KEY]
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
            ("--from", "2023-1", "--to", "2023-06"),
            "month '2023-1' is not of the form YYYY-MM: give one such as 2023-01.",
        ),
        (
            ("--from", "2023-01", "--to", "2023-02", "--offline"),
            "data/green_tripdata_2023-01.parquet is missing and offline is set: download ",
        ),
        (
            ("--from", "2023-01", "--to", "2023-06", "--train-months", "all"),
            "train_months 'all' is not a whole number: give one such as 3.",
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


def test_flow_takes_exactly_its_options() -> None:
    parameters = inspect.signature(backfill.fn).parameters
    assert {
        name: None if each.default is inspect.Parameter.empty else each.default
        for name, each in parameters.items()
    } == {
        name: None if field.is_required() else field.default
        for name, field in BackfillOptions.model_fields.items()
    }
