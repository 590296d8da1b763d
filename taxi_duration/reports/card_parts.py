"""What a run card says, part by part: markdown and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from taxi_duration.evaluation.gate import is_beyond
from taxi_duration.evaluation.report import Report
from taxi_duration.model.features import FARTHEST_MILES
from taxi_duration.regression.metrics import compare_rmse
from taxi_duration.reports.card_origin import name_trips
from taxi_duration.reports.card_plots import FEWEST_IN_BAND
from taxi_duration.reports.markdown import make_table
from taxi_duration.reports.verdict import (
    begin_sentence,
    explain_verdict,
    find_champion,
    list_contenders,
    list_reasons,
    name_verdict,
    show_per_cent,
)


@dataclass(frozen=True)
class Plot:
    """One of `card_plots.PLOTS`, and in words what is to be seen on it."""

    name: str
    caption: str


Part = str | Plot


def describe_result(report: Report, promotion: str | None) -> list[Part]:
    """What the model comes to, the gate's verdict, and what came of it."""
    train, validation = report["train"], report["validation"]
    return [
        f"# Duration model: {report['cab']}, trained on {name_trips(report, train['months'])}",
        f"RMSE **{validation['rmse']:.4f} minutes** on {name_trips(report, [validation['month']])} "
        f"(alpha {report['alpha']:g}{_describe_trials(report['trials'])}; training RMSE "
        f"{train['rmse']:.4f}, validation MAE {validation['mae']:.4f}).",
        "\n".join(f"> {line}".rstrip() for line in describe_verdict(report).splitlines()),
        *([begin_sentence(promotion)] if promotion else []),
        tabulate_contenders(report),
    ]


def describe_verdict(report: Report) -> str:
    """The gate's verdict, the reasons for it as a list, and what it rests on."""
    verdict, explained = f"**{name_verdict(report).capitalize()}.**", explain_verdict(report)
    reasons = "\n".join(f"- {reason}" for reason in list_reasons(report))
    if not reasons:
        return " ".join([verdict, *explained])
    return "\n\n".join([verdict, reasons, *([" ".join(explained)] if explained else [])])


def _describe_trials(trials: Sequence[Mapping[str, float]]) -> str:
    tried = ", ".join(f"{trial['rmse']:.4f} with {trial['alpha']:g}" for trial in trials)
    return f", chosen inside the training window: {tried}" if tried else ""


def tabulate_contenders(report: Report) -> str:
    """The model and what it must beat, as a table."""
    rmse = report["validation"]["rmse"]
    model, *others = list_contenders(report)
    return make_table(
        ("on " + report["validation"]["month"], "RMSE, minutes", "model's RMSE is"),
        [
            (f"**{model.name}**", f"{model.rmse:.4f}", ""),
            *((each.name, f"{each.rmse:.4f}", compare_rmse(rmse, each.rmse)) for each in others),
        ],
    )


def describe_slices(report: Report) -> list[str]:
    """The model's errors by borough, hour and distance, beside the champion's if there is one."""
    champion = find_champion(report)
    settings = report["gate"]["settings"] if champion else None
    header = ["trips", "RMSE", "MAE", "mean residual"]
    said = (
        "A residual is actual less predicted minutes: above zero, trips took longer. Unmetered are "
        f"trips with a distance of 0 or less, or of over {FARTHEST_MILES:g} miles."
    )
    if settings:
        header += ["champion's RMSE", "model's RMSE is"]
        said += (
            f" The gate allows a slice of at least {settings['fewest_slice_trips']:,} trips to be "
            f"{show_per_cent(settings['most_slice_worsening'])} worse than under the champion; "
            "those beyond are marked."
        )
    return [
        said,
        *(
            make_table((kind, *header), [_describe_slice(each, settings) for each in slices])
            for kind, slices in groupby(report["slices"], lambda each: str(each["kind"]))
        ),
    ]


def _describe_slice(part: dict[str, Any], settings: dict[str, Any] | None) -> tuple[str, ...]:
    row = (
        part["name"],
        f"{part['trips']:,}",
        *(f"{part[name]:.4f}" for name in ("rmse", "mae", "mean_residual")),
    )
    if settings is None:
        return row
    change = compare_rmse(part["rmse"], part["champion_rmse"])
    if is_beyond(part, settings):
        change = f"**{change}, over the limit**"
    return (*row, f"{part['champion_rmse']:.4f}", change)


def describe_residuals(report: Report) -> list[Part]:
    """How far the truth is from what was predicted, in quantiles and plots."""
    residuals, counts = report["residuals"], report["density"]["counts"]
    figures = {"mean": residuals["mean"]} | {
        f"{share} %": minutes for share, minutes in residuals["quantiles"].items()
    }
    fullest = max(max(row) for row in counts)
    return [
        "## Residuals",
        make_table(
            ("minutes", *figures),
            [("residual: mean, and quantiles", *(f"{each:.4f}" for each in figures.values()))],
        ),
        Plot(
            "density",
            f"Trips in each square of {report['density']['step_minutes']} minutes, from 1 (faint) "
            f"to {fullest:,} (full), on a scale of logarithms. On the line, both are equal.",
        ),
        Plot(
            "residuals",
            "The median, and bands that hold the middle half and the middle nine tenths of the "
            f"trips; where at least {FEWEST_IN_BAND} trips were predicted to take so long.",
        ),
    ]


def describe_largest_errors(trips: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The trips that the model is most wrong about."""
    return [
        "## Largest errors",
        make_table(
            ("picked up", "from zone", "to zone", "miles", "minutes", "predicted", "residual"),
            [
                (
                    trip["pickup"].replace("T", " "),
                    f"{trip['pickup_zone']}",
                    f"{trip['dropoff_zone']}",
                    f"{trip['distance_miles']:.2f}",
                    f"{trip['minutes']:.2f}",
                    f"{trip['predicted']:.2f}",
                    f"{trip['minutes'] - trip['predicted']:.2f}",
                )
                for trip in trips
            ],
        ),
    ]


def describe_coefficients(coefficients: Mapping[str, Any]) -> list[Part]:
    """What people ask of a model of trips: how slow it is when, and where."""
    pairs = coefficients["slowest_pairs"]
    before, after = _describe_hours(coefficients["minutes_per_mile"])
    return [
        "## What it has learned",
        before,
        make_table(
            ("slowest pairs of zones", "trips", "miles", "predicted minutes a mile"),
            [
                (
                    f"{pair['pickup_zone']} to {pair['dropoff_zone']}",
                    f"{pair['trips']:,}",
                    f"{pair['miles']:.2f}",
                    f"{pair['minutes_per_mile']:.2f}",
                )
                for pair in pairs
            ],
        ),
        *after,
    ]


def _describe_hours(by_hour: Mapping[str, Sequence[float]]) -> tuple[Part, list[Part]]:
    """What a mile adds by hour, before and after the pairs: a plot and tables, if hours differ."""
    if len({f"{minutes:.4g}" for each in by_hour.values() for minutes in each}) == 1:
        minutes = next(iter(by_hour.values()))[0]
        return f"A third mile adds {minutes:.4g} minutes to a trip of two, at any hour.", []
    hours = [
        (f"{hour}:00", *(f"{minutes:#.4g}" for minutes in each))
        for hour, each in enumerate(zip(*by_hour.values(), strict=True))
    ]
    plot = Plot(
        "minutes_per_mile",
        "The minutes that a third mile adds to a trip of two, by the hour of the pick-up.",
    )
    return plot, [
        make_table(("minutes a mile, before noon", *by_hour), hours[:12]),
        make_table(("minutes a mile, from noon on", *by_hour), hours[12:]),
    ]


def describe_past(report: Report) -> list[Part]:
    """The RMSE of registered models on earlier months, and this one's."""
    past, validation = report["past"], report["validation"]
    if not past:
        return ["## Earlier months", "No registered model was validated on an earlier month."]
    ours = {
        "month": f"**{validation['month']}**",
        "version": "this one",
        "model_id": report["model_id"],
        "rmse": validation["rmse"],
    }
    return [
        "## Earlier months",
        Plot(
            "past",
            "RMSE in minutes on the validation months of models that were registered before this "
            "one, and its own.",
        ),
        make_table(
            ("validated on", "version", "model", "RMSE"),
            [
                (each["month"], each["version"], f"`{each['model_id']}`", f"{each['rmse']:.4f}")
                for each in [*past, ours]
            ],
        ),
    ]
