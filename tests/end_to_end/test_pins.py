"""A user gets what was recorded in `pins_sample.json` and `pins_real.json`, to a billionth.

What changes on purpose is recorded anew, see `pins.py`, and the difference of the files is read.

Real months are pinned in CI, and where TAXI_DURATION_PINS is set: their runs take a minute and a
half of CPU time, go through the same code as the sample's, and have their RMSE tested in
`flows/test_train.py` and `model/test_training.py` too. What is left to find is another figure that
is wrong for real trips alone, which is worth a wait before a merge, and not after each change.
"""

import json
import os
from pathlib import Path

import pytest

from tests.end_to_end.pins import Pins, find_differences, pin_real, pin_sample

VARIABLE = "TAXI_DURATION_PINS"


def read_pins(name: str) -> Pins:
    """Read what was recorded, without the prose, which is never compared."""
    pins: Pins = json.loads(Path(__file__).with_name(f"pins_{name}.json").read_text("utf-8"))
    del pins["prose"]
    return pins


SAMPLE, REAL = read_pins("sample"), read_pins("real")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Pins:
    return pin_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def real(real_data: Path, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Pins:
    return pin_real(tmp_path_factory.mktemp("real"), real_data.resolve(), prefect_server)


@pytest.mark.parametrize("section", SAMPLE)
def test_the_sample_comes_to_what_was_recorded(sample: Pins, section: str) -> None:
    assert [*find_differences(SAMPLE[section], sample[section])] == []


@pytest.mark.skipif(
    not (os.environ.get("CI") or os.environ.get(VARIABLE)),
    reason=f"real months are pinned in CI, and where {VARIABLE} is set",
)
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
