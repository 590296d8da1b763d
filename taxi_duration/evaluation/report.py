"""The report of one training run: what is written as report.json."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import is_synthetic
from taxi_duration.errors import ModelError, describe
from taxi_duration.evaluation.gate import Verdict, describe_slices
from taxi_duration.evaluation.residuals import ErrorAnalysis
from taxi_duration.evaluation.stability import Shift
from taxi_duration.model.baselines import Predict
from taxi_duration.model.directory import REPORT_FILE, RESTORE, read_file
from taxi_duration.model.features import ZONES, Floats
from taxi_duration.model.month_sums import Profile
from taxi_duration.model.training import Training
from taxi_duration.regression.metrics import THE_SAME, Evaluation, compare_rmse
from taxi_duration.settings import Thresholds
from taxi_duration.version import __version__

if TYPE_CHECKING:
    pass


MARGINAL_MILES = (2.0, 3.0)
"""Between these one more mile is measured: most trips are about as long."""

MOST_PAIRS = 500
WORKING_DAY, DAY_OFF = np.datetime64("2023-01-09", "us"), np.datetime64("2023-01-08", "us")
"""A Monday that is no holiday, and the Sunday before it."""


def measure_minutes_per_mile(
    predict: Predict, pair_trips: npt.NDArray[np.int64]
) -> dict[str, list[float]]:
    """What one more mile adds to a trip's predicted minutes, by hour of the day.

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


Report = dict[str, Any]
"""JSON-ready; runs on the same inputs, parameters, versions and registry give the same report."""

REPORTED_DISTRIBUTIONS = ("numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "skops")


def read_versions() -> dict[str, str]:
    """The versions of this package, of Python and of the libraries the figures depend on."""
    return {
        "taxi_duration": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in REPORTED_DISTRIBUTIONS},
    }


def build_report(
    *,
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
    """Put a run's figures in order.

    Args:
        alphas: those that could have been chosen.
        train_funnels: training month -> what became of its rows, oldest first.
        inputs: file name -> sha256 of its bytes.
        baselines: name -> its errors on the validation month.
        thresholds: the data contract's, which each month kept.
        drift: file name -> sentences on what is new about its columns.
        stability: how far the months' trips are from each other, as `compare_months` returns it.
        profile, analysis: the validation month's.
        verdict: the gate's; None for a model that is no candidate.
        past: what earlier models came to on earlier validation months, as the registry knows it.

    Returns:
        The report; errors in minutes, rows as counts. The training RMSE and the trials' are
        before clipping, since they come from sums.
    """
    first, *others = train_funnels.values()
    outline = outline_report(
        cab=cab,
        alphas=alphas,
        train=list(train_funnels),
        validation=validation_month,
        inputs=inputs,
        thresholds=thresholds,
    )
    return {
        "cab": cab,
        "features": training.model.features.name,
        "alpha": training.model.alpha,
        "alphas": outline["alphas"],
        "trials": [{"alpha": trial.alpha, "rmse": trial.rmse} for trial in training.trials],
        "train": {
            **outline["train"],
            "rmse": training.rmse,
            **_describe(sum(others, first)),
            "by_month": {
                str(month): {"rows_read": funnel.rows_read, "broken": funnel.broken}
                for month, funnel in train_funnels.items()
            },
        },
        "validation": {
            **outline["validation"],
            "rmse": validation.rmse,
            "mae": validation.mae,
            **_describe(validation_funnel),
        },
        "baselines": {
            name: {"rmse": errors.rmse, "mae": errors.mae} for name, errors in baselines.items()
        },
        "inputs": outline["inputs"],
        "thresholds": outline["thresholds"],
        "drift": {name: list(said) for name, said in sorted(drift.items()) if said},
        "stability": {month: dict(shift) for month, shift in stability.items()},
        "gate": verdict.describe() if verdict else None,
        "slices": describe_slices(analysis),
        "residuals": analysis.residuals.describe(),
        "density": analysis.residuals.describe_density(),
        "largest_errors": list(analysis.residuals.largest),
        "coefficients": {
            "minutes_per_mile": measure_minutes_per_mile(
                training.model.predict_clean, profile.pairs
            ),
            "slowest_pairs": analysis.residuals.list_slowest_pairs(),
        },
        "past": [dict(each) for each in past],
        "versions": outline["versions"],
    }


def outline_report(
    *,
    cab: str,
    alphas: Sequence[float],
    train: Sequence[Month],
    validation: Month,
    inputs: Mapping[str, str],
    thresholds: Thresholds,
) -> Report:
    """What a report says that is known before the training: all that identifies the run."""
    return {
        "cab": cab,
        "alphas": list(alphas),
        "train": {"months": [str(month) for month in train]},
        "validation": {"month": str(validation)},
        "inputs": dict(sorted(inputs.items())),
        "thresholds": thresholds.model_dump(),
        "versions": read_versions(),
    }


def load_report(directory: str | Path) -> Report:
    """Load the report of a model directory, its hash verified.

    Raises:
        ModelError: the directory or its report is missing or altered, or is no report.
    """
    return read_report(read_file(directory, REPORT_FILE), str(Path(directory, REPORT_FILE)))


def read_report(content: bytes, place: str) -> Report:
    """Return the report that a file holds.

    Args:
        place: where it lies, for the message.

    Raises:
        ModelError: it is no report.
    """
    try:
        report = json.loads(content)
        if not isinstance(report, dict):
            raise TypeError(f"it is a JSON {type(report).__name__}, not an object")
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{place} is not a report ({describe(error)})", RESTORE) from error
    return report


def check_finite(report: Report) -> None:
    """Refuse a report in which a figure is NaN or infinite: such a model predicts nothing.

    Raises:
        ModelError: naming each such figure.
    """
    wrong = [f"{place} is {value}" for place, value in _walk(report) if not math.isfinite(value)]
    if wrong:
        raise ModelError(
            f"{', '.join(wrong)}, so this model is neither saved nor logged",
            f"a number among the trips of {', '.join(report['inputs'])} is too large to compute "
            "with. Look for it there, or train on other months",
        )


def _walk(content: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield every floating-point number in a report, and where it is, as `validation.rmse`."""
    if isinstance(content, float):
        yield place, content
    elif isinstance(content, dict | list | tuple):
        inside = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in inside:
            yield from _walk(value, f"{place}.{name}" if place else str(name))


def explain_promotion(report: Report) -> str:
    """Why a model became champion, in a sentence."""
    validation, champion = report["validation"], report["gate"]["champion"]
    better = f"RMSE {validation['rmse']:.4f} minutes on {validation['month']}"
    if champion is None:
        return f"{better}: the first that is better than the baselines."
    change = compare_rmse(validation["rmse"], champion["rmse"])
    word = "as" if change == THE_SAME else "than"
    return f"{better}, {change} {word} that of version {champion['version']}."


def has_synthetic_trips(report: Report) -> bool:
    """Whether what a report is of was trained or validated on made-up trips."""
    return any(map(is_synthetic, report["inputs"]))


def _describe(funnel: RowFunnel) -> dict[str, Any]:
    return {
        "rows_read": funnel.rows_read,
        "rows_kept": funnel.rows_kept,
        "dropped": funnel.dropped,
        "noted": funnel.noted,
        "broken": funnel.broken,
    }


def collect_metrics(report: Report) -> dict[str, float]:
    """The report's figures as flat names, such as `validation_rmse`, errors in minutes.

    A rule of the data contract counts as `train_zone_missing`; trips that were dropped or kept and
    noted as `train_dropped_shorter_than_1_minute` and `train_noted_zero_distance`. Stability is the
    validation month's. A slice's is such as `slice_hour_night_0_to_5_rmse`.
    """
    metrics = {
        f"{part}_{name}": float(report[part][name])
        for part in ("train", "validation")
        for name in ("rmse", "mae", "rows_read", "rows_kept")
        if name in report[part]
    }
    for part in ("train", "validation"):
        for counts, prefix in (("broken", ""), ("dropped", "dropped "), ("noted", "noted ")):
            for rule, count in report[part][counts].items():
                name = re.sub(r"\W", "_", f"{part} {prefix}{rule}")
                metrics[name] = float(count)
    for name, errors in report["baselines"].items():
        metrics[f"{name}_rmse"] = float(errors["rmse"])
    for name, figure in report["stability"][report["validation"]["month"]].items():
        metrics[f"stability_{name}"] = float(figure)
    for each in report["slices"]:
        name = re.sub(r"\W+", "_", f"slice {each['kind']} {each['name']} rmse")
        metrics[name] = float(each["rmse"])
    for name, figure in collect_gate_figures(report).items():
        metrics[f"gate_{name}"] = figure
    return metrics


def collect_gate_figures(report: Report) -> dict[str, float]:
    """The champion's RMSE (minutes), and by what share of it a candidate's is lower, if judged."""
    gate = report["gate"] or {"champion": None, "bootstrap": None}
    champion, bootstrap = gate["champion"], gate["bootstrap"]
    figures = {"champion_rmse": champion["rmse"]} if champion else {}
    if bootstrap:
        figures["improvement"] = bootstrap["improvement"]
        figures["lowest_improvement"] = bootstrap["lowest"]
    return {name: figure for name, figure in figures.items() if figure is not None}
