"""No module is left out of the code that is pushed, or of the digest that names a model's code."""

import shutil
from pathlib import Path

import pytest
from prefect.utilities.filesystem import filter_files

from taxi_duration.model import month_sums as reduction
from taxi_duration.model import training
from taxi_duration.version import (
    CHECKOUT,
    COMPUTING_NOTHING,
    PACKAGE,
    identify_code,
    list_sources,
)

SUMS, TRAINING = reduction.__name__, training.__name__


def list_modules(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*.py")}


def test_every_file_of_the_package_is_pushed_to_a_bucket() -> None:
    patterns = (CHECKOUT / ".prefectignore").read_text("utf-8").splitlines()
    pushed = {Path(name) for name in filter_files(str(CHECKOUT), patterns, include_dirs=False)}
    package = {
        path.relative_to(CHECKOUT)
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= pushed
    assert {path.parts[0] for path in pushed - package} <= {
        "data", "orchestrate.py", "orchestrate_s3.py",
    }  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name))


def alter(copy: Path, names: set[str]) -> None:
    for name in names:
        with (copy / name).open("a", encoding="utf-8") as source:
            source.write("\n1 + 1\n")
    identify_code.cache_clear()


def find_sources(module: str, copy: Path) -> set[str]:
    return {path.relative_to(copy).as_posix() for path in list_sources(module, copy)}


def find_names(module: str, copy: Path) -> set[str]:
    return {Path(name).stem for name in find_sources(module, copy)}


def test_the_code_of_sums_is_what_computes_them_and_no_more(copy: Path) -> None:
    names = find_names(SUMS, copy)
    assert {"month", "clean", "parquet", "schema", "tables", "features", "baselines"} <= names
    assert not names & {"gate", "runs", "tasks", "training", "model", *COMPUTING_NOTHING}


def test_the_code_of_a_model_is_all_that_trains_it(copy: Path) -> None:
    names = find_names(TRAINING, copy)
    assert names >= find_names(SUMS, copy) | {"training", "sums", "solve"}
    assert not names & {"gate", "runs", "tasks", *COMPUTING_NOTHING}


@pytest.mark.parametrize("module", [SUMS, TRAINING])
def test_a_digest_changes_with_its_code_alone(copy: Path, module: str) -> None:
    sources, before = find_sources(module, copy), identify_code(module, copy)
    alter(copy, list_modules(copy) - sources)
    assert identify_code(module, copy) == before
    digests = {before}
    for name in sorted(sources)[::6]:
        alter(copy, {name})
        digests.add(identify_code(module, copy))
    assert len(digests) == 1 + len(sorted(sources)[::6])


def test_comments_and_docstrings_change_no_digest(copy: Path) -> None:
    before = identify_code(TRAINING, copy)
    for name in list_modules(copy):
        path = copy / name
        path.write_text(f'"""Another docstring."""\n# A comment.\n{path.read_text("utf-8")}')
    identify_code.cache_clear()
    # The old docstring is now a text in the middle, which is no code either.
    assert identify_code(TRAINING, copy) == before
