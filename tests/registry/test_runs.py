import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.models import Model

import orchestrate
import orchestrate_s3
from orchestrate import main_flow
from orchestrate_s3 import main_flow_s3
from taxi_duration import InputError, SourceError, load_model
from taxi_duration.cli.train import run_from_command_line
from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.report import collect_metrics, load_report
from taxi_duration.flows.options import LocalOptions, S3Options
from taxi_duration.registry.runs import CANDIDATE, REGISTERED_MODEL, log_training
from taxi_duration.registry.store import EXPERIMENT
from taxi_duration.settings import check_tracking_uri, resolve_tracking_uri
from tests.conftest import REPOSITORY
from tests.support.months import JANUARY
from tests.support.runs import Run
from tests.support.servers import make_environment
from tests.support.trained import make_report, save_training, train_on

COURSE_2021 = ("--year", "2021", "--month", "1", "--features", "course")
PREDICT_FROM_A_STORE = """
import sys
import mlflow, numpy, pandas
store, model, trips, predictions = sys.argv[1:]
mlflow.set_tracking_uri(store)
trips = pandas.read_parquet(trips)
of_pyfunc = mlflow.pyfunc.load_model(model).predict(trips)
of_sklearn = mlflow.sklearn.load_model(model).predict(trips)
numpy.save(predictions, [of_pyfunc, of_sklearn])
"""


def store_of(run: Run) -> str:
    return f"sqlite:///{run.directory / 'mlflow.db'}"


def read_runs(store: str) -> list[MlflowRun]:
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(scope="module")
def run(train_on_real_months: Callable[..., Run]) -> Run:
    return train_on_real_months(*COURSE_2021)


@pytest.fixture(scope="module")
def tracked(run: Run) -> MlflowRun:
    (tracked,) = read_runs(store_of(run))
    return tracked


def test_run_has_parameters_and_metrics(run: Run, tracked: MlflowRun) -> None:
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params == {
        "cab": "green",
        "features": "course",
        "alpha": "0.0",
        "train_months": "2021-01",
        "validation_month": "2021-02",
    }
    assert tracked.data.metrics == collect_metrics(load_report(run.model_directory))
    assert tracked.data.metrics["validation_rmse"] == run.report["validation"]["rmse"]


def test_each_alpha_tried_is_a_run_inside_the_training_run(
    train_on_real_months: Callable[..., Run],
) -> None:
    run = train_on_real_months("--year", "2023", "--month", "1")
    runs = read_runs(store_of(run))
    (parent,) = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    trials = [each for each in runs if each is not parent]
    assert {each.data.tags["mlflow.parentRunId"] for each in trials} == {parent.info.run_id}
    assert {each.info.status for each in trials} == {"FINISHED"}
    tried = {float(t.data.params["alpha"]): t.data.metrics["held_out_rmse"] for t in trials}
    assert tried == {trial["alpha"]: trial["rmse"] for trial in run.report["trials"]}
    assert len(tried) == 3
    assert float(parent.data.params["alpha"]) == min(tried, key=lambda alpha: tried[alpha])


def test_run_is_tagged_with_its_inputs_and_code(run: Run, tracked: MlflowRun) -> None:
    tags = tracked.data.tags
    for file, digest in run.report["inputs"].items():
        assert tags[f"sha256.{file}"] == digest
    head = subprocess.run(
        ["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert tags["git_commit"].removesuffix("-dirty") == (head.stdout.strip() or "unknown")


def test_report_is_an_artifact_of_the_run(run: Run, tracked: MlflowRun, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(store_of(run))
    report = Path(client.download_artifacts(tracked.info.run_id, "report.json", str(tmp_path)))
    assert report.read_bytes() == run.report_bytes


def test_logged_model_predicts_where_this_package_is_not(
    run: Run, tracked: MlflowRun, real_data: Path, tmp_path: Path
) -> None:
    trips = pd.read_parquet(real_data / "green_tripdata_2021-02.parquet").head(1000)
    trips.to_parquet(tmp_path / "trips.parquet")
    (model,) = tracked.outputs.model_outputs
    arguments = [store_of(run), f"models:/{model.model_id}", "trips.parquet", "predictions.npy"]
    subprocess.run(
        [sys.executable, "-c", PREDICT_FROM_A_STORE, *arguments], cwd=tmp_path, check=True
    )
    expected = load_model(run.model_directory).predict(trips)
    assert np.load(tmp_path / "predictions.npy").tolist() == [expected.tolist()] * 2


def test_logged_model_has_a_signature_and_an_example(run: Run, tracked: MlflowRun) -> None:
    (output,) = tracked.outputs.model_outputs
    client = mlflow.MlflowClient(store_of(run))
    location = client.get_logged_model(output.model_id).artifact_location
    directory = Path(location.removeprefix("file://"))
    model = Model.load(directory)
    assert model.signature.inputs.input_names() == [
        "lpep_pickup_datetime", "PULocationID", "DOLocationID", "trip_distance",
    ]  # fmt: skip
    assert (directory / model.saved_input_example_info["artifact_path"]).is_file()
    assert not [*directory.rglob("*.pkl")]


def test_run_is_registered_as_the_candidate(run: Run, tracked: MlflowRun) -> None:
    client = mlflow.MlflowClient(store_of(run))
    (version,) = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    (model,) = tracked.outputs.model_outputs
    assert (version.run_id, version.source) == (tracked.info.run_id, f"models:/{model.model_id}")
    identity = f"green/{run.model_directory.name}"
    assert version.tags["model_id"] == tracked.data.tags["model_id"] == identity
    candidate = client.get_model_version_by_alias(REGISTERED_MODEL, CANDIDATE)
    assert candidate.version == version.version
    logged = client.get_logged_model(model.model_id)
    assert logged.tags["mlflow.modelVersions"].count(REGISTERED_MODEL) == 1
    (shown,) = [metric for metric in logged.metrics if metric.key == "validation_rmse"]
    assert shown.value == run.report["validation"]["rmse"]


def test_a_repeated_run_is_found_and_not_logged_again(
    run: Run, tracked: MlflowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_of(run))
    model, report = load_model(run.model_directory), load_report(run.model_directory)
    logged = log_training(CABS["green"], model, run.model_directory, report)
    assert (logged.run_id, logged.version) == (tracked.info.run_id, "1")
    assert [made.info.run_id for made in read_runs(store_of(run))] == [tracked.info.run_id]


def test_every_working_directory_has_a_store_of_its_own(
    run: Run, train_on_real_months: Callable[..., Run]
) -> None:
    other = train_on_real_months("--year", "2023", "--month", "1", "--features", "course")
    for each, month in ((run, "2021-01"), (other, "2023-01")):
        assert [made.data.params["train_months"] for made in read_runs(store_of(each))] == [month]


def test_operator_names_another_store(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path / 'deep' / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    model, report = load_model(run.model_directory), load_report(run.model_directory)
    logged = log_training(CABS["green"], model, run.model_directory, report)
    assert [made.info.run_id for made in read_runs(store)] == [logged.run_id]
    assert not (tmp_path / "mlflow.db").exists()


UNKNOWN = "it is neither an MLflow server nor a sqlite, postgresql, mysql or mssql database"
NO_FILE = "it is no file of its own; write sqlite:///path, without driver or host"
ALTERED = "its path has a ?; choose one without"
MALFORMED = "its host or port is none; correct it (signs in a password are percent-encoded)"
NO_DRIVER = "its driver is not installed here (No module named '"


@pytest.mark.parametrize(
    ("uri", "shown", "fault"),
    [
        ("sqlite://", "sqlite://", NO_FILE),
        ("sqlite:///", "sqlite:///", NO_FILE),
        ("sqlite:///:memory:", "sqlite:///:memory:", NO_FILE),
        ("sqlite+pysqlite:///b.db", "sqlite+pysqlite:///b.db", NO_FILE),
        ("sqlite://host/b.db", "sqlite://host/b.db", NO_FILE),
        ("sqlite:///b.db?timeout=3", "sqlite:///b.db?timeout=3", ALTERED),
        ("sqlite:////", "sqlite:////", "it is a directory; add the name of a file"),
        ("mlruns", "mlruns", UNKNOWN),
        ("file:///mlruns", "file:///mlruns", UNKNOWN),
        ("databricks", "databricks", UNKNOWN),
        ("ftp://user:MLSECRET@host", "ftp://host", UNKNOWN),
        ("user:MLSECRET@host:5000", "host:5000", UNKNOWN),
        ("http://", "http://", MALFORMED),
        ("http://[::1", "http://[::1", MALFORMED),
        ("http://user:ML/SECRET@host", "http://host", MALFORMED),
        ("http://host:none", "http://host:none", MALFORMED),
        ("postgresql://host:none/db", "postgresql://host:none/db", MALFORMED),
        ("https://host?token=MLSECRET", "https://host?...", "it has a query or a fragment; leave"),
        ("postgresql://user:MLSECRET@host/db", "postgresql://host/db", NO_DRIVER),
        ("mysql://user:ML/SECRET@host/db", "mysql://host/db", NO_DRIVER),
        ("mysql+none://host/db", "mysql+none://host/db", "SQLAlchemy knows no mysql+none; correct"),
    ],
)
def test_an_address_that_cannot_be_logged_to_is_refused(
    uri: str, shown: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError) as raised:
        check_tracking_uri()
    message = str(raised.value)
    assert message.startswith(f"MLflow store '{shown}' cannot be used: {fault}")
    assert message.endswith(
        ", or name another store in MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db or "
        "https://host."
    )
    assert "SECRET" not in message


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///b.db",
        "sqlite:///a%20b.db",
        "sqlite:////50%/me@home/#1 é/b.db",
        "https://user:pw@[::1]:5000/ml",
    ],
)
def test_an_address_that_can_be_logged_to_is_taken_as_it_is(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert resolve_tracking_uri() == uri


def test_a_working_directory_that_no_sqlite_address_can_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "why?").mkdir()
    monkeypatch.chdir(tmp_path / "why?")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError) as raised:
        check_tracking_uri()
    refused = f"MLflow store 'sqlite:///{tmp_path}/why?/mlflow.db' cannot be used: {ALTERED}, or"
    assert str(raised.value).startswith(refused)


@pytest.mark.parametrize("token", ["MLSECRET\n", "MLSECRET\u20ac"])
def test_a_token_that_no_request_can_carry_is_refused_and_not_repeated(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_TOKEN has a line break or") as raised:
        check_tracking_uri()
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("of", ["local", "s3"])
def test_a_flow_refuses_a_wrong_address_before_any_work(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite://")
    month = ("--year", "2023", "--month", "1")
    if of == "local":
        code = run_from_command_line(main_flow, LocalOptions, orchestrate.prepare, month)
    else:
        code = run_from_command_line(main_flow_s3, S3Options, orchestrate_s3.prepare, month)
    assert code == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith("error: MLflow store 'sqlite://' cannot be used: it is no file of")
    assert [*tmp_path.iterdir()] == []


def test_an_address_is_checked_without_importing_mlflow() -> None:
    check = "import sys, taxi_duration.settings as t; t.check_tracking_uri(); "
    command = [sys.executable, "-c", f"{check}sys.exit('mlflow' in sys.modules)"]
    subprocess.run(command, cwd=REPOSITORY, env=make_environment(), check=True)


def test_a_password_in_the_address_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:MLSECRET@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trained = train_on(JANUARY, "course")
    model, report = trained.model, make_report(trained)
    with pytest.raises(SourceError, match=r"MLflow store http://127.0.0.1:9 failed \(") as caught:
        log_training(CABS["green"], model, save_training(tmp_path, model, report), report)
    assert "MLSECRET" not in str(caught.value)
    assert "MLSECRET" not in "".join(capfd.readouterr())
