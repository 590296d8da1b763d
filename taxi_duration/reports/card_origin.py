"""What a run card says of what its model was made from: trips, drift, files and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taxi_duration.data.clean import find_limit
from taxi_duration.evaluation.report import Report, has_synthetic_trips
from taxi_duration.evaluation.stability import UNSEEN_PAIRS, Shift
from taxi_duration.model.month_sums import QUANTITIES
from taxi_duration.reports.commands import list_commands
from taxi_duration.reports.markdown import make_list, make_table
from taxi_duration.settings import Thresholds


def name_months(months: Sequence[str]) -> str:
    """Months of a window, oldest first: two by name, more by the first and the last.

    >>> name_months(["2022-12", "2023-01", "2023-02"])
    '2022-12 to 2023-02'
    """
    return f"{months[0]} to {months[-1]}" if len(months) > 2 else ", ".join(months)


def name_trips(report: Report, months: Sequence[str]) -> str:
    """The months of a sentence on what a model was trained or validated on, if made up as such."""
    return f"{'synthetic trips of ' * has_synthetic_trips(report)}{name_months(months)}"


def tabulate_trips(report: Report) -> str:
    """What became of the rows of training and validation."""
    train, validation = report["train"], report["validation"]
    rules = [
        (f"dropped: {rule}", train["dropped"][rule], validation["dropped"][rule])
        for rule in train["dropped"]
    ] + [
        (f"kept, noted: {defect}", train["noted"][defect], validation["noted"][defect])
        for defect in train["noted"]
    ]
    rows = [
        ("read", train["rows_read"], validation["rows_read"]),
        *rules,
        ("**kept**", train["rows_kept"], validation["rows_kept"]),
    ]
    return make_table(
        ("trips", *_name_parts(report)),
        [(name, *(f"{count:,}" for count in counts)) for name, *counts in rows],
    )


def _name_parts(report: Report) -> tuple[str, str]:
    train, validation = report["train"], report["validation"]
    return f"training {name_months(train['months'])}", f"validation {validation['month']}"


def describe_contract(report: Report) -> list[str]:
    """How many rows break each rule of the data contract, and how many may."""
    train, validation = report["train"], report["validation"]
    thresholds = Thresholds(**report["thresholds"])
    return [
        make_table(
            ("contract: rows", *_name_parts(report), "limit a month"),
            [
                (
                    rule,
                    f"{count:,}{_name_worst(rule, train['by_month'])}",
                    f"{validation['broken'][rule]:,}",
                    f"{100 * find_limit(rule, thresholds):.4g} %",
                )
                for rule, count in train["broken"].items()
            ],
        )
    ]


def _name_worst(rule: str, by_month: Mapping[str, Mapping[str, Any]]) -> str:
    """The month of a window with the largest share of rows that break a rule, if there is one."""
    shares = {month: each["broken"][rule] / each["rows_read"] for month, each in by_month.items()}
    worst = max(shares, key=lambda month: shares[month])
    return f" (at most {shares[worst]:.2%}, {worst})" if shares[worst] and len(shares) > 1 else ""


def describe_stability(shifts: Mapping[str, Shift], warnings: Sequence[str]) -> list[str]:
    """How far the months' trips are from each other, and what is beyond the limits."""
    *train, validation = shifts
    rows = [(f"{month} beside the window's other months", shifts[month]) for month in train]
    rows.append((f"{validation} beside the training window", shifts[validation]))
    return [
        "## Drift",
        *make_list("Beyond the limits of drift", warnings),
        make_table(
            ("drift: population stability index", *QUANTITIES, "unseen zone pairs"),
            [
                (name, *(f"{shift[each]:.4f}" for each in QUANTITIES), f"{shift[UNSEEN_PAIRS]:.2%}")
                for name, shift in rows
            ],
        ),
    ]


def describe_columns(drift: Mapping[str, Sequence[str]]) -> list[str]:
    """What is new about the files' columns, if anything is."""
    said = [f"`{name}`: {sentence}" for name, each in drift.items() for sentence in each]
    return make_list("New about the columns, and of no harm", said)


def describe_origin(report: Report) -> list[str]:
    """All that it takes to have the same model again: files, software and commands."""
    return [
        "## Making it again",
        tabulate_files(report["inputs"]),
        make_table(("software", "version"), [*report["versions"].items()]),
        f"To train this model, and to reproduce it:\n\n{list_commands(report)}",
    ]


def tabulate_files(inputs: Mapping[str, str]) -> str:
    """The months' files, as a table."""
    rows = [(f"`{name}`", f"`{digest}`") for name, digest in inputs.items()]
    return make_table(("file", "sha256"), rows)
