"""Make yellow taxi months of any size: the TLC's schema and its defects, none of its rows.

A month is written a row group at a time, so that memory does not grow with its rows. The same
seed, month and rows give the same trips; every month has a seed of its own, and all months share
a city: where zones lie, how popular and how slow they are.

Units: miles, miles an hour, seconds, US dollars; timestamps are naive New York time in whole
seconds. Zones run 1..265; a pair is one number, (pickup zone - 1) * 265 + (drop-off zone - 1).
Sources: the TLC's column names and types, and how often real months have which defect. All other
numbers are chosen by hand; none is measured on a TLC file.
"""

from __future__ import annotations

import itertools
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data import make_sample
from data.make_sample import (
    F64,
    I32,
    I64,
    TEXT,
    TIME,
    ZONES,
    Columns,
    Floats,
    choose_rows,
    hour_of_week,
    spoil_trips,
)

SEED = 2026
ROWS_A_GROUP = 2**20
DEFECTS = {
    "other_month": 0.0004,
    "not_after_pickup": 0.003,
    "under_a_minute": 0.022,
    "over_an_hour": 0.006,
    "no_miles": 0.025,
    "over_100_miles": 0.00002,
}
"""Shares of a month's rows, of which no row has two; half of `under_a_minute` has no miles either.
"""
FARTHEST_MILES = 278_990.0
UNMETERED = 0.03  # share of rows for which a meter's columns are null
METER = ("passenger_count", "RatecodeID", "store_and_fwd_flag", "congestion_surcharge")
# fmt: off
TYPES = {  # the TLC's yellow schema of 2023 and 2024, in its order
    "VendorID": I32, "tpep_pickup_datetime": TIME, "tpep_dropoff_datetime": TIME,
    "passenger_count": I64, "trip_distance": F64, "RatecodeID": I64, "store_and_fwd_flag": TEXT,
    "PULocationID": I32, "DOLocationID": I32, "payment_type": I64, "fare_amount": F64,
    "extra": F64, "mta_tax": F64, "tip_amount": F64, "tolls_amount": F64,
    "improvement_surcharge": F64, "total_amount": F64, "congestion_surcharge": F64,
    "Airport_fee": F64,
}
# fmt: on


@dataclass(frozen=True)
class City(make_sample.City):
    """The sample's kind of city, with zones that are not equally crowded."""

    crowding: Floats  # share of its speed that a zone loses when the week is at its busiest


@cache
def make_city(seed: int) -> City:
    """The same city for every month of a seed."""
    rng = np.random.default_rng(seed)
    spot = rng.normal(0, 2.6, (ZONES, 2))
    spot[-2], spot[-1] = (0, 0), (9, 7)  # 264 is unknown, 265 is out of town
    gap = spot[:, None] - spot[None]
    rank = np.arange(1, ZONES + 1)
    return City(
        miles=0.3 + 1.1 * np.sqrt((gap**2).sum(axis=2) + 0.4),  # streets are not straight
        pickups=np.append(rng.permutation(rank[2:] ** -1.4), [0.003, 0.0005]),
        dropoffs=np.append(rng.permutation(rank[2:] ** -1.0), [0.004, 0.01]),
        season=rng.random(ZONES),
        slowness=rng.uniform(0.75, 1.35, ZONES),
        crowding=rng.uniform(0.15, 0.55, ZONES),
        wait=rng.uniform(30, 120, ZONES),
    )


def busyness() -> Floats:
    """Demand by hour of week, at most 1: two rush hours on weekdays, late evenings at weekends."""
    hour = np.arange(24)
    weekday = 0.1 + 0.5 * np.exp(-(((hour - 8) / 2) ** 2)) + 0.9 * np.exp(-(((hour - 18) / 4) ** 2))
    weekend = 0.2 + 0.8 * np.exp(-(((hour - 20) / 6) ** 2)) + 0.5 * (hour < 3)
    week: Floats = np.concatenate([np.tile(weekday, 5), np.tile(weekend, 2)])
    return week / float(week.max())


def draw_pickups(
    month: str, rows: int, span: tuple[float, float], rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Sorted timestamps from that span of the month's demand; (0, 1) is all of it."""
    start = np.datetime64(month, "M")
    hours = np.arange(start.astype("M8[h]"), (start + 1).astype("M8[h]"))
    demand = np.cumsum(busyness()[hour_of_week(hours)])
    drawn = np.searchsorted(demand / demand[-1], rng.uniform(*span, rows), side="right")
    return np.sort(hours[drawn].astype("M8[s]") + rng.integers(0, 3600, rows))


def draw_pairs(city: City, month: str, rows: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Indices of zone pairs: popular zones, near ones first, and some zones liked by season."""
    year_share = np.datetime64(month, "M").astype(int) % 12 / 12
    liked = 1 + 0.3 * np.cos(2 * np.pi * (year_share - city.season))
    nearness = 0.002 + np.exp(-city.miles / 1.6)
    weight = np.cumsum(np.outer(city.pickups * liked, city.dropoffs * liked) * nearness)
    return np.searchsorted(weight / weight[-1], rng.random(rows), side="right")


def draw_trips(
    city: City, month: str, rows: int, span: tuple[float, float], rng: np.random.Generator
) -> Columns:
    """Trips without a defect: pickup time, zone pair, miles and seconds."""
    pickup, pair = draw_pickups(month, rows, span, rng), draw_pairs(city, month, rows, rng)
    start, end = np.divmod(pair, ZONES)
    miles = (city.miles.ravel()[pair] * rng.lognormal(0, 0.18, rows)).round(2)
    crowd = busyness()[hour_of_week(pickup)] * (city.crowding[start] + city.crowding[end]) / 2
    mph = (13 + 12 * (1 - np.exp(-miles / 6))) * (1 - crowd)  # far trips use faster roads
    driven = 3600 * miles / mph * np.sqrt(city.slowness[start] * city.slowness[end])
    seconds = (city.wait[start] + city.wait[end] + driven) * rng.lognormal(0, 0.22, rows)
    return {"pickup": pickup, "pair": pair, "miles": miles, "seconds": np.rint(seconds).astype(int)}


def plant_defects(trips: Columns, month: str, rng: np.random.Generator) -> Columns:
    """The same trips with DEFECTS in rows chosen at random, at least three of each."""
    pickup, miles, seconds = (trips[c].copy() for c in ("pickup", "miles", "seconds"))
    size = {name: max(3, round(share * len(pickup))) for name, share in DEFECTS.items()}
    far, other, *wrong_trips = choose_rows(trips["pair"], size, rng)

    first, after = (np.datetime64(month, "M") + i for i in (0, 1))
    years = [year for year in range(2001, 2042) if year != int(month[:4])]
    clock = (rng.choice(years, len(other)) - 1970).astype("M8[Y]").astype("M8[s]")
    wrong = clock + rng.integers(0, 365 * 86_400, len(other))
    wrong[1::3] = first.astype("M8[s]") - rng.integers(1, 7200, len(wrong[1::3]))
    wrong[2::3] = after.astype("M8[s]") + rng.integers(0, 7200, len(wrong[2::3]))
    pickup[other] = wrong

    spoil_trips(miles, seconds, wrong_trips, rng)
    miles[far] = np.geomspace(101, FARTHEST_MILES, len(far)).round(2)
    return trips | {"pickup": pickup, "miles": miles, "seconds": seconds}


def draw_charges(trips: Columns, rng: np.random.Generator) -> Columns:
    """The columns no trip needs: what the meter and the driver noted, and what was paid."""
    rows, to_core = len(trips["pair"]), trips["pair"] % ZONES < 60
    fare = (3 + 0.7 * np.rint(3 * trips["miles"] + trips["seconds"] / 180)).round(2)
    tip = np.rint(fare * 20 * rng.choice([0, 4, 5], rows)) / 100
    paid: Columns = {
        "fare_amount": fare,
        "extra": rng.choice([0.0, 1.0, 2.5], rows),
        "mta_tax": np.full(rows, 0.5),
        "tip_amount": tip,
        "tolls_amount": np.where(rng.random(rows) < 0.05, 6.94, 0.0),
        "improvement_surcharge": np.ones(rows),
        "congestion_surcharge": np.where(to_core, 2.5, 0.0),
        "Airport_fee": np.where(trips["pair"] // ZONES == 131, 1.75, 0.0),
    }
    return paid | {
        "VendorID": np.where(rng.random(rows) < 0.25, 1, 2),
        "store_and_fwd_flag": np.where(rng.random(rows) < 0.995, "N", "Y"),
        "RatecodeID": np.where(rng.random(rows) < 0.95, 1, 2),
        "passenger_count": rng.integers(1, 5, rows),
        "total_amount": np.sum(list(paid.values()), axis=0).round(2),
        "payment_type": np.where(tip > 0, 1, 2),
    }


def make_trips(
    month: str,
    rows: int,
    span: tuple[float, float] = (0.0, 1.0),
    seed: int = SEED,
) -> pa.Table:
    """One row a trip of `month` ("2023-01"), by pickup time but for the planted wrong clocks.

    Args:
        span: which part of the month's demand, as shares of it from its first second on.
    """
    rng = np.random.default_rng([seed, *map(int, month.split("-")), round(span[0] * 1e6)])
    meant = draw_trips(make_city(seed), month, rows, span, rng)
    trips = plant_defects(meant, month, rng)
    columns = draw_charges(meant, rng) | {
        "tpep_pickup_datetime": trips["pickup"],
        "tpep_dropoff_datetime": trips["pickup"] + trips["seconds"],
        "PULocationID": trips["pair"] // ZONES + 1,
        "DOLocationID": trips["pair"] % ZONES + 1,
        "trip_distance": trips["miles"],
    }
    null = dict.fromkeys(METER, rng.random(rows) < UNMETERED)
    arrays = [pa.array(columns[c], mask=null.get(c)).cast(type_) for c, type_ in TYPES.items()]
    made_by = f"Synthetic: made by benchmarks/months.py with seed {seed}; no TLC row is in it."
    mark = {"synthetic": "true", "description": made_by}
    return pa.table(arrays, schema=pa.schema(TYPES.items(), metadata=mark))


def write_month(path: Path, month: str, rows: int, seed: int = SEED) -> None:
    """Write a month as the TLC does: ZSTD, a million rows a group; whole or not at all."""
    groups = -(-rows // ROWS_A_GROUP)
    ends = [rows * group // groups for group in range(groups + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as unfinished, ExitStack() as opened:
        made, writer = Path(unfinished, path.name), None
        for start, end in itertools.pairwise(ends):
            trips = make_trips(month, end - start, (start / rows, end / rows), seed)
            if writer is None:
                writer = opened.enter_context(
                    pq.ParquetWriter(made, trips.schema, compression="zstd")
                )
            writer.write_table(trips, row_group_size=ROWS_A_GROUP)
        opened.close()
        made.replace(path)
