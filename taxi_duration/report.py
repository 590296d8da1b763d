"""The report of one training run: what is written as report.json and shown as markdown."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from taxi_duration.evaluation import Evaluation
from taxi_duration.funnel import RowFunnel, find_limit
from taxi_duration.month import Month
from taxi_duration.settings import Thresholds
from taxi_duration.training import Training
from taxi_duration.version import __version__

Report = dict[str, Any]
"""JSON-ready; two runs on the same inputs, parameters and versions give the same report."""

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
) -> Report:
    """Put a run's figures in order.

    Args:
        alphas: those that could have been chosen.
        train_funnels: training month -> what became of its rows, oldest first.
        inputs: file name -> sha256 of its bytes.
        baselines: name -> its errors on the validation month.
        thresholds: the data contract's, which each month kept.
        drift: file name -> sentences on what is new about its columns.

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
    noted as `train_dropped_shorter_than_1_minute` and `train_noted_zero_distance`.
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
    return metrics


def render_markdown(
    report: Report, run_link: str, model_location: str, notices: Sequence[str] = ()
) -> str:
    """The report as the markdown shown in Prefect: tables, and where the run is kept.

    Args:
        notices: sentences on this run that do not follow from the report.
    """
    train, validation = report["train"], report["validation"]
    model_rmse = validation["rmse"]
    months = ", ".join(train["months"])
    contenders = [
        (f"**linear regression, {report['features']} features**", model_rmse),
        (
            "zone-pair median" + (f" of {train['months'][-1]}" if train["months"][1:] else ""),
            report["baselines"]["zone_pair_median"]["rmse"],
        ),
        ("training mean", report["baselines"]["mean"]["rmse"]),
    ]
    rules = [
        (f"dropped: {rule}", train["dropped"][rule], validation["dropped"][rule])
        for rule in train["dropped"]
    ] + [
        (f"kept, noted: {defect}", train["noted"][defect], validation["noted"][defect])
        for defect in train["noted"]
    ]
    return "\n\n".join(
        [
            f"# Duration model: {report['cab']}, trained on {months}",
            f"RMSE **{model_rmse:.4f} minutes** on {validation['month']} "
            f"(alpha {report['alpha']:g}{_describe_trials(report['trials'])}; training RMSE "
            f"{train['rmse']:.4f}, validation MAE {validation['mae']:.4f}).",
            make_table(
                ("on " + validation["month"], "RMSE, minutes", "model's RMSE is"),
                [(name, f"{rmse:.4f}", _compare(model_rmse, rmse)) for name, rmse in contenders],
            ),
            make_table(
                ("trips", f"training {months}", f"validation {validation['month']}"),
                [
                    (name, f"{of_train:,}", f"{of_validation:,}")
                    for name, of_train, of_validation in [
                        ("read", train["rows_read"], validation["rows_read"]),
                        *rules,
                        ("**kept**", train["rows_kept"], validation["rows_kept"]),
                    ]
                ],
            ),
            make_table(
                (
                    "contract: rows",
                    f"training {months}",
                    f"validation {validation['month']}",
                    "limit a month",
                ),
                [
                    (
                        rule,
                        f"{count:,}{_name_worst(rule, train['by_month'])}",
                        f"{validation['broken'][rule]:,}",
                        f"{limit:.4g} %",
                    )
                    for rule, count in train["broken"].items()
                    for limit in [100 * find_limit(rule, Thresholds(**report["thresholds"]))]
                ],
            ),
            *_describe_drift(report["drift"]),
            *_list("To know about this run's months", notices),
            make_table(
                ("file", "sha256"),
                [(f"`{name}`", f"`{digest}`") for name, digest in report["inputs"].items()],
            ),
            f"MLflow run: {run_link}",
            f"Model: `{model_location}`",
        ]
    )


def _name_worst(rule: str, by_month: Mapping[str, Mapping[str, Any]]) -> str:
    """The month of a window with the largest share of rows that break a rule, if there is one."""
    shares = {month: each["broken"][rule] / each["rows_read"] for month, each in by_month.items()}
    worst = max(shares, key=lambda month: shares[month])
    return f" (at most {shares[worst]:.2%}, {worst})" if shares[worst] and len(shares) > 1 else ""


def _describe_drift(drift: Mapping[str, Sequence[str]]) -> list[str]:
    said = [f"`{name}`: {sentence}" for name, each in drift.items() for sentence in each]
    return _list("New about the columns, and of no harm", said)


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"{title}:\n\n" + "\n".join(f"- {each}" for each in sentences)] if sentences else []


def _describe_trials(trials: Sequence[Mapping[str, float]]) -> str:
    tried = ", ".join(f"{trial['rmse']:.4f} with {trial['alpha']:g}" for trial in trials)
    return f", chosen inside the training window: {tried}" if tried else ""


def _compare(ours: float, theirs: float) -> str:
    if ours == theirs or not theirs:
        return ""
    change = ours / theirs - 1
    return f"{abs(change):.1%} {'lower' if change <= 0 else 'higher'}"


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, its first column aligned left and the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
