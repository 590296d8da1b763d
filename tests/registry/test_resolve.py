"""Which model: whatever names it, it is found, and loaded without running what lies there."""

import shutil
from collections.abc import Iterator
from logging import WARNING
from pathlib import Path

import mlflow
import pytest
import requests
import skops.io
from prefect import flow
from sklearn.linear_model import LinearRegression

from taxi_duration import InputError, ModelError, SourceError, load_model
from taxi_duration.data.schema import CABS
from taxi_duration.errors import TransientSourceError
from taxi_duration.flows.backfill import find_champion
from taxi_duration.registry.resolve import find_model, load_champion
from taxi_duration.registry.runs import CHAMPION, REGISTERED_MODEL, log_training
from taxi_duration.registry.store import EXPERIMENT, hold_store
from tests.support.months import FEBRUARY, JANUARY
from tests.support.runs import read_logs
from tests.support.trained import make_report, save_training, train_on

GREEN, YELLOW = CABS["green"], CABS["yellow"]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an MLflow store in which a `course` model of January is registered."""
    directory = tmp_path_factory.mktemp("store")
    training = train_on(JANUARY, "course")
    report = make_report(training)
    saved = save_training(directory / "models", training.model, report)
    with pytest.MonkeyPatch.context() as patched:
        uri = f"sqlite:///{directory / 'mlflow.db'}"
        patched.setenv("MLFLOW_TRACKING_URI", uri)
        with hold_store(uri):
            pass
        assert load_champion(GREEN) is None  # nor is anything registered yet
        log_training(GREEN, training.model, saved, report)
    return directory


@pytest.fixture
def store(logged: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    """The store, in which nobody is champion before the test or after it."""
    uri = f"sqlite:///{logged / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow.MlflowClient(uri)
    yield client
    client.delete_registered_model_alias(REGISTERED_MODEL, CHAMPION)


def crown(client: mlflow.MlflowClient, version: str = "1") -> None:
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)


def find_files(client: mlflow.MlflowClient) -> Path:
    """Where the files of version 1 are."""
    version = client.get_model_version(REGISTERED_MODEL, "1")
    (output,) = client.get_run(version.run_id).outputs.model_outputs
    location = client.get_logged_model(output.model_id).artifact_location
    return Path(location.removeprefix("file://"))


def test_the_champion_is_the_version_with_the_alias(
    store: mlflow.MlflowClient, logged: Path
) -> None:
    crown(store)
    champion = load_champion(GREEN)
    assert champion is not None
    (manifest,) = logged.glob("models/green/*/manifest.json")
    assert (champion.version, champion.months) == ("1", ("2025-01",))
    assert champion.model_id == f"green/{manifest.parent.name}"
    assert champion.model.evaluate(FEBRUARY) == load_model(manifest.parent).evaluate(FEBRUARY)


@pytest.mark.parametrize("name", ["directory", "1", "candidate", "champion", "run", "model id"])
def test_a_model_is_found_by_whatever_names_it(
    name: str, store: mlflow.MlflowClient, logged: Path, tmp_path: Path
) -> None:
    crown(store)
    (manifest,) = logged.glob("models/green/*/manifest.json")
    directory, model_id = manifest.parent, f"green/{manifest.parent.name}"
    run_id = store.get_model_version(REGISTERED_MODEL, "1").run_id
    named = {"directory": str(directory), "run": str(run_id), "model id": model_id}
    found = find_model(named.get(name, name), GREEN)
    is_here = name == "directory"
    assert (found.model_id, found.version) == (model_id, None if is_here else "1")
    assert found.place == (
        str(directory) if is_here else f"MLflow run {run_id} in {store.tracking_uri}"
    )
    assert (found.months, found.is_synthetic) == (("2025-01",), False)
    assert found.report.model_id == model_id
    if name == "model id":  # which is looked for below a models directory too
        assert find_model(model_id, GREEN, logged / "models").place == str(directory)
    with pytest.raises(InputError, match="of another cab type, green, than yellow"):
        find_model(named.get(name, "1"), YELLOW)


@pytest.mark.parametrize(
    "name", ["2", "a" * 32, "green/2023-01-1a2b3c4d", "alias", "'--", "champion"]
)
def test_what_nobody_knows_is_not_found(
    name: str, store: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store)
    store.delete_registered_model_alias(REGISTERED_MODEL, CHAMPION)
    with pytest.raises(InputError) as raised:
        find_model(name, GREEN)
    assert store.tracking_uri in raised.value.problem
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(InputError, match="is not there: train a model first"):
        find_model(name, GREEN)
    assert [*tmp_path.iterdir()] == []
    crown(store)


def test_without_an_alias_there_is_no_champion(store: mlflow.MlflowClient) -> None:
    assert load_champion(GREEN) is None


def test_the_champion_of_another_cab_type_is_none(store: mlflow.MlflowClient) -> None:
    crown(store)
    store.set_registered_model_alias(REGISTERED_MODEL, "champion-yellow", "1")
    assert load_champion(YELLOW) is None
    store.delete_registered_model_alias(REGISTERED_MODEL, "champion-yellow")


def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert load_champion(GREEN) is None
    assert [*tmp_path.iterdir()] == []


def test_a_store_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:MLSECRET@127.0.0.1:9")
    with pytest.raises(SourceError, match=r"MLflow store http://127.0.0.1:9 failed ") as raised:
        load_champion(GREEN)
    assert "MLSECRET" not in str(raised.value)


def test_the_code_that_is_logged_with_a_model_is_not_run(store: mlflow.MlflowClient) -> None:
    crown(store)
    (code,) = find_files(store).glob("code/taxi_duration/__init__.py")
    content = code.read_text()
    code.write_text("raise SystemExit('the code of the store was run')")
    try:
        assert load_champion(GREEN) is not None
    finally:
        code.write_text(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such artifact: 'model.skops'"),
        (b"garbage", "File is not a zip file"),
        (skops.io.dumps(LinearRegression()), "it is a LinearRegression"),
        (skops.io.dumps(shutil.rmtree), r"Untrusted types found in the file: \['shutil"),
    ],
    ids=["none", "garbage", "another model", "a function"],
)
def test_a_model_that_is_not_ours_is_refused(
    content: bytes | None, reason: str, store: mlflow.MlflowClient
) -> None:
    crown(store)
    model = find_files(store) / "model.skops"
    whole = model.read_bytes()
    model.unlink()
    if content is not None:
        model.write_bytes(content)
    try:
        with pytest.raises(ModelError, match=reason) as raised:
            load_champion(GREEN)
    finally:
        model.write_bytes(whole)
    message = str(raised.value)
    assert message.startswith("champion, version 1 of nyc-taxi-duration, cannot be loaded (")
    assert message.endswith(
        "): make another one champion: `python -m taxi_duration promote VERSION`."
    )


def test_a_version_that_another_made_is_refused(store: mlflow.MlflowClient, tmp_path: Path) -> None:
    other = store.create_model_version(REGISTERED_MODEL, tmp_path.as_uri())
    crown(store, other.version)
    with pytest.raises(ModelError, match=r"version 2 .*no run of this pipeline logged it\): make"):
        load_champion(GREEN)
    store.delete_model_version(REGISTERED_MODEL, other.version)


@pytest.mark.parametrize("lost", ["model.skops", "report.json"])
def test_a_store_that_is_lost_on_the_way_is_asked_again(
    lost: str, store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = mlflow.artifacts.download_artifacts

    def lose(uri: str, **options: str) -> str:
        if uri.endswith(lost):
            raise requests.ConnectionError("connection reset")
        return str(download(uri, **options))

    crown(store)
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lose)
    with pytest.raises(TransientSourceError, match=r"^MLflow store .* failed \(connection reset\)"):
        load_champion(GREEN)


def test_a_run_that_ended_early_is_refused(store: mlflow.MlflowClient) -> None:
    experiment = store.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tags = {"model_id": "green/2025-01-00000000"}
    run_id = store.create_run(experiment.experiment_id, tags=tags).info.run_id
    crown(store)
    with pytest.raises(ModelError, match="its training ended before it was logged"):
        find_model(run_id)
    store.delete_run(run_id)


@flow
def look_for_champion() -> bool:
    return find_champion(GREEN) is not None


@pytest.mark.usefixtures("prefect_api")
def test_a_champion_that_cannot_be_loaded_ends_no_run(
    store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    other = store.create_model_version(REGISTERED_MODEL, tmp_path.as_uri())
    crown(store, other.version)
    state = look_for_champion(return_state=True)
    assert state.result() is False
    (log,) = [
        log
        for log in read_logs(state.state_details.flow_run_id, awaited="not compared")
        if "not compared" in log.message
    ]
    assert log.level == WARNING
    assert log.message.startswith("models are not compared with the champion: champion, version")
    store.delete_model_version(REGISTERED_MODEL, other.version)
