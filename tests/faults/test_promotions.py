"""Changes of champion under kills: done again they are made once, and told once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from taxi_duration.registry.promotions import BEGUN, list_periods
from taxi_duration.registry.registry import (
    load_champion,
    promote,
    promote_candidate,
    read_history,
    rollback,
    settle,
)

from tests.conftest import REPOSITORY
from tests.support.killed_promotions import ACTIONS, POINTS
from tests.support.registered import GREEN, IDS, Registered, read_aliases, use_store
from tests.support.servers import make_environment

EXPECTED = {
    "gate": ("gate", "3", "version 3 is champion now, in place of version 2."),
    "promote": ("promote", "3", "version 3 is champion now, in place of version 2."),
    "rollback": ("rollback", "1", "version 1 is champion again, in place of version 2."),
    "rollback from": ("rollback", "1", "version 1 is champion again, in place of version 2."),
}
"""What each action makes of it: the event, the champion, and what is said."""

BEFORE = [("promote", "1", "done"), ("promote", "2", "done")]


@pytest.fixture(scope="module")
def killed(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What processes left that were killed while they changed the champion."""
    directory = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.support.killed_promotions"]
    done = subprocess.run(
        [*command, str(registered.database), str(directory)],
        cwd=REPOSITORY, env=make_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return directory


def tell_events() -> list[tuple[str, str | None, str]]:
    return [(event.kind, event.version, event.state) for event in read_history(GREEN).events]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_done_again_after_a_death_it_is_done_and_told_once(
    killed: Path, tmp_path: Path, action: str, point: str
) -> None:
    kind, version, sentence = EXPECTED[action]
    with use_store(Path(shutil.copy(killed / action / point / "mlflow.db", tmp_path))) as client:
        is_set = point == "between alias and done"
        champion = load_champion(GREEN)
        assert champion is not None
        assert champion.version == read_history(GREEN).champion == (version if is_set else "2")
        assert str(ACTIONS[action]()) == sentence
        assert read_aliases(client)["champion"] == version
        assert tell_events() == [*BEFORE, (kind, version, "done")]
        again = ACTIONS[action]() if action != "rollback" else None
        assert again is None or tell_events() == [*BEFORE, (kind, version, "done")]


def test_a_history_read_after_a_death_says_what_is_not_finished(killed: Path) -> None:
    with use_store(killed / "rollback" / "between begun and alias" / "mlflow.db"):
        assert tell_events() == [*BEFORE, ("rollback", "1", BEGUN)]
        assert [period.version for period in list_periods(read_history(GREEN).events)] == ["1", "2"]
    with use_store(killed / "rollback" / "between alias and done" / "mlflow.db"):
        assert tell_events() == [*BEFORE, ("rollback", "1", "done")]
        assert [period.version for period in list_periods(read_history(GREEN).events)] == [
            "1",
            "2",
            "1",
        ]


@pytest.mark.parametrize("point", ["between begun and alias", "between alias and done"])
@pytest.mark.parametrize("next_one", ["settle", "gate", "promote", "rollback"])
def test_another_that_comes_next_finishes_what_was_begun_first(
    killed: Path, tmp_path: Path, point: str, next_one: str
) -> None:
    """A rollback from 2 to 1 was begun."""
    scene = killed / "rollback" / point / "mlflow.db"
    if next_one == "rollback":
        scene = killed / "promote" / point / "mlflow.db"
    with use_store(Path(shutil.copy(scene, tmp_path))) as client:
        if next_one == "settle":
            settle(GREEN)
            expected, champion = [("rollback", "1", "done")], "1"
        elif next_one == "gate":
            told = promote_candidate(GREEN, "3", IDS["3"], IDS["2"], "Judged against 2.")
            assert str(told).startswith("version 3 stays a candidate: it was judged against")
            expected, champion = [("rollback", "1", "done")], "1"
        elif next_one == "promote":
            assert str(promote(GREEN, "3")) == "version 3 is champion now, in place of version 1."
            expected, champion = [("rollback", "1", "done"), ("promote", "3", "done")], "3"
        else:
            said = "version 2 is champion again, in place of version 3."
            assert str(rollback(GREEN)) == said
            expected, champion = [("promote", "3", "done"), ("rollback", "2", "done")], "2"
        assert tell_events() == [*BEFORE, *expected]
        assert read_aliases(client)["champion"] == champion


def test_a_rollback_that_is_repeated_after_it_was_finished_goes_back_once(
    killed: Path, tmp_path: Path
) -> None:
    """As by a script whose terminal died before it was told."""
    scene = killed / "rollback from" / "between alias and done" / "mlflow.db"
    with use_store(Path(shutil.copy(scene, tmp_path))):
        settle(GREEN)
        said = "version 1 is champion, not version 2: nothing was rolled back."
        assert str(rollback(GREEN, "2")) == said
        assert tell_events() == [*BEFORE, ("rollback", "1", "done")]
