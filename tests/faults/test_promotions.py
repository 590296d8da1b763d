"""Changes of champion under kills: done again they are made once, and told once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_duration.registry.champion import read_history
from tests.conftest import REPOSITORY
from tests.support.killed_promotions import ACTIONS, POINTS
from tests.support.registered import GREEN, Registered, read_aliases, use_store
from tests.support.servers import make_environment

EXPECTED = {
    "gate": ("gate", "3", "version 3 is champion now, in place of version 2."),
    "promote": ("promote", "3", "version 3 is champion now, in place of version 2."),
    "rollback": ("rollback", "1", "version 1 is champion again, in place of version 2."),
    "rollback from": ("rollback", "1", "version 1 is champion again, in place of version 2."),
}
"""What each action makes of it: the event, the champion, and what is said."""

BEFORE = [("promote", "1"), ("promote", "2")]


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


def tell_changes() -> list[tuple[str, str]]:
    return [(change.kind, change.version) for change in read_history(GREEN).changes]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_done_again_after_a_death_it_is_done_and_told_once(
    killed: Path, tmp_path: Path, action: str, point: str
) -> None:
    kind, version, sentence = EXPECTED[action]
    with use_store(Path(shutil.copy(killed / action / point / "mlflow.db", tmp_path))) as client:
        assert read_history(GREEN).champion == "2"  # the alias is the truth
        assert tell_changes() == BEFORE
        assert str(ACTIONS[action]()) == sentence
        assert read_aliases(client)["champion"] == version
        assert tell_changes() == [*BEFORE, (kind, version)]
        if action != "rollback":
            ACTIONS[action]()
            assert tell_changes() == [*BEFORE, (kind, version)]
