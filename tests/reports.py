"""Reports with all that a card shows."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from taxi_duration.evaluation import score
from taxi_duration.month import Month
from taxi_duration.month_file import read_trips
from taxi_duration.report import Report
from taxi_duration.trips import clean_trips
from tests.months import FEBRUARY, JANUARY

MODEL_ID = "green/2025-01-1a2b3c4d"
CHAMPION = {
    "version": "1",
    "model_id": "green/2024-12-0f1e2d3c",
    "months": ["2024-12"],
    "is_seen": False,
    "rmse": 5.75,
    "mae": 4.25,
}
SETTINGS = {
    "margin": 0.0, "confidence": 0.95, "most_slice_worsening": 0.05, "fewest_slice_trips": 500,
}  # fmt: skip
QUANTILES = ("5", "25", "50", "75", "95")


def add_parts(report: Report) -> Report:
    """Give a report, where it lacks them, the parts that say how the model does, made up."""
    made_up: Report = {
        "model_id": MODEL_ID,
        "gate": None,
        "slices": [
            {
                "kind": kind, "name": name, "trips": 1000, "rmse": 5.5, "mae": 4.0,
                "mean_residual": -0.25, "champion_rmse": None,
            }
            for kind, name in (("pick-up borough", "Queens"), ("hour", "late, 20 to 23"))
        ],
        "residuals": {
            "mean": 0.5,
            "quantiles": dict(zip(QUANTILES, (-6.5, -2.5, 0.0, 2.25, 7.75), strict=True)),
            "by_predicted": [
                {
                    "from": start, "to": start + 2, "trips": 100,
                    **dict(zip(QUANTILES, (-6.0, -2.0, 0.0, 2.0, 7.0), strict=True)),
                }
                for start in (6, 8, 12)
            ],
        },
        "density": {"step_minutes": 2, "counts": np.diag(range(30)).tolist()},
        "largest_errors": [
            {
                "pickup": "2025-02-11T04:12:00", "pickup_zone": 74, "dropoff_zone": 75,
                "distance_miles": 1.25, "minutes": 59.125, "predicted": 6.0,
            }
        ],
        "coefficients": {
            "minutes_per_mile": {
                "working day": [3 + hour / 8 for hour in range(24)],
                "day off": [2.5 + hour / 16 for hour in range(24)],
            },
            "slowest_pairs": [
                {
                    "pickup_zone": 230, "dropoff_zone": 161, "trips": 61, "miles": 0.9,
                    "minutes_per_mile": 14.25,
                }
            ],
        },
        "past": [],
    }  # fmt: skip
    return deepcopy({**made_up, **report})


def judge(report: Report, *reasons: str, champion: dict[str, Any] | None = CHAMPION) -> Report:
    """The report of a candidate, promoted unless there are reasons against it."""
    gate = {
        "is_promoted": not reasons,
        "reasons": [*reasons],
        "champion": champion,
        "unavailable": None,
        "bootstrap": champion
        and {
            "improvement": 1 - report["validation"]["rmse"] / champion["rmse"],
            "lowest": 0.009,
            "resamples": 999,
            "groups": 16384,
        },
        "settings": SETTINGS,
    }
    slices = [
        {**each, "champion_rmse": champion and round(each["rmse"] * (0.94 + 0.04 * (place % 4)), 6)}
        for place, each in enumerate(report["slices"])
    ]
    return deepcopy({**report, "gate": gate, "slices": slices})


def give_past(report: Report) -> Report:
    past = [
        {
            "month": month,
            "rmse": rmse,
            "version": str(place + 1),
            "model_id": f"green/{month}-0a1b2c3d",
        }
        for place, (month, rmse) in enumerate(
            (("2024-09", 5.6), ("2024-10", 5.375), ("2024-11", 5.5), ("2024-12", 5.25))
        )
    ]
    return {**report, "past": past}


@cache
def _describe_sample() -> Report:
    """What a model trained on the sample's January does on its February."""
    # Here, since that module has its reports from this one.
    from tests.trained import make_report, train_on

    training = train_on(JANUARY, "extended")
    trips, _ = clean_trips(read_trips(FEBRUARY), Month(2025, 2))
    predicted = training.model.predict_clean(trips)
    table = pd.DataFrame(trips).assign(predicted=predicted)
    table["residual"] = table["minutes"] - predicted
    table["hour"] = table["pickup"].dt.hour
    bands = pd.cut(table["distance_miles"], [-1, 0, 1, 2, 5, 10, np.inf])
    kinds = {
        "pick-up borough": table["pickup_zone"] % 5,
        "hour": table["hour"] // 5,
        "distance": bands,
    }
    names = {
        "pick-up borough": ["Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island"],
        "hour": [f"{first} to {first + 4}" for first in range(0, 24, 5)],
        "distance": [
            "unmetered", "up to 1 mile", "1 to 2 miles", "2 to 5 miles", "5 to 10 miles",
            "over 10 miles",
        ],
    }  # fmt: skip
    slices = []
    for kind, keys in kinds.items():
        groups = [group for _, group in table.groupby(keys)]
        for name, group in zip(names[kind], groups, strict=False):
            errors = score(group["minutes"].to_numpy(), group["predicted"].to_numpy())
            slices.append(
                {
                    "kind": kind, "name": name, "trips": len(group), "rmse": errors.rmse,
                    "mae": errors.mae, "mean_residual": float(group["residual"].mean()),
                    "champion_rmse": None,
                }
            )  # fmt: skip

    def find_quantiles(group: pd.DataFrame) -> dict[str, float]:
        return {
            share: float(np.quantile(group["residual"], int(share) / 100)) for share in QUANTILES
        }

    edges = np.arange(0, 61, 2)
    counts = np.histogram2d(table["minutes"], table["predicted"], (edges, edges))[0]
    largest = table.loc[table["residual"].abs().nlargest(10).index]
    metered = table[table["distance_miles"].between(0.5, 50)].assign(trips=1)
    columns = ["trips", "distance_miles", "predicted"]
    paces = metered.groupby(["pickup_zone", "dropoff_zone"])[columns].sum()
    paces["pace"] = paces["predicted"] / paces["distance_miles"]
    slowest = paces[paces["trips"] >= 20].nlargest(10, "pace")
    by_hour = metered.groupby("hour")[columns].sum()
    pace = by_hour["predicted"] / by_hour["distance_miles"]
    errors = score(table["minutes"].to_numpy(), predicted)
    report = make_report(training)
    report["validation"] |= {"rmse": errors.rmse, "mae": errors.mae}
    report["baselines"] = {
        "mean": {"rmse": 10.4290, "mae": 8.1}, "zone_pair_median": {"rmse": 8.9404, "mae": 6.2},
    }  # fmt: skip
    return report | {
        "slices": slices,
        "residuals": {
            "mean": float(table["residual"].mean()),
            "quantiles": find_quantiles(table),
            "by_predicted": [
                {
                    "from": int(band) * 2, "to": int(band) * 2 + 2, "trips": len(group),
                    **find_quantiles(group),
                }
                for band, group in table.groupby((table["predicted"] // 2).clip(upper=29))
            ],
        },
        "density": {"step_minutes": 2, "counts": counts.astype(int).tolist()},
        "largest_errors": [
            {
                "pickup": trip.pickup.isoformat(), "pickup_zone": int(trip.pickup_zone),
                "dropoff_zone": int(trip.dropoff_zone),
                "distance_miles": float(trip.distance_miles),
                "minutes": float(trip.minutes), "predicted": float(trip.predicted),
            }
            for trip in largest.itertuples()
        ],
        "coefficients": {
            "minutes_per_mile": {
                "working day": [float(each) for each in pace],
                "day off": [float(each) * 0.85 for each in pace],
            },
            "slowest_pairs": [
                {
                    "pickup_zone": int(pickup), "dropoff_zone": int(dropoff),
                    "trips": int(row.trips), "miles": float(row.distance_miles / row.trips),
                    "minutes_per_mile": float(row.pace),
                }
                for (pickup, dropoff), row in slowest.iterrows()
            ],
        },
    }  # fmt: skip


def make_sample_report() -> Report:
    return deepcopy(_describe_sample())
