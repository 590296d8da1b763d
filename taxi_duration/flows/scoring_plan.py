"""What a scoring is about: its options, checked before any work, and where its trips are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import Cab, check_month, get_cab
from taxi_duration.data.tlc import LocalMonths, check_months
from taxi_duration.errors import InputError
from taxi_duration.files import check_writable
from taxi_duration.flows.options import CabName, DataDirectory, Offline, check_path
from taxi_duration.predict.reader import check_input
from taxi_duration.predict.score import NamedModel, Progress, Tally, score_trips
from taxi_duration.predict.writer import check_apart, check_output
from taxi_duration.registry.resolve import find_model


def _read_model_name(value: object) -> str:
    # A version comes as a number from a deployment's parameters.
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(
            f"model {value!r} is no name of one: give champion, the number of a version, or a "
            "model directory."
        )
    return str(value)


ModelName = Annotated[
    str | int,
    BeforeValidator(_read_model_name),
    Field(description="the model: champion, the number of a version, or a model directory"),
]
Input = Annotated[
    str,
    BeforeValidator(check_path),
    Field(
        min_length=1,
        description="trips to score: a parquet or CSV file with the TLC's columns, or a month, "
        "YYYY-MM, downloaded when absent",
    ),
]
Output = Annotated[
    Path,
    BeforeValidator(check_path),
    Field(description="parquet or CSV file the predictions are written to"),
]
IdColumn = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    Field(
        description="column of the input that is copied to the predictions as id; by default id is "
        "the row's number, from 0"
    ),
]


class ScoringOptions(BaseModel):
    """The options of a scoring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Input
    output: Output
    model: ModelName = "champion"
    cab: CabName = "green"
    data_dir: DataDirectory = Path("data")
    offline: Offline = False
    id_column: IdColumn = None


@dataclass(frozen=True)
class ScoringPlan:
    """A scoring whose options were checked: its trips are in a file, or those of a month."""

    cab: Cab
    model: str
    trips: Path | Month
    months: LocalMonths
    output: Path
    id_column: str | None


def plan_scoring(options: ScoringOptions, today: date) -> ScoringPlan:
    """Find out before any work what of a scoring will not go.

    Raises:
        InputError: the input is absent or of an unknown kind, or the output cannot be one.
        DataError: the month is absent and `offline` is set, or its file is none of this cab type.
    """
    cab, output = get_cab(options.cab), options.output
    with _name_path_errors():
        check_writable(check_output(output).parent, "directory of the output")
        months = LocalMonths(cab, options.data_dir, options.offline)
        trips = _find_trips(options.input)
        if isinstance(trips, Month):
            check_month(cab, trips)
            check_months(cab, [trips], options.data_dir, options.offline, today, validates=False)
            check_apart(output, options.data_dir / trips.file_name(cab.name))
        else:
            check_apart(output, trips)
    return ScoringPlan(cab, str(options.model), trips, months, output, options.id_column)


@contextmanager
def _name_path_errors() -> Iterator[None]:
    """Turn what the operating system says of a path, such as that it is too long, into ours."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be looked at ({error.strerror or error}): name another path, "
            "or give yourself permission."
        ) from error


def _find_trips(text: str) -> Path | Month:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}", text):
        return Month.parse(text)
    path = Path(text)
    check_input(path)
    return path


@dataclass(frozen=True)
class Scored:
    """What was scored, by which model, and what came out."""

    trips: Path
    output: Path
    model_id: str
    version: str
    tally: Tally
    seconds: float

    def list_figures(self) -> list[tuple[str, str]]:
        """Each figure's name and value, as a reader sees them."""
        tally, found = self.tally, self.tally.evaluation
        is_version = self.version != self.model_id
        if found:
            realised = (
                f"RMSE {found.rmse:.6f} minutes, MAE {found.mae:.6f}, over the "
                f"{_count_rows(found.rows)} that the cleaning rules keep"
            )
        else:
            no_row = "no row has a duration that the cleaning rules keep"
            realised = f"none: {'; '.join(tally.problems) or no_row}"
        lack = "lacks" if tally.unpredicted == 1 else "lack"
        return [
            ("rows", f"{tally.rows:,}"),
            ("model", f"version {self.version}, {self.model_id}" if is_version else self.version),
            ("unknown zones", f"in {_count_rows(tally.unknown_zones)}"),
            ("zones unseen in training", f"in {_count_rows(tally.unseen_zones)}"),
            ("pairs unseen in training", f"in {_count_rows(tally.unseen_pairs)}"),
            (
                "no prediction",
                f"for {_count_rows(tally.unpredicted)}, which {lack} a distance or a time",
            ),
            ("realised errors", realised),
        ]

    @property
    def rows_a_second(self) -> float:
        return self.tally.rows / self.seconds


def _count_rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


def load_named_model(name: str, cab: Cab) -> NamedModel:
    """Load the model that `find_model` finds by a name."""
    found = find_model(name, cab)
    return NamedModel(found.model, found.model_id, found.version or found.model_id)


def score(
    plan: ScoringPlan, named: NamedModel, file: Path | MonthFile, report: Progress | None = None
) -> Scored:
    """Score the trips of a plan, once they are here.

    Raises:
        TaxiDurationError: as `score_trips`.
    """
    path, sha256 = (file.path, file.sha256) if isinstance(file, MonthFile) else (file, None)
    begun = time.perf_counter()
    tally = score_trips(
        named, path, plan.output, plan.cab, plan.id_column, sha256=sha256, report=report
    )
    seconds = time.perf_counter() - begun
    return Scored(path, plan.output, named.model_id, named.version, tally, seconds)
