"""The scoring as a flow, on a real Prefect server."""

from pathlib import Path

import pytest

from taxi_duration import InputError
from taxi_duration.flows.predict import ARTIFACT_KEY, predict
from tests.support.months import JANUARY, SAMPLE, write_month
from tests.support.runs import call_taxi_duration, read_artifact, read_task_runs
from tests.support.trained import make_report, save_training, train_on


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = train_on(JANUARY, "course")
    directory = tmp_path_factory.mktemp("models")
    return save_training(directory, training.model, make_report(training))


@pytest.mark.usefixtures("prefect_api")
def test_the_flow_scores_a_month_as_the_command_does(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "predictions" / "2025-02.parquet"
    given = {"input": "2025-02", "data_dir": SAMPLE, "offline": True, "model": str(model)}
    state = predict(**given, output=output, return_state=True)
    assert state.is_completed()
    scored = state.result()
    assert scored.output == output
    assert scored.tally.evaluation is not None
    by_command = tmp_path / "by-command.parquet"
    arguments = ["--input", "2025-02", "--data-dir", str(SAMPLE), "--offline"]
    arguments += ["--output", str(by_command), "--model", str(model)]
    assert call_taxi_duration("predict", *arguments) == 0
    assert by_command.read_bytes() == output.read_bytes()
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    assert read_task_runs(flow_run_id, 4).keys() == {
        "load-model", "download-2025-02", "predict-trips", "publish-predictions",
    }  # fmt: skip
    assert ARTIFACT_KEY == "predictions"
    text, rmse = str(read_artifact(flow_run_id, ARTIFACT_KEY).data), scored.tally.evaluation.rmse
    assert text.startswith("# Predictions of synthetic_green_tripdata_2025-02.parquet\n")
    assert f"| rows | {scored.tally.rows:,} |" in text
    assert f"| realised errors | RMSE {rmse:.6f} minutes, " in text
    assert f"| model | green/{model.name} |" in text


@pytest.mark.usefixtures("prefect_api")
def test_the_flow_scores_a_file_and_refuses_one_that_is_absent(model: Path, tmp_path: Path) -> None:
    source = write_month(tmp_path / "trips.parquet")
    state = predict(
        input=str(source), output=tmp_path / "out.csv", model=str(model), return_state=True
    )
    assert state.result().tally.rows == 12
    assert (tmp_path / "out.csv").read_text("utf-8").count("\n") == 13
    source.unlink()
    refused = predict(
        input=str(source), output=tmp_path / "again.csv", model=str(model), return_state=True
    )
    assert refused.is_failed()
    with pytest.raises(InputError, match=r"trips.parquet does not exist: give a file of trips"):
        refused.result()
    assert not (tmp_path / "again.csv").exists()
