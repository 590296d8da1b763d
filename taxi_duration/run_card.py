"""The report of one training run as the markdown that Prefect shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taxi_duration.evaluation import compare_rmse
from taxi_duration.funnel import find_limit
from taxi_duration.report import Report
from taxi_duration.settings import Thresholds
from taxi_duration.stability import QUANTITIES, UNSEEN_PAIRS, Shift


@dataclass(frozen=True)
class Remarks:
    """What a reader of a run is told beside its report, which follows from the inputs alone.

    Args:
        notices: how the months got here, where that is worth attention.
        warnings: how far their trips are from each other, where that is beyond a limit.
        promotion: what came of the gate's verdict.
    """

    notices: Sequence[str] = ()
    warnings: Sequence[str] = ()
    promotion: str | None = None

    @property
    def sentences(self) -> list[str]:
        """All of them."""
        return [*self.notices, *self.warnings]


NO_REMARKS = Remarks()


def render_markdown(
    report: Report, run_link: str, model_location: str, remarks: Remarks = NO_REMARKS
) -> str:
    """The report as the markdown shown in Prefect: tables, and where the run is kept."""
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
    champion = (report["gate"] or {}).get("champion")
    if champion:
        seen = f", trained on {validation['month']} too" if champion["is_seen"] else ""
        contenders.insert(1, (f"champion, version {champion['version']}{seen}", champion["rmse"]))
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
                [
                    (name, f"{rmse:.4f}", compare_rmse(model_rmse, rmse))
                    for name, rmse in contenders
                ],
            ),
            *_describe_stability(report["stability"], remarks),
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
            *_list("To know about this run's months", remarks.notices),
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


def _describe_stability(shifts: Mapping[str, Shift], remarks: Remarks) -> list[str]:
    *train, validation = shifts
    rows = [(f"{month} beside the window's other months", shifts[month]) for month in train]
    rows.append((f"{validation} beside the training window", shifts[validation]))
    return [
        *_list("Beyond the limits of drift", remarks.warnings),
        make_table(
            ("drift: population stability index", *QUANTITIES, "unseen zone pairs"),
            [
                (name, *(f"{shift[each]:.4f}" for each in QUANTITIES), f"{shift[UNSEEN_PAIRS]:.2%}")
                for name, shift in rows
            ],
        ),
    ]


def _describe_drift(drift: Mapping[str, Sequence[str]]) -> list[str]:
    said = [f"`{name}`: {sentence}" for name, each in drift.items() for sentence in each]
    return _list("New about the columns, and of no harm", said)


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"{title}:\n\n" + "\n".join(f"- {each}" for each in sentences)] if sentences else []


def _describe_trials(trials: Sequence[Mapping[str, float]]) -> str:
    tried = ", ".join(f"{trial['rmse']:.4f} with {trial['alpha']:g}" for trial in trials)
    return f", chosen inside the training window: {tried}" if tried else ""


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, its first column aligned left and the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
