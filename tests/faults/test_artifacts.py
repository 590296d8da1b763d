"""Model directories under kills and tampering."""

import functools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import skops.io

from taxi_duration import ModelError, load_model
from taxi_duration.evaluation.report import load_report
from taxi_duration.files import hash_file
from taxi_duration.model.directory import (
    FILES,
    MODEL_FORMAT,
    NEEDED,
    read_file,
    save_model,
    verify_model,
)
from taxi_duration.model.model import DurationModel
from tests.conftest import REPOSITORY
from tests.support.killed_saves import KILLED, KILLED_REPAIRS, MODEL_ID, SAID, train

Tamper = Callable[[Path], object]


@pytest.fixture(scope="module")
def model() -> DurationModel:
    return train()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.support.killed_saves", str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("point", [*KILLED, *KILLED_REPAIRS])
def test_a_save_after_a_kill_leaves_one_whole_directory(
    killed: Path, model: DurationModel, point: str
) -> None:
    green = killed / point / "green"
    assert [*green.glob(".*")], "a kill leaves what it was writing"
    for final in green.glob("2025-*"):
        if point not in KILLED_REPAIRS:
            verify_model(final)  # nothing half-written at the final path
    directory = save_model(green.parent, MODEL_ID, model, SAID)
    assert [*green.iterdir()] == [directory]
    load_model(directory)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: DurationModel) -> Path:
    return save_model(tmp_path_factory.mktemp("whole"), MODEL_ID, model, SAID)


@pytest.fixture
def directory(tmp_path: Path, whole: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "models" / "green" / whole.name)


def flip(name: str, place: float) -> Tamper:
    def act(directory: Path) -> None:
        data = bytearray((directory / name).read_bytes())
        data[int(place * (len(data) - 1))] ^= 0x10
        (directory / name).write_bytes(data)

    return act


def remove(name: str) -> Tamper:
    return lambda directory: (directory / name).unlink()


def write(name: str, text: str) -> Tamper:
    return lambda directory: (directory / name).write_text(text)


def change_manifest(**changes: object) -> Tamper:
    def act(directory: Path) -> None:
        path = directory / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return act


def name_file(name: str) -> Tamper:
    """A manifest that names another file too, with its right hash."""

    def act(directory: Path) -> None:
        target = directory / name
        target.write_text("{}")
        hashes = json.loads((directory / "manifest.json").read_text())["sha256"]
        change_manifest(sha256={**hashes, name: hash_file(target)})(directory)

    return act


def replace(name: str, content: bytes) -> Tamper:
    """Other content, and a manifest that agrees with it."""

    def act(directory: Path) -> None:
        (directory / name).write_bytes(content)
        hashes = json.loads((directory / "manifest.json").read_text())["sha256"]
        hashes[name] = hash_file(directory / name)
        change_manifest(sha256=hashes)(directory)

    return act


def link_elsewhere(name: str) -> Tamper:
    def act(directory: Path) -> None:
        (directory / name).rename(directory.parent / name)
        (directory / name).symlink_to(directory.parent / name)

    return act


def link_to_itself(directory: Path) -> None:
    (directory / "model.skops").unlink()
    (directory / "model.skops").symlink_to(directory / "model.skops")


def make_pipe(directory: Path) -> None:
    (directory / "report.json").unlink()
    os.mkfifo(directory / "report.json")


NOT_WRITTEN = "is not what was written"
NO_MODEL = "is not a model directory (manifest.json: "
TAMPERED: list[tuple[Tamper, str]] = [
    *[(flip(name, place), NOT_WRITTEN) for name in NEEDED for place in (0, 0.3, 0.7, 1)],
    *[(remove(name), "is missing or cannot be read") for name in NEEDED],
    (remove("manifest.json"), NO_MODEL),
    (flip("manifest.json", 0), NO_MODEL),
    (write("manifest.json", ""), NO_MODEL),
    (write("manifest.json", "[]"), NO_MODEL),
    (write("manifest.json", "null"), NO_MODEL),
    (write("manifest.json", '{"format": 4, "sha256": 3}'), NO_MODEL),
    (write("manifest.json", "[" * 100_000), NO_MODEL),
    (write("manifest.json", json.dumps({"format": MODEL_FORMAT, "sha256": [*FILES]})), "names"),
    (
        change_manifest(format="3"),
        "has format '3', and this version reads 4: train",
    ),
    (change_manifest(format=2), "has format 2, and this version reads 4: train"),
    (
        change_manifest(sha256={}),
        "names nothing where a model has model.skops, report.json, report.html, README.md, which",
    ),
    (change_manifest(sha256=dict.fromkeys(FILES)), NOT_WRITTEN),
    (name_file("extra.json"), "names README.md, extra.json, model.skops, report.html, report.json"),
    (name_file("../outside.json"), "names ../outside.json, README.md, model.skops, report.html"),
    (link_elsewhere("model.skops"), "outside the model directory: put the file itself there"),
    (link_elsewhere("report.json"), "outside the model directory: put the file itself there"),
    (link_elsewhere("manifest.json"), "outside the model directory: put the file itself there"),
    (link_to_itself, "is missing or cannot be read"),
    (make_pipe, "is missing or cannot be read"),
]


@pytest.mark.parametrize(("tamper", "message"), TAMPERED)
def test_a_tampered_directory_is_refused(directory: Path, tamper: Tamper, message: str) -> None:
    tamper(directory)
    for load in (load_model, load_report):
        with pytest.raises(ModelError) as raised:
            load(directory)
        assert str(raised.value).startswith(str(directory))
        assert message in str(raised.value)


FOR_PEOPLE = ("report.html", "README.md")


@pytest.mark.parametrize("name", FOR_PEOPLE)
@pytest.mark.parametrize("tamper", [flip, lambda name, _: remove(name)], ids=["flip", "remove"])
def test_what_is_for_people_is_not_needed_to_load_but_to_be_whole(
    directory: Path, name: str, tamper: Callable[[str, float], Tamper]
) -> None:
    tamper(name, 0.5)(directory)
    load_model(directory)
    assert read_file(directory, "report.json") == SAID["report.json"]
    with pytest.raises(ModelError, match=f"{re.escape(name)} is (missing|not what was written)"):
        verify_model(directory)


@pytest.mark.parametrize(
    "tamper",
    [
        *(flip(name, 0.5) for name in ("report.json", *FOR_PEOPLE)),
        change_manifest(format=2), link_elsewhere("model.skops"), make_pipe,
    ],
)  # fmt: skip
def test_a_repeated_run_replaces_a_tampered_directory(
    directory: Path, model: DurationModel, tamper: Tamper
) -> None:
    tamper(directory)
    assert save_model(directory.parents[1], MODEL_ID, model, SAID) == directory
    verify_model(directory)


def test_a_file_of_somebody_elses_is_neither_read_nor_removed(
    directory: Path, model: DurationModel
) -> None:
    (directory / "notes.txt").write_text("mine")
    load_model(directory)
    save_model(directory.parents[1], MODEL_ID, model, SAID)
    assert (directory / "notes.txt").read_text() == "mine"


class Touch:
    """Creates a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "forge",
    [
        lambda marker: pickle.dumps(Touch(marker)),
        lambda marker: skops.io.dumps({"pipeline": Touch(marker)}),
        lambda marker: skops.io.dumps({"pipeline": functools.partial(Path.touch, marker)}),
        lambda marker: skops.io.dumps({"features": None}),
        lambda marker: b"",
    ],
    ids=["pickle", "reduce", "partial", "not a model", "empty"],
)
def test_a_forged_model_with_the_right_hash_is_not_run(
    directory: Path, tmp_path: Path, forge: Callable[[Path], bytes]
) -> None:
    marker = tmp_path / "marker"
    replace("model.skops", forge(marker))(directory)
    with pytest.raises(ModelError, match=r"model.skops cannot be loaded \(.*nothing of it was run"):
        load_model(directory)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"[]", b"7", b"\xff", b"{", b"[" * 100_000])
def test_a_report_that_is_none_is_refused(directory: Path, content: bytes) -> None:
    replace("report.json", content)(directory)
    with pytest.raises(ModelError, match=r"report.json is not a report \(.* train the model again"):
        load_report(directory)
