"""The report of one training run: report.json, as a typed model.

`build_report` builds it, `dump_report` writes it and `read_report` reads it back; docs/report.md
describes its fields and is written by `python -m taxi_duration.evaluation.report`.
"""

from __future__ import annotations

import math
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import is_synthetic
from taxi_duration.errors import ModelError
from taxi_duration.evaluation.gate import Champion, Verdict
from taxi_duration.evaluation.residuals import (
    STEP_MINUTES,
    Density,
    ErrorAnalysis,
    PairPace,
    Part,
    ResidualSummary,
    SliceErrors,
    Trip,
)
from taxi_duration.evaluation.stability import Shift
from taxi_duration.model.baselines import Predict
from taxi_duration.model.directory import REPORT_FILE, RESTORE, dump_json, read_file
from taxi_duration.model.features import ZONES, Floats
from taxi_duration.model.month_sums import Profile
from taxi_duration.model.training import Training
from taxi_duration.regression.metrics import Evaluation
from taxi_duration.settings import Thresholds
from taxi_duration.version import __version__


class Trial(Part):
    """A penalty that was tried inside the training window."""

    alpha: float = Field(description="penalty, trips")
    rmse: float = Field(description="RMSE on the window's last days, minutes, before clipping")


class MonthRows(Part):
    """Rows of one training month."""

    rows_read: int = Field(description="rows read")
    broken: dict[str, int] = Field(description="rule of the data contract -> rows that break it")


class TrainingMonths(Part):
    """The training window and its trips."""

    months: list[str] = Field(description="training months, oldest first, such as 2023-01")
    rmse: float = Field(description="RMSE on the training trips, minutes, before clipping")
    rows_read: int = Field(description="rows read")
    rows_kept: int = Field(description="rows kept, which are the trips trained on")
    dropped: dict[str, int] = Field(description="cleaning rule -> rows dropped")
    noted: dict[str, int] = Field(description="defect -> rows kept all the same")
    broken: dict[str, int] = Field(description="rule of the data contract -> rows that break it")
    by_month: dict[str, MonthRows] = Field(description="training month -> its rows")


class Validation(Part):
    """The validation month, its trips and the model's errors on them."""

    month: str = Field(description="validation month, such as 2023-02")
    rmse: float = Field(description="root mean squared error, minutes")
    mae: float = Field(description="mean absolute error, minutes")
    rows_read: int = Field(description="rows read")
    rows_kept: int = Field(description="rows kept, which are the trips validated on")
    dropped: dict[str, int] = Field(description="cleaning rule -> rows dropped")
    noted: dict[str, int] = Field(description="defect -> rows kept all the same")
    broken: dict[str, int] = Field(description="rule of the data contract -> rows that break it")


class Accuracy(Part):
    """Errors of a baseline on the validation month."""

    rmse: float = Field(description="root mean squared error, minutes")
    mae: float = Field(description="mean absolute error, minutes")


class Coefficients(Part):
    """What the model has learned, in figures people know."""

    minutes_per_mile: dict[str, list[float]] = Field(
        description="working day and day off -> minutes that a third mile adds, by hour (24)"
    )
    slowest_pairs: list[PairPace] = Field(description="zone pairs with the most minutes a mile")


class PastModel(Part):
    """A registered model and its error on an earlier validation month."""

    month: str = Field(description="its validation month")
    rmse: float = Field(description="its RMSE there, minutes")
    version: str = Field(description="its version of the registered model")
    model_id: str = Field(description="model id, such as green/2023-01-0a1b2c3d")


class Report(Part):
    """The report of a training run. Runs on the same inputs and versions give the same report."""

    model_id: str = Field(description="model id, such as green/2023-01-0a1b2c3d")
    cab: str = Field(description="cab type, such as green")
    features: str = Field(description="feature set, such as extended")
    alpha: float = Field(description="penalty, trips")
    alphas: list[float] = Field(description="penalties that could be chosen, trips")
    trials: list[Trial] = Field(description="penalties that were compared; empty without a choice")
    train: TrainingMonths = Field(description="training")
    validation: Validation = Field(description="validation")
    baselines: dict[str, Accuracy] = Field(description="mean and zone_pair_median -> errors")
    inputs: dict[str, str] = Field(description="file name -> sha256 of its bytes")
    thresholds: dict[str, float] = Field(
        description="limit of the data contract -> share of a month's rows, or ratio of row counts"
    )
    drift: dict[str, list[str]] = Field(description="file name -> what is new about its columns")
    stability: dict[str, dict[str, float]] = Field(
        description="month -> population stability index by quantity, and share of unseen pairs"
    )
    gate: Verdict | None = Field(description="the gate's verdict; null for no candidate")
    slices: list[SliceErrors] = Field(description="errors by borough, hour and distance")
    residuals: ResidualSummary = Field(description="distribution of actual minus predicted")
    density: Density = Field(description="trips by actual and predicted minutes")
    largest_errors: list[Trip] = Field(description="trips with the largest errors, that one first")
    coefficients: Coefficients = Field(description="what the model has learned")
    past: list[PastModel] = Field(description="earlier models on earlier months, oldest first")
    versions: dict[str, str] = Field(description="software -> its version")

    @property
    def is_synthetic(self) -> bool:
        """Whether it was trained or validated on made-up trips."""
        return any(map(is_synthetic, self.inputs))

    @property
    def champion(self) -> Champion | None:
        """The champion that the model was judged against, if any."""
        return self.gate.champion if self.gate else None


REPORTED_DISTRIBUTIONS = ("numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "skops")


def read_versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that the figures depend on."""
    return {
        "taxi_duration": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in REPORTED_DISTRIBUTIONS},
    }


def build_report(
    *,
    model_id: str,
    cab: str,
    training: Training,
    alphas: Sequence[float],
    train_funnels: Mapping[Month, RowFunnel],
    validation_month: Month,
    validation_funnel: RowFunnel,
    validation: Evaluation,
    baselines: Mapping[str, Evaluation],
    inputs: Mapping[str, str],
    thresholds: Thresholds,
    drift: Mapping[str, Sequence[str]],
    stability: Mapping[str, Shift],
    profile: Profile,
    analysis: ErrorAnalysis,
    verdict: Verdict | None = None,
    past: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Return the report of a run's figures.

    Args:
        model_id: the model's identity.
        alphas: those that could have been chosen.
        train_funnels: training month -> what became of its rows, oldest first.
        inputs: file name -> sha256 of its bytes.
        baselines: name -> its errors on the validation month.
        thresholds: the data contract's limits, which each month kept.
        drift: file name -> sentences on what is new about its columns.
        stability: how much the months' trips differ, as `compare_months` returns it.
        profile, analysis: of the validation month.
        verdict: the gate's; None for a model that is no candidate.
        past: errors of earlier models on earlier validation months, from the registry.

    Returns:
        The report; errors in minutes, rows as counts. The training RMSE and the trials' are
        before clipping, since they come from sums.
    """
    first, *others = train_funnels.values()
    residuals = analysis.residuals
    return Report(
        model_id=model_id,
        cab=cab,
        features=training.model.features.name,
        alpha=training.model.alpha,
        alphas=list(alphas),
        trials=[Trial(alpha=each.alpha, rmse=each.rmse) for each in training.trials],
        train=TrainingMonths(
            months=[str(month) for month in train_funnels],
            rmse=training.rmse,
            **_count_rows(sum(others, first)),
            by_month={
                str(month): MonthRows(rows_read=funnel.rows_read, broken=dict(funnel.broken))
                for month, funnel in train_funnels.items()
            },
        ),
        validation=Validation(
            month=str(validation_month),
            rmse=validation.rmse,
            mae=validation.mae,
            **_count_rows(validation_funnel),
        ),
        baselines={
            name: Accuracy(rmse=errors.rmse, mae=errors.mae) for name, errors in baselines.items()
        },
        inputs=dict(sorted(inputs.items())),
        thresholds=thresholds.model_dump(),
        drift={name: list(said) for name, said in sorted(drift.items()) if said},
        stability={month: dict(shift) for month, shift in stability.items()},
        gate=verdict,
        slices=analysis.measure_slices(),
        residuals=residuals.summarise(),
        density=Density(step_minutes=STEP_MINUTES, counts=residuals.density.tolist()),
        largest_errors=list(residuals.largest),
        coefficients=Coefficients(
            minutes_per_mile=measure_minutes_per_mile(training.model.predict_clean, profile.pairs),
            slowest_pairs=residuals.find_slowest_pairs(),
        ),
        past=[PastModel(**each) for each in past],
        versions=read_versions(),
    )


def _count_rows(funnel: RowFunnel) -> dict[str, Any]:
    names = ("rows_read", "rows_kept", "dropped", "noted", "broken")
    return {name: getattr(funnel, name) for name in names}


def load_report(directory: str | Path) -> Report:
    """Return the report of a model directory, its hash verified.

    Raises:
        ModelError: the directory or its report is missing or altered, or is no report.
    """
    return read_report(read_file(directory, REPORT_FILE), str(Path(directory, REPORT_FILE)))


def dump_report(report: Report) -> bytes:
    """Return the contents of report.json; NaN is refused, since no reader of JSON need accept it.

    Raises:
        ValueError: a figure is not finite; `check_finite` names it.
    """
    return dump_json(report.model_dump())


def read_report(content: bytes, place: str) -> Report:
    """Return the report that a file holds.

    Args:
        content: JSON.
        place: where it lies, for the message.

    Raises:
        ModelError: it is no report, or one without a field.
    """
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise ModelError(
            f"{place} is not a report ({where}: {first['msg']})",
            RESTORE,
        ) from error


def check_finite(report: Report) -> None:
    """Refuse a report in which a figure is NaN or infinite: such a model predicts nothing.

    Raises:
        ModelError: naming each such figure.
    """
    figures = _find_floats(report.model_dump())
    wrong = [f"{place} is {value}" for place, value in figures if not math.isfinite(value)]
    if wrong:
        raise ModelError(
            f"{', '.join(wrong)}, so this model is neither saved nor logged",
            f"a number among the trips of {', '.join(report.inputs)} is too large to compute "
            "with. Look for it there, or train on other months",
        )


def _find_floats(content: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield every floating-point number of a dump, and where it is, such as `validation.rmse`."""
    if isinstance(content, float):
        yield place, content
    elif isinstance(content, dict | list):
        inside = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in inside:
            yield from _find_floats(value, f"{place}.{name}" if place else str(name))


MARGINAL_MILES = (2.0, 3.0)
"""One more mile is measured between these: most trips are about as long."""

MOST_PAIRS = 500
WORKING_DAY, DAY_OFF = np.datetime64("2023-01-09", "us"), np.datetime64("2023-01-08", "us")
"""A Monday that is no holiday, and the Sunday before it."""


def measure_minutes_per_mile(
    predict: Predict, pair_trips: npt.NDArray[np.int64]
) -> dict[str, list[float]]:
    """Return what one more mile adds to a trip's predicted minutes, by hour of the day.

    Args:
        pair_trips: (PAIRS,) how many trips each zone pair has: the mean over the commonest
            `MOST_PAIRS` pairs is weighted by them.

    Returns:
        24 figures each for a working day and a day off.
    """
    pairs = np.argsort(-pair_trips, kind="stable")[:MOST_PAIRS]
    weights = pair_trips[pairs] / pair_trips[pairs].sum()
    hours = np.arange(24).astype("timedelta64[h]")

    def predict_all(day: np.datetime64, miles: float) -> Floats:
        return predict(
            {
                "pickup": np.repeat(day + hours, len(pairs)),
                "pickup_zone": np.tile(pairs // ZONES, 24),
                "dropoff_zone": np.tile(pairs % ZONES, 24),
                "distance_miles": np.full(24 * len(pairs), miles),
            }
        ).reshape(24, len(pairs))

    near, far = MARGINAL_MILES
    return {
        # Not a matrix product, whose last bits depend on the number of BLAS threads.
        name: (
            ((predict_all(day, far) - predict_all(day, near)) * weights).sum(axis=1) / (far - near)
        ).tolist()
        for name, day in (("working day", WORKING_DAY), ("day off", DAY_OFF))
    }


def collect_metrics(report: Report) -> dict[str, float]:
    """Return the report's figures by flat names, such as `validation_rmse`, errors in minutes.

    A rule of the data contract counts as `train_zone_missing`; trips that were dropped or kept and
    noted as `train_dropped_shorter_than_1_minute` and `train_noted_zero_distance`. Stability is the
    validation month's. A slice's is such as `slice_hour_night_0_to_5_rmse`.
    """
    train, validation = report.train, report.validation
    metrics = {
        "train_rmse": train.rmse,
        "validation_rmse": validation.rmse,
        "validation_mae": validation.mae,
    }
    for part, rows in (("train", train), ("validation", validation)):
        metrics[f"{part}_rows_read"] = float(rows.rows_read)
        metrics[f"{part}_rows_kept"] = float(rows.rows_kept)
        counts = ((rows.broken, ""), (rows.dropped, "dropped "), (rows.noted, "noted "))
        for by_rule, prefix in counts:
            for rule, count in by_rule.items():
                metrics[re.sub(r"\W", "_", f"{part} {prefix}{rule}")] = float(count)
    for name, errors in report.baselines.items():
        metrics[f"{name}_rmse"] = errors.rmse
    for name, figure in report.stability[validation.month].items():
        metrics[f"stability_{name}"] = figure
    for each in report.slices:
        metrics[re.sub(r"\W+", "_", f"slice {each.kind} {each.name} rmse")] = each.rmse
    for name, figure in collect_gate_figures(report).items():
        metrics[f"gate_{name}"] = figure
    return metrics


def collect_gate_figures(report: Report) -> dict[str, float]:
    """Return the champion's RMSE (minutes) and by what share a candidate's is lower, if judged."""
    gate = report.gate
    figures: dict[str, float | None] = {}
    if gate and gate.champion:
        figures["champion_rmse"] = gate.champion.rmse
    if gate and gate.bootstrap:
        figures["improvement"] = gate.bootstrap.improvement
        figures["lowest_improvement"] = gate.bootstrap.lowest
    return {name: figure for name, figure in figures.items() if figure is not None}


def describe_schema() -> str:
    """Return docs/report.md: every field of report.json, its type and what it means."""
    schema = Report.model_json_schema(mode="serialization")
    parts = {"Report": schema, **schema["$defs"]}
    lines = [
        "# report.json",
        "",
        "The report of a training run, in its model directory. It is the dump of",
        "`taxi_duration.evaluation.report.Report`; `Report.model_validate_json` reads it back, and",
        "`Report.model_json_schema()` is its JSON schema. "
        "`python -m taxi_duration.evaluation.report`",
        "prints this page.",
    ]
    for name, part in parts.items():
        lines += ["", f"## {name}", "", *part.get("description", "").split("\n\n")[:1], ""]
        lines += ["| field | type | meaning |", "| --- | --- | --- |"]
        for field, kind in part["properties"].items():
            lines.append(f"| `{field}` | {_name_type(kind)} | {kind.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _name_type(kind: Mapping[str, Any]) -> str:
    """Return how a field's type reads, such as `list of Trial`."""
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in kind:
        return f'"{kind["const"]}"'
    choices = kind.get("anyOf") or kind.get("oneOf")
    if choices:
        return " or ".join(map(_name_type, choices))
    if kind["type"] == "array":
        return f"list of {_name_type(kind['items'])}"
    if kind["type"] == "object":
        return f"object of {_name_type(kind['additionalProperties'])}"
    return str(kind["type"])


if __name__ == "__main__":
    sys.stdout.write(describe_schema())
