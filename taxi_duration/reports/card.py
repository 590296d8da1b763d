"""The card of one training run: markdown for Prefect, a page of its own, lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from taxi_duration.evaluation.report import Report
from taxi_duration.reports.card_origin import (
    describe_columns,
    describe_contract,
    describe_origin,
    describe_stability,
    tabulate_trips,
)
from taxi_duration.reports.card_page import fill_page, make_figure, render_text
from taxi_duration.reports.card_parts import (
    Part,
    Plot,
    describe_coefficients,
    describe_largest_errors,
    describe_past,
    describe_residuals,
    describe_result,
    describe_slices,
)
from taxi_duration.reports.card_plots import TITLES, draw_png, draw_svg
from taxi_duration.reports.markdown import embed_png, make_list
from taxi_duration.reports.verdict import (
    explain_verdict,
    find_fewest_trips,
    list_contenders,
    list_large_slices,
    list_reasons,
    name_verdict,
)


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
        return [*self.notices, *self.warnings, *([self.promotion] if self.promotion else [])]


NO_REMARKS = Remarks()


WIDTH = 18
"""Columns of the names in a terminal."""


def list_parts(report: Report, remarks: Remarks = NO_REMARKS) -> list[Part]:
    """The whole card, in the order a reader wants it: strings are markdown."""
    return [
        *describe_result(report, remarks.promotion),
        "## Where it errs",
        *describe_slices(report),
        *describe_residuals(report),
        *describe_largest_errors(report["largest_errors"]),
        *describe_coefficients(report["coefficients"]),
        *describe_past(report),
        "## Trips",
        tabulate_trips(report),
        *describe_contract(report),
        *describe_stability(report["stability"], remarks.warnings),
        *describe_columns(report["drift"]),
        *make_list("To know about this run's months", remarks.notices),
        *describe_origin(report),
    ]


def render_markdown(
    report: Report, mlflow_run: str, model_location: str, remarks: Remarks = NO_REMARKS
) -> str:
    """The card as the markdown shown in Prefect, its plots one picture where the first of them is.

    Args:
        mlflow_run: a link to it, or why there is none.
    """
    parts = list_parts(report, remarks)
    plots = [part.name for part in parts if isinstance(part, Plot)]
    picture = embed_png(draw_png(report, plots), "; ".join(TITLES[name] for name in plots))
    is_first = iter([True])
    said = [
        part if isinstance(part, str) else picture
        for part in parts
        if isinstance(part, str) or next(is_first, False)
    ]
    return "\n\n".join([*said, f"MLflow run: {mlflow_run}", f"Model: `{model_location}`"])


def render_html(report: Report) -> str:
    """The card as a page that needs nothing but itself; equal reports give equal pages."""
    pieces = [
        render_text(part)
        if isinstance(part, str)
        else make_figure(draw_svg(report, part.name), TITLES[part.name], part.caption)
        for part in list_parts(report)
    ]
    verdict = name_verdict(report).replace(" ", "-")
    return fill_page(f"Duration model {report['model_id']}", "".join(pieces), verdict)


def outline(report: Report, promotion: str | None = None) -> str:
    """The card in a few lines of plain text: errors, contenders, the verdict, the worst slices.

    Args:
        promotion: what came of the verdict.
    """
    validation = report["validation"]
    _, *others = list_contenders(report)
    worst = [
        max(parts, key=lambda part: float(part["rmse"]))
        for _, parts in groupby(list_large_slices(report), lambda part: str(part["kind"]))
    ]
    lines = {
        "validation RMSE": [
            f"{validation['rmse']:.6f} minutes over {validation['rows_kept']:,} trips"
        ],
        "to compare": ["; ".join(f"{each.rmse:.4f} {each.name}" for each in others)],
        "verdict": [name_verdict(report), *list_reasons(report), *explain_verdict(report)],
        "champion": [promotion] if promotion else [],
        "worst slices": [
            *([f"of those of at least {find_fewest_trips(report):,} trips:"] if worst else []),
            *(
                f"{part['rmse']:.4f} {part['kind']} {part['name']} ({part['trips']:,} trips)"
                for part in worst
            ),
        ],
    }
    return "\n".join(
        f"  {'' if place else name:{WIDTH}}{text}"
        for name, texts in lines.items()
        for place, text in enumerate(texts)
    )
