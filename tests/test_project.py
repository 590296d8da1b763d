"""What must stay true of the repository itself."""

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "taxi_duration"
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
MOST_MODULES = 12
WINGS = sorted({path.parent for path in PACKAGE.rglob("*.py")})


def list_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_library_needs_neither_prefect_nor_mlflow() -> None:
    script = (
        "import sys; from taxi_duration import load_model, train_model; "
        "print([name for name in ('prefect', 'prefect_aws', 'mlflow') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    imported = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == "[]"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph("taxi_duration")
    circles = [
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if graph.chain_exists(importer=imported, imported=module)
    ]
    assert circles == []


def test_no_tlc_file_is_in_the_repository() -> None:
    parquet = [path for path in list_files() if path.suffix == ".parquet"]
    assert parquet
    assert all(path.name.startswith("synthetic_") for path in parquet)


def test_no_file_names_a_registry_host_or_a_path_of_a_machine() -> None:
    # Put together here, so that this file does not name them either.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"))]
    places = ["/".join(("", *parts)) for parts in (("work", "main"), ("root", ""), ("tmp", "w"))]
    for path in list_files():
        if path.suffix in (".parquet", ".png"):
            continue
        text = path.read_text("utf-8")
        assert not [word for word in (*hosts, *places) if word in text], path


def test_locked_requirements_carry_hashes_and_no_addresses() -> None:
    for lock in REPOSITORY.glob("requirements*.lock"):
        lines = lock.read_text("utf-8").splitlines()
        pinned = [line for line in lines if "==" in line and not line.lstrip().startswith("#")]
        assert pinned
        assert all(line.endswith("\\") for line in pinned), lock.name
        assert not [line for line in lines if "://" in line or line.startswith("--index")]


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wing_has_few_modules(wing: Path) -> None:
    modules = [path for path in wing.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


def test_the_package_is_two_levels_deep() -> None:
    assert {*WINGS} <= {PACKAGE, *PACKAGE.iterdir()}


@pytest.fixture(scope="module")
def architecture() -> str:
    if not ARCHITECTURE.exists():
        pytest.skip("docs/architecture.md is not written yet")
    return ARCHITECTURE.read_text("utf-8")


def test_the_architecture_page_names_every_module(architecture: str) -> None:
    modules = {path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    named = {*re.findall(r"\w+\.py", architecture)}
    assert {path.name for path in modules} <= named


def test_the_architecture_page_names_only_what_exists(architecture: str) -> None:
    """A path is whole (`a/b.py`), or begins in the package (`b.py`); a function is `b.py:name`."""
    for path, function in re.findall(r"([\w./]+\.(?:py|j2|css))(?::(\w+))?", architecture):
        found = [each for each in list_files() if f"/{each.as_posix()}".endswith(f"/{path}")]
        assert found, path
        if function:
            defined = rf"^\s*(?:class|def) {function}\b"
            assert any(
                re.search(defined, each.read_text("utf-8"), re.MULTILINE) for each in found
            ), f"{path}:{function}"
