"""The README says what is so: its commands, names and code exist and work."""

import re
from pathlib import Path

import pytest
import yaml

from taxi_duration.cli.flags import make_parser
from taxi_duration.flows.options import LocalOptions
from taxi_duration.settings import (
    AlertSettings,
    GateSettings,
    StabilityLimits,
    Thresholds,
    TlcSettings,
    TransferSettings,
)
from tests.support.months import FEBRUARY, JANUARY

SETTINGS = {
    f"{kind.model_config['env_prefix']}{name}".upper(): field.default
    for kind in (
        TlcSettings,
        TransferSettings,
        Thresholds,
        StabilityLimits,
        GateSettings,
        AlertSettings,
    )
    for name, field in kind.model_fields.items()
}
TLC = "the TLC's own"

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)


def test_the_help_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    import orchestrate

    monkeypatch.setenv("COLUMNS", "100")
    parser = make_parser(LocalOptions, orchestrate.main_flow.__doc__ or "")
    parser.prog = "orchestrate.py"
    assert parser.format_help().strip() in README


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)`?", README))
    assert {"run", "test"} <= named <= targets


def test_every_deployment_named_exists() -> None:
    named = set(re.findall(r"'(?:main-flow|main-flow-s3|backfill|predict)/(\w+)'", README))
    declared = [
        deployment["name"]
        for file in ("prefect.yaml", "deployment.yaml")
        for deployment in yaml.safe_load((REPOSITORY / file).read_text("utf-8"))["deployments"]
    ]
    assert {"taxi_local_data", "taxi_s3_data"} <= named <= {*declared}


def test_every_option_named_exists() -> None:
    flags = {f"--{name.replace('_', '-')}" for name in LocalOptions.model_fields}
    commands = [command for command in COMMANDS if "orchestrate.py" in command]
    assert commands
    for command in commands:
        assert set(re.findall(r"--[a-z-]+", command)) <= flags


def test_every_setting_named_is_read_by_the_code() -> None:
    code = "".join(
        path.read_text("utf-8")
        for path in [*(REPOSITORY / "taxi_duration").rglob("*"), *Path(__file__).parent.rglob("*")]
        if path.suffix == ".py" and path != Path(__file__)
    )
    for name in set(re.findall(r"\b(?:TAXI_DURATION|MLFLOW|AWS)_[A-Z0-9_]+", README)):
        assert name in code or name in SETTINGS, name


def test_every_setting_is_named_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(TAXI_DURATION_\w+)` \|.*\| (.+) \|$", README, re.MULTILINE))
    for name, default in SETTINGS.items():
        assert rows[name] in (f"{default:g}" if isinstance(default, float) else str(default), TLC)


def test_every_link_and_picture_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (REPOSITORY / target).exists(), target


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "data").mkdir()
    for path, month in ((JANUARY, "01"), (FEBRUARY, "02")):
        (tmp_path / "data" / f"green_tripdata_2023-{month}.parquet").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    lines = [line for line in example.splitlines() if not line.startswith("load_model(")]
    assert len(lines) == len(example.splitlines()) - 1
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    assert len(names["model"].predict(names["trips"])) == len(names["trips"])  # type: ignore[attr-defined,arg-type]
