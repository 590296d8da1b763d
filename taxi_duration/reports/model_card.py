"""The model card: README.md of a model directory, in the format that model hubs read.

A YAML front matter, as Hugging Face's model cards have it, and what a user of the model must know.
"""

from __future__ import annotations

from typing import Any

from taxi_duration.evaluation.report import Report, has_synthetic_trips
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.reports.card_origin import (
    name_months,
    name_trips,
    tabulate_files,
    tabulate_trips,
)
from taxi_duration.reports.card_parts import describe_slices, describe_verdict, tabulate_contenders
from taxi_duration.reports.commands import list_commands
from taxi_duration.reports.verdict import find_fewest_trips, list_large_slices

TASK = "tabular-regression"


def render_model_card(report: Report) -> str:
    """README.md of a report's model; equal reports give equal cards."""
    import yaml

    front = yaml.safe_dump(describe_metadata(report), sort_keys=False, width=100)
    return f"---\n{front}---\n\n" + "\n\n".join(_list_sections(report)) + "\n"


def describe_metadata(report: Report) -> dict[str, Any]:
    """The front matter: what a hub files the model under, and its figures for a machine."""
    cab, validation = report["cab"], report["validation"]
    records = "synthetic trips" if has_synthetic_trips(report) else "TLC trip records"
    return {
        "license": "mit",
        "library_name": "sklearn",
        "pipeline_tag": TASK,
        "tags": ["sklearn", "skops", TASK, "nyc-taxi", "trip-duration", cab],
        "model_format": "skops",
        "model_file": "model.skops",
        "metrics": ["rmse", "mae"],
        "model-index": [
            {
                "name": report["model_id"],
                "results": [
                    {
                        "task": {"type": TASK, "name": "Trip duration in minutes"},
                        "dataset": {
                            "type": f"nyc-{records.lower().replace(' ', '-')}",
                            "name": f"{records}, {cab}, {validation['month']}",
                            "config": cab,
                            "split": validation["month"],
                        },
                        "metrics": [
                            {
                                "type": name,
                                "value": validation[name],
                                "name": f"{name.upper()}, minutes",
                            }
                            for name in ("rmse", "mae")
                        ],
                    }
                ],
            }
        ],
    }


def _list_sections(report: Report) -> list[str]:
    cab, train, validation = report["cab"], report["train"], report["validation"]
    is_made_up = has_synthetic_trips(report)
    months = name_trips(report, train["months"])
    records = "" if is_made_up else "the TLC's trip records of "
    return [
        f"# {report['model_id']}",
        f"How many minutes a {cab} taxi in New York City will take: a linear regression with "
        f"{report['features']} features, trained on {records}{months}. On those of "
        f"{validation['month']} its RMSE is **{validation['rmse']:.4f} minutes**, its MAE "
        f"{validation['mae']:.4f}. All figures are from `report.json`; `report.html` shows more.",
        "## Intended use",
        "To try this package out. It says nothing of real trips."
        if is_made_up
        else f"To estimate the duration of a {cab} trip of 1 to 60 minutes from what is known at "
        "its start: the zones of pick-up and drop-off, the time, and the distance by road. It is "
        "not for trips outside these zones, for pricing or paying anybody, or for judging drivers.",
        "## Training data",
        f"{train['rows_kept']:,} of {train['rows_read']:,} trips of "
        f"{name_months(train['months'])}. The files of training and validation:",
        tabulate_files(report["inputs"]),
        tabulate_trips(report),
        "## Training",
        _describe_training(report),
        "## Evaluation",
        f"On {validation['rows_kept']:,} trips of {validation['month']}, the month after the "
        "training window, none of which was trained on.",
        tabulate_contenders(report),
        describe_verdict(report),
        *describe_slices(report),
        "## Limits",
        _describe_limits(report),
        "## How to use it",
        "With the package that trained it, from raw trips:",
        "```python\nfrom taxi_duration import load_model\n\n"
        f'model = load_model("models/{report["model_id"]}")\n'
        "minutes = model.predict(trips)  # a frame with the TLC's columns\n```",
        "Loading holds the model and its report against `manifest.json`, and runs nothing in them. "
        "`model.skops` also holds the plain scikit-learn pipeline, for `skops.io.load`, which "
        "needs no trusted types.",
        "## How to train it again",
        list_commands(report),
    ]


def _describe_training(report: Report) -> str:
    alpha, features = report["alpha"], FEATURE_SETS.get(report["features"])
    if alpha:
        solved = (
            f"Least squares with an L2 penalty of {alpha:g} trips on the coefficients, solved "
            "exactly from sums over the trips; the intercept is free."
        )
    else:
        solved = "Plain least squares, solved exactly from sums over the trips."
    if features is None:
        clipped = ", before predictions are clipped, if its feature set has bounds"
    elif features.bounds:
        lowest, highest = features.bounds
        clipped = f", before predictions are clipped to {lowest:g} to {highest:g}"
    else:
        clipped = "; predictions are not clipped"
    return f"{solved} Training RMSE {report['train']['rmse']:.4f} minutes{clipped}."


def _describe_limits(report: Report) -> str:
    month = report["validation"]["month"]
    unseen = report["stability"][month]["unseen_pairs"]
    quantiles = report["residuals"]["quantiles"]
    by_rmse = sorted(list_large_slices(report), key=lambda part: float(part["rmse"]))
    known = [
        f"- It knows the traffic of {name_months(report['train']['months'])}, and nothing of "
        "weather, road works or events; the further a trip is from then, the less it fits.",
        "- The distance it was trained on is the taximeter's, known at the end of a trip; a "
        "planned distance differs.",
    ]
    if has_synthetic_trips(report):
        known = ["- It knows nothing of any traffic: its trips are made up."]
    return "\n".join(
        [
            *known,
            f"- {unseen:.2%} of the trips of {month} were of zone pairs that it had never seen.",
            f"- Of ten trips nine took from {-quantiles['5']:.4f} minutes less to "
            f"{quantiles['95']:.4f} more than predicted.",
            *(
                f"- It errs most, of slices of at least {find_fewest_trips(report):,} trips, on "
                f"{worst['kind']} {worst['name']}: RMSE {worst['rmse']:.4f} minutes over "
                f"{worst['trips']:,} trips."
                for worst in by_rmse[-1:]
            ),
        ]
    )
