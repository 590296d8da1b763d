"""A user gets what was recorded in `pins_sample.json` and `pins_real.json`, to a billionth.

What changes on purpose is recorded anew, see `pins.py`, and the difference of the files is read.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import chdir, nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.conftest import connected_to
from tests.end_to_end.pins import Pins, Run, find_differences, pin_real, pin_sample
from tests.support.runs import call_taxi_duration, make_store, start_local


def read_pins(name: str) -> Pins:
    """Read what was recorded, without the prose, which is never compared."""
    pins: Pins = json.loads(Path(__file__).with_name(f"pins_{name}.json").read_text("utf-8"))
    del pins["prose"]
    return pins


SAMPLE, REAL = read_pins("sample"), read_pins("real")


@pytest.fixture(scope="module")
def run_here(prefect_server: str) -> Run:
    """Run commands in this process, which costs a fifth; `doctor` is to find no server."""

    def run(directory: Path, arguments: Sequence[str]) -> tuple[int, str]:
        if arguments[0] == "-m":
            start: Callable[..., int] = call_taxi_duration
            arguments = arguments[2:]
        else:
            start, arguments = start_local, arguments[1:]
        printed = StringIO()
        served = nullcontext() if arguments[0] == "doctor" else connected_to(prefect_server)
        with chdir(directory), redirect_stdout(printed), served:
            return start(*arguments), printed.getvalue()

    return run


@pytest.fixture(scope="module")
def sample(run_here: Run, tmp_path_factory: pytest.TempPathFactory) -> Pins:
    directory = tmp_path_factory.mktemp("sample")
    make_store(directory)
    return pin_sample(directory, run_here)


@pytest.fixture(scope="module")
def real(real_data: Path, run_here: Run, tmp_path_factory: pytest.TempPathFactory) -> Pins:
    directory = tmp_path_factory.mktemp("real")
    make_store(directory)
    return pin_real(directory, real_data.resolve(), run_here)


@pytest.mark.parametrize("section", SAMPLE)
def test_the_sample_comes_to_what_was_recorded(sample: Pins, section: str) -> None:
    assert [*find_differences(SAMPLE[section], sample[section])] == []


@pytest.mark.parametrize("section", REAL)
def test_real_months_come_to_what_was_recorded(real: Pins, section: str) -> None:
    assert [*find_differences(REAL[section], real[section])] == []


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ({"rmse": 5.0}, {}),
        ({"rmse": 5.0}, {"rmse": 5.0 + 1e-7}),
        ({"rmse": 5.0}, {"rmse": None}),
        ({"trips": 5}, {"trips": 6}),
        ({"ok": True}, {"ok": 1}),
        ({"months": ["2025-01"]}, {"months": []}),
        ({"rows_with_figures": [["1", "2"]]}, {"rows_with_figures": [["1", "3"]]}),
        ({"sum": 1.0, "sum_of_absolutes": 9.0}, {"sum": 1.0 + 1e-7, "sum_of_absolutes": 9.0}),
    ],
)
def test_a_difference_is_found(recorded: Pins, found: Pins) -> None:
    assert [*find_differences(recorded, found)]
    assert not [*find_differences(recorded, {**recorded, "new": 1})]
