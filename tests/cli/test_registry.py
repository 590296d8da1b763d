"""`history`, `promote`, `rollback` and `show champion` as a person types them."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest

from taxi_duration.registry import champion
from taxi_duration.registry.runs import REGISTERED_MODEL
from taxi_duration.reports.terminal import find_program
from tests.support.registered import GATE, IDS, RMSE, Registered, read_aliases
from tests.support.runs import call_taxi_duration
from tests.support.servers import find_free_port


class Clock:
    """In the place of datetime: every time it is asked it is a day later."""

    days = 0

    @classmethod
    def now(cls, zone: Any) -> datetime:
        cls.days += 1
        return datetime(2026, 1, 1, 12, 30, 5, tzinfo=zone) + timedelta(days=cls.days - 1)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "days", 0)
    monkeypatch.setattr(champion, "datetime", Clock)
    monkeypatch.setattr(champion, "_describe_user", lambda: "ann@host")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it printed."""
    capsys.readouterr()
    code = call_taxi_duration(*arguments)
    output, errors = capsys.readouterr()
    assert not (output and errors)
    return code, output or errors


@pytest.fixture
def story(
    registry: mlflow.MlflowClient, registered: Registered, capsys: pytest.CaptureFixture[str]
) -> mlflow.MlflowClient:
    """Version 2, which the gate refused, was promoted, rolled back, and set elsewhere."""
    registered.log("2", GATE)
    for arguments, said in (
        (("promote", "1"), "version 1 is champion now; there was none.\n"),
        (("promote", "2"), "version 2 is champion now, in place of version 1.\n"),
        (("rollback",), "version 1 is champion again, in place of version 2.\n"),
        (("promote", "1"), "version 1 is champion already: nothing was changed.\n"),
    ):
        assert call(capsys, *arguments) == (0, said)
    registry.set_registered_model_alias(REGISTERED_MODEL, "champion", "3")
    return registry


def test_history_lists_versions_and_changes(
    story: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, output = call(capsys, "history")
    assert code == 0
    expected = (Path(__file__).parent / "history.txt").read_text("utf-8")
    assert output == expected.format(store=f"sqlite:///{tmp_path}/mlflow.db")


def test_history_as_json_has_all_of_it(
    story: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, output = call(capsys, "history", "--json")
    found = json.loads(output)
    assert (code, [*found]) == (0, ["cab", "store", "champion", "versions", "events"])
    assert (found["cab"], found["champion"]) == ("green", "3")
    assert found["store"] == f"sqlite:///{tmp_path}/mlflow.db"
    run_id = story.get_model_version(REGISTERED_MODEL, "2").run_id
    page = found["versions"][1].pop("page")
    assert page.endswith(f"/runs/{run_id}")
    assert found["versions"][1] == {
        "version": "2",
        "model_id": IDS["2"],
        "trained_on": ["2023-02"],
        "validated_on": "2023-03",
        "rmse": RMSE["2"],
        "verdict": "not promoted",
        "reasons": GATE["reasons"],
        "against": IDS["1"],
        "run_id": run_id,
        "champion": [{"from": "2026-01-03T12:30:05+00:00", "to": "2026-01-05T12:30:05+00:00"}],
        "is_synthetic": False,
    }
    assert found["events"][2] == {
        "at": "2026-01-05T12:30:05+00:00",
        "kind": "rollback",
        "version": "1",
        "previous": "2",
        "reason": "Rolled back by hand.",
        "by": "ann@host",
        "earlier": [],
    }


def test_show_champion_says_what_it_is_and_how_to_use_it(
    story: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(capsys, "rollback")[0] == 0
    run = story.get_run(str(story.get_model_version(REGISTERED_MODEL, "1").run_id)).info
    code, output = call(capsys, "show", "champion")
    assert code == 0
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert (
        output
        == f"""
green champion: version 1 of nyc-taxi-duration
  model             green/2023-01-aaaaaaaa
  trained on        2023-01
  validated on      2023-02, RMSE 5.500000 minutes
  champion since    2026-01-07 12:30:05 UTC, rollback by ann@host
  why               Rolled back by hand.
  to use it         {find_program("python")} -m taxi_duration predict --model champion --input \
FILE_OR_MONTH --output FILE
                    in Python: mlflow.pyfunc.load_model('models:/nyc-taxi-duration@champion')
  MLflow run        {run.run_id}
                    to see it: {find_program("mlflow")} ui --backend-store-uri {store},
                               then open http://127.0.0.1:5000/#/experiments/{run.experiment_id}\
/runs/{run.run_id}

"""
    )
    code, output = call(capsys, "show", "champion", "--json")
    found = json.loads(output)
    assert code == 0
    assert {name: found[name] for name in ("cab", "version", "since", "kind", "reason", "by")} == {
        "cab": "green",
        "version": "1",
        "since": "2026-01-07T12:30:05+00:00",
        "kind": "rollback",
        "reason": "Rolled back by hand.",
        "by": "ann@host",
    }
    assert found["model_uri"] == "models:/nyc-taxi-duration@champion"


def test_the_champion_of_another_cab_type_is_shown_with_its_option(
    registry: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "promote", "4", "--cab", "yellow")[0] == 0
    assert read_aliases(registry)["champion-yellow"] == "4"
    _, output = call(capsys, "show", "champion", "--cab", "yellow")
    assert "predict --model champion --cab yellow --input" in output
    assert "'models:/nyc-taxi-duration@champion-yellow'" in output
    assert call(capsys, "show", "champion", "--json") == (0, "null\n")
    code, output = call(capsys, "history")
    assert (code, output.splitlines()[-2]) == (0, "no version is champion now")
    assert call(capsys, "rollback", "--from", "1", "--cab", "yellow") == (
        0, "version 4 is champion, not version 1: nothing was rolled back.\n",
    )  # fmt: skip


def test_a_run_that_is_gone_and_a_version_of_somebody_else_are_told(
    registry: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tags = {"model_id": "green/2020-01-eeeeeeee"}
    registry.create_model_version(REGISTERED_MODEL, tmp_path.as_uri(), run_id=None, tags=tags)
    registry.create_model_version(REGISTERED_MODEL, tmp_path.as_uri())
    registry.set_registered_model_alias(REGISTERED_MODEL, "champion", "5")
    code, output = call(capsys, "show", "champion")
    assert code == 0
    assert "  trained on        unknown\n  validated on      unknown\n" in output
    assert "  MLflow run        gone from MLflow\n" in output
    _, output = call(capsys, "history")
    assert "        5   green/2020-01-eeeeeeee " in output
    registry.set_registered_model_alias(REGISTERED_MODEL, "champion", "6")
    assert call(capsys, "show", "champion") == (
        2,
        "error: champion, version 6 of nyc-taxi-duration, cannot be used, since no run of this "
        "pipeline logged it: make another one champion: `python -m taxi_duration promote "
        "VERSION`.\n",
    )


def test_mistakes_end_in_one_line_and_exit_code_2(
    registry: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    of_history = "`python -m taxi_duration history` lists"
    assert call(capsys, "promote", "9") == (
        2, f"error: model '9' is neither a directory nor, in MLflow store {store}, a version or an "
        "alias of nyc-taxi-duration, a model id or a run: give one that `python -m taxi_duration "
        "history` lists, or a model directory such as models/green/2023-01-1a2b3c4d.\n",
    )  # fmt: skip
    assert call(capsys, "rollback") == (
        2,
        "error: green has had no champion, so there is nothing to roll back to: "
        f"{of_history} what can be promoted.\n",
    )
    for wrong in (("promote",), ("show",), ("show", "candidate"), ("history", "--cab", "blue")):
        with pytest.raises(SystemExit) as left:
            call_taxi_duration(*wrong)
        assert left.value.code == 2


def test_without_a_store_or_a_version_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert call(capsys, "history") == (
        0, f"no green version is registered in {store}: train one first.\n",
    )  # fmt: skip
    assert call(capsys, "show", "champion") == (
        0,
        f"green has no champion in {store}: a run's gate makes one, or "
        "`python -m taxi_duration promote VERSION`.\n",
    )
    for command in (("promote", "1"), ("rollback",)):
        code, errors = call(capsys, *command)
        assert code == 2
        assert f"{store}" in errors
        assert "not there: train a model first, such as with `python orchestrate.py`" in errors
    assert json.loads(call(capsys, "history", "--json")[1])["versions"] == []
    assert [*tmp_path.iterdir()] == []


def test_a_store_that_fails_ends_in_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow.db").write_text("not a database")
    server = f"127.0.0.1:{find_free_port()}"
    for uri, shown in (
        (f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"),
        (f"http://user:MLSECRET@{server}", f"http://{server}"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for command in (("history",), ("show", "champion"), ("promote", "1"), ("rollback",)):
            code, errors = call(capsys, *command)
            assert (code, errors.count("\n")) == (1, 1)
            assert errors.startswith(f"error: MLflow store {shown} failed (")
            assert "SECRET" not in errors
