import fcntl
import os
from pathlib import Path

import pytest

from taxi_duration.errors import StorageError
from taxi_duration.files import LOCK_FILE, STAGED_SUFFIX, stage, sweep


def leave(directory: Path, name: str) -> Path:
    """A staged directory whose process has died."""
    left = directory / f".{name}.abc{STAGED_SUFFIX}"
    left.mkdir(parents=True)
    (left / LOCK_FILE).touch()
    (left / "half").write_text("half")
    return left


def test_what_is_staged_is_beside_its_place_until_it_is_done_with(tmp_path: Path) -> None:
    with stage(tmp_path / "deep", "file") as scratch:
        assert scratch.parent == tmp_path / "deep"
        assert scratch.name.startswith(".file.")
        (scratch / "file").write_text("whole")
        (scratch / "file").replace(tmp_path / "deep" / "file")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_what_a_dead_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left = leave(tmp_path, "other")
    with stage(tmp_path, "file"):
        assert not left.exists()


def test_what_a_process_died_over_before_it_was_locked_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f".file.abc{STAGED_SUFFIX}"
    left.mkdir()
    sweep(tmp_path)
    assert not left.exists()


def test_what_a_living_process_stages_stays(tmp_path: Path) -> None:
    with stage(tmp_path, "file") as scratch:
        (scratch / "half").write_text("half")
        with stage(tmp_path, "file") as other:
            assert scratch != other
        assert (scratch / "half").read_text() == "half"


def test_directories_of_others_stay(tmp_path: Path) -> None:
    for name in (".download.partial", "visible.taxi-duration.partial", ".taxi-duration"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.doc").touch()
    sweep(tmp_path)
    assert len([*tmp_path.rglob("thesis.doc")]) == 3


def test_a_lock_that_another_holds_is_not_waited_for(tmp_path: Path) -> None:
    left = leave(tmp_path, "file")
    lock = os.open(left / LOCK_FILE, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sweep(tmp_path)
    assert (left / "half").exists()
    os.close(lock)
    sweep(tmp_path)
    assert not left.exists()


def test_a_place_that_takes_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refusal = r"writing .*file/model failed \(.*\): free space on its disk"
    with pytest.raises(StorageError, match=refusal), stage(tmp_path / "file", "model"):
        pass
