"""What a user gets, as figures: from the commands, the files of a run, and the public names alone.

Record them with `python -m tests.end_to_end.pins tests/end_to_end/pins_sample.json`, and with
`--real DIR` into `pins_real.json`; `test_pins.py` makes them again and compares. Nothing here knows
a module of the package, so it runs unchanged whichever way the package is laid out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from taxi_duration import DurationModel, load_model, train_model

REPOSITORY = Path(__file__).parents[2]
SAMPLE_DATA = REPOSITORY / "data" / "sample"
OURS = ("PREFECT_", "MLFLOW_", "AWS_", "TAXI_DURATION_")
TOLERANCE = 1e-9
MODEL_ID = re.compile(r"\b[a-z]+/(\d{4}-\d{2})-[0-9a-f]{8}\b")
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
PREDICT_LINE = re.compile(r"^  (\S.*?)  +(\S.*)$", re.MULTILINE)
FIGURELESS = {"predictions", "model", "rows a second"}
VERSION_KEYS = ("version", "trained_on", "validated_on", "rmse", "verdict", "is_synthetic")

Pins = dict[str, Any]


Run = Callable[[Path, Sequence[str]], tuple[int, str]]
"""Runs a command in a directory: its exit code, and what it printed."""


def run_alone(directory: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command in a process that has the clean environment of a new user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={
            **kept,
            "PYTHONPATH": str(REPOSITORY),
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@dataclass(frozen=True)
class Place:
    """A directory for a store and models of its own, where its months are, how commands run."""

    directory: Path
    data: Path
    run: Run

    def call(self, *arguments: str | Path, expected: int = 0) -> str:
        """What a command printed."""
        exit_code, printed = self.run(self.directory, [*map(str, arguments)])
        assert exit_code == expected, f"{arguments} ended with {exit_code}: {printed}"
        return printed

    def train(self, year: int, month: int, features: str = "extended") -> Path:
        """Run `orchestrate.py`, and say which directory it left."""
        before = {*self.directory.glob("models/green/*")}
        # fmt: off
        self.call(
            REPOSITORY / "orchestrate.py", "--year", str(year), "--month", str(month),
            "--features", features, "--data-dir", self.data, "--models-dir", "models", "--offline",
        )
        # fmt: on
        (made,) = {*self.directory.glob("models/green/*")} - before
        return made

    def ask(self, *arguments: str | Path, expected: int = 0) -> Any:
        """What `python -m taxi_duration ... --json` says."""
        printed = self.call("-m", "taxi_duration", *arguments, "--json", expected=expected)
        return json.loads(printed)

    def predict(self, trips: Path, model: str | Path) -> Pins:
        """Digest what `predict` writes and the figures that it prints."""
        output = self.directory / "predictions.parquet"
        # fmt: off
        printed = self.call(
            "-m", "taxi_duration", "predict", "--input", trips, "--output", output, "--model", model
        )
        # fmt: on
        table = pq.read_table(output)
        minutes = table["predicted_minutes"].to_numpy()
        return {
            "columns": table.column_names,
            "nulls": table["predicted_minutes"].null_count,
            "minutes": digest(minutes.astype(float)),
            "printed": {
                name: [float(each.replace(",", "")) for each in NUMBER.findall(text)]
                for name, text in PREDICT_LINE.findall(printed)
                if name not in FIGURELESS
            },
        }

    def reproduce(self, model: Path) -> Pins:
        """Train a model again; the command fails unless all agrees."""
        found = self.ask("reproduce", model, "--data-dir", self.data, "--offline")
        return {"agrees": found["agrees"]}


def pin_sample(directory: Path, run: Run = run_alone) -> Pins:
    """Pin the runs on the synthetic sample, a first champion and a challenger, and `course`."""
    place = Place(directory, SAMPLE_DATA, run)
    models = {
        "2025-01 extended": place.train(2025, 1),
        "2025-02 extended": place.train(2025, 2),
    }
    january, march = (
        SAMPLE_DATA / f"synthetic_green_tripdata_2025-{month}.parquet" for month in ("01", "03")
    )
    challenger = models["2025-02 extended"]
    return {
        "report": {name: pin_report(model) for name, model in models.items()},
        "model": {
            **{name: pin_model(load_model(model)) for name, model in models.items()},
            "2025-01 course": pin_model(train_model([january], "course")),
        },
        "predictions": {"champion": place.predict(march, "champion")},
        "history": pin_history(place),
        "doctor": pin_doctor(place),
        "cards": {
            "README.md": pin_markdown((challenger / "README.md").read_text("utf-8")),
            "report.html": pin_html((challenger / "report.html").read_text("utf-8")),
        },
        "reproduce": {"2025-02 extended": place.reproduce(challenger)},
        "prose": {name: read_reasons(model) for name, model in models.items()},
    }


def pin_real(directory: Path, data: Path, run: Run = run_alone) -> Pins:
    """Pin the runs on real months; nothing that is pinned is a trip's row."""
    place = Place(directory, data, run)
    models = {
        "2023-01 extended": place.train(2023, 1),
        "2023-02 extended": place.train(2023, 2),
        "2021-01 course": place.train(2021, 1, "course"),
    }
    trained = train_model([data / "green_tripdata_2023-01.parquet"], "course")
    return {
        "report": {name: pin_report(model) for name, model in models.items()},
        "model": {
            **{name: pin_model(load_model(model)) for name, model in models.items()},
            "2023-01 course": pin_model(trained),
        },
        "predictions": {
            "champion": place.predict(data / "green_tripdata_2023-03.parquet", "champion"),
            "2021-01 course": place.predict(
                data / "green_tripdata_2021-02.parquet", models["2021-01 course"]
            ),
        },
        "history": pin_history(place),
        "reproduce": {"2023-02 extended": place.reproduce(models["2023-02 extended"])},
        "prose": {name: read_reasons(model) for name, model in models.items()},
    }


def read_report(model: Path) -> Any:
    return json.loads((model / "report.json").read_text("utf-8"))


def read_reasons(model: Path) -> Any:
    """Read the gate's sentences: recorded to be read, never compared."""
    return read_report(model)["gate"]["reasons"]


def pin_report(model: Path) -> Pins:
    """Take of a report what must not change: not versions, ids or prose.

    Of the largest errors there are only the sizes, when their trips are somebody's.
    """
    report = _without_ids(read_report(model))
    del report["versions"], report["gate"]["reasons"]
    if not all(name.startswith("synthetic_") for name in report["inputs"]):
        largest = report.pop("largest_errors")
        sizes = [abs(trip["minutes"] - trip["predicted"]) for trip in largest]
        report["largest_residuals"] = [round(size, 6) for size in sizes]
    return report


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_ids(each) for name, each in value.items() if name != "model_id"}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def pin_model(model: DurationModel) -> Pins:
    return {
        "alpha": model.alpha,
        "intercept": float(model.intercept),
        "coefficients": {name: digest(each) for name, each in model.coefficients.items()},
    }


def digest(values: npt.NDArray[np.float64]) -> Pins:
    """Sum up numbers so that one that changes, or changes its place, is noticed."""
    places = np.flatnonzero(~np.isnan(values))
    known = values[places]
    return {
        "count": known.size,
        "sum": float(known.sum()),
        "sum_of_absolutes": float(np.abs(known).sum()),
        "sum_of_squares": float(known @ known),
        "weighted": float(known @ np.sin(places + 1.0)),
    }


def pin_history(place: Place) -> Pins:
    """Which versions there are and were champion; how changes are kept is not looked at."""
    history, shown = place.ask("history"), place.ask("show", "champion")
    return {
        "champion": history["champion"],
        "versions": [
            {
                **{name: version[name] for name in VERSION_KEYS},
                "was_champion": bool(version["champion"]),
            }
            for version in history["versions"]
        ],
        "shown": {name: shown[name] for name in ("cab", *VERSION_KEYS)},
    }


def pin_doctor(place: Place) -> list[list[Any]]:
    """What `doctor` finds where there is no server, and the newest month is not here."""
    findings = place.ask("doctor", "--offline", "--data-dir", place.data, expected=1)
    return [[finding["name"], finding["ok"]] for finding in findings]


def pin_markdown(text: str) -> Pins:
    titles = re.findall(r"^##? (.+)$", text, re.MULTILINE)
    rows = [
        [cell.strip().strip("*`") for cell in line[1:-1].split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return _pin_card(titles, rows)


def pin_html(text: str) -> Pins:
    reader = _CardReader()
    reader.feed(text)
    return _pin_card(reader.titles, reader.rows)


def _pin_card(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Pins:
    """Keep titles and the rows with figures; ids, and versions of software, are left out."""
    software = {"taxi_duration", "python", "numpy", "scipy", "pandas", "pyarrow"}
    software |= {"scikit-learn", "skops"}
    return {
        "titles": [_hide_ids(title) for title in titles],
        "rows_with_figures": [
            [_hide_ids(cell) for cell in row]
            for row in rows
            if row[0] not in software and any(NUMBER.search(cell) for cell in row[1:])
        ],
    }


def _hide_ids(text: str) -> str:
    return MODEL_ID.sub(r"model of \1", text)


class _CardReader(HTMLParser):
    """Reads titles and the rows of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.rows: list[list[str]] = []
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th", "h1", "h2"):
            self._into = self.titles if tag in ("h1", "h2") else self.rows[-1]
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "h1", "h2"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def find_differences(recorded: Any, found: Any, where: str = "") -> Iterator[str]:
    """Say where something recorded is not found; what is found beside it is not looked at."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        # Sums are as exact as the numbers in them, though these may cancel out.
        size = recorded.get("sum_of_absolutes", 0.0)
        for name, value in recorded.items():
            if name not in found:
                yield f"{where}/{name} is gone"
            elif name in ("sum", "weighted"):
                if not math.isclose(value, found[name], rel_tol=0, abs_tol=TOLERANCE * size):
                    yield f"{where}/{name}: {value!r} was recorded, {found[name]!r} found"
            elif name == "rows_with_figures":
                missing = [row for row in value if row not in found[name]]
                yield from (f"{where}/{name}: {row} is gone" for row in missing)
            else:
                yield from find_differences(value, found[name], f"{where}/{name}")
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for number, (ours, theirs) in enumerate(zip(recorded, found, strict=True)):
            yield from find_differences(ours, theirs, f"{where}/{number}")
    elif not _is_same(recorded, found):
        yield f"{where}: {recorded!r} was recorded, {found!r} found"


def _is_same(recorded: Any, found: Any) -> bool:
    if isinstance(recorded, float) and isinstance(found, (int, float)):
        return math.isclose(recorded, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(recorded) is type(found) and bool(recorded == found)


def write(pins: Pins, path: Path) -> None:
    """Write pins to be read by a person too: lists of figures, and rows, on a line each."""
    text = json.dumps(pins, indent=1, ensure_ascii=False)
    flat = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)
    path.write_text(flat.replace("[ ", "[").replace(" ]", "]") + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what the commands and a run come to.")
    parser.add_argument("output", type=Path, help="JSON file the pins are written to")
    parser.add_argument("--real", type=Path, help="pin real months instead, of this directory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        real = arguments.real and arguments.real.resolve()
        write(pin_real(directory, real) if real else pin_sample(directory), arguments.output)


if __name__ == "__main__":
    main()
