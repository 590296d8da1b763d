"""Write three synthetic green taxi months: the TLC's schema and its defects, none of its rows.

Units: miles, miles an hour, seconds, US dollars; timestamps are naive New York time in whole
seconds. Hours of the week run 0..167 from Monday midnight, zones 1..265; a pair is one number,
(pickup zone - 1) * 265 + (drop-off zone - 1).
Sources: the TLC's column names and types, and how often real months have which defect. All other
numbers are chosen by hand; none is measured on a TLC file.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

SEED = 2025
FILE_NAME = "synthetic_green_tripdata_{}.parquet"
MONTHS = {"2025-01": 19_600, "2025-02": 18_700, "2025-03": 21_300}  # month -> rows
ZONES = 265
# Shares of a month's rows, of which no row has two; half of `under_a_minute` has no miles either.
DEFECTS = {
    "other_month": 0.0007,
    "not_after_pickup": 0.003,
    "under_a_minute": 0.026,
    "over_an_hour": 0.008,
    "no_miles": 0.030,
    "over_100_miles": 0.0006,
}
UNMETERED = 0.05  # share of rows for which a meter's columns are null
METER = {"store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "trip_type"}
METER |= {"congestion_surcharge", "cbd_congestion_fee"}
I32, I64, F64 = pa.int32(), pa.int64(), pa.float64()
TIME, TEXT = pa.timestamp("us"), pa.large_string()
# fmt: off
TYPES = {  # the TLC's green schema since 2025-01, in its order
    "VendorID": I32, "lpep_pickup_datetime": TIME, "lpep_dropoff_datetime": TIME,
    "store_and_fwd_flag": TEXT, "RatecodeID": I64, "PULocationID": I32, "DOLocationID": I32,
    "passenger_count": I64, "trip_distance": F64, "fare_amount": F64, "extra": F64, "mta_tax": F64,
    "tip_amount": F64, "tolls_amount": F64, "ehail_fee": F64, "improvement_surcharge": F64,
    "total_amount": F64, "payment_type": I64, "trip_type": I64, "congestion_surcharge": F64,
    "cbd_congestion_fee": F64,
}
# fmt: on


@dataclass(frozen=True)
class City:
    """What the months share. Arrays are by zone, except `miles`, which is by zone pair."""

    miles: Floats
    pickups: Floats  # relative popularity, heavy-tailed
    dropoffs: Floats
    season: Floats  # the time of year a zone is liked best, as a share of a year
    slowness: Floats  # factor on the time a mile takes
    wait: Floats  # seconds a trip loses at this end


def make_city(seed: int) -> City:
    """The same city for every month of a seed."""
    rng = np.random.default_rng(seed)
    spot = rng.normal(0, 4.0, (ZONES, 2))
    spot[-2], spot[-1] = (0, 0), (9, 7)  # 264 is unknown, 265 is out of town
    gap = spot[:, None] - spot[None]
    rank = np.arange(1, ZONES + 1)
    return City(
        miles=0.3 + 1.3 * np.sqrt((gap**2).sum(axis=2) + 0.5),  # streets are not straight
        pickups=rng.permutation(rank**-1.0),
        dropoffs=np.append(rng.permutation(rank[2:] ** -0.9), [0.05, 0.2]),
        season=rng.random(ZONES),
        slowness=rng.uniform(0.7, 1.4, ZONES),
        wait=rng.uniform(20, 120, ZONES),
    )


def busyness() -> Floats:
    """Demand by hour of week, at most 1: two rush hours on weekdays, late evenings at weekends."""
    hour = np.arange(24)
    weekday = 0.1 + 0.6 * np.exp(-(((hour - 8) / 2) ** 2)) + 0.9 * np.exp(-(((hour - 17) / 4) ** 2))
    weekend = 0.2 + 0.7 * np.exp(-(((hour - 20) / 6) ** 2)) + 0.4 * (hour < 3)
    week: Floats = np.concatenate([np.tile(weekday, 5), np.tile(weekend, 2)])
    return week / float(week.max())


def draw_pickups(month: str, rows: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Sorted timestamps inside the month."""
    start = np.datetime64(month, "M")
    hours = np.arange(start.astype("M8[h]"), (start + 1).astype("M8[h]"))
    weight = busyness()[hour_of_week(hours)]
    drawn = rng.choice(hours, rows, p=weight / weight.sum())
    return np.sort(drawn.astype("M8[s]") + rng.integers(0, 3600, rows))


def hour_of_week(when: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """0 on a Monday at midnight; the epoch was a Thursday."""
    return (when.astype("M8[h]").astype(np.int64) + 72) % 168


def draw_pairs(city: City, month: str, rows: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Indices of zone pairs: popular zones, near ones first, and some zones liked by season."""
    year_share = np.datetime64(month, "M").astype(int) % 12 / 12
    liked = 1 + 0.5 * np.cos(2 * np.pi * (year_share - city.season))
    nearness = 0.0005 + np.exp(-city.miles / 1.8)
    weight = np.outer(city.pickups * liked, city.dropoffs * liked) * nearness
    return rng.choice(weight.size, rows, p=weight.ravel() / weight.sum())


def draw_trips(city: City, month: str, rows: int, rng: np.random.Generator) -> Columns:
    """Trips without a defect: pickup time, zone pair, miles and seconds."""
    pickup, pair = draw_pickups(month, rows, rng), draw_pairs(city, month, rows, rng)
    start, end = np.divmod(pair, ZONES)
    miles = (city.miles.ravel()[pair] * rng.lognormal(0, 0.2, rows)).round(2)
    mph = 24 - 12 * busyness()[hour_of_week(pickup)]
    driven = 3600 * miles / mph * np.sqrt(city.slowness[start] * city.slowness[end])
    seconds = (city.wait[start] + city.wait[end] + driven) * rng.lognormal(0, 0.25, rows)
    return {"pickup": pickup, "pair": pair, "miles": miles, "seconds": np.rint(seconds).astype(int)}


def plant_defects(trips: Columns, month: str, rng: np.random.Generator) -> Columns:
    """The same trips with DEFECTS in rows chosen at random."""
    pickup, miles, seconds = (trips[c].copy() for c in ("pickup", "miles", "seconds"))
    size = {name: round(share * len(pickup)) for name, share in DEFECTS.items()}
    far, other, *wrong_trips = choose_rows(trips["pair"], size, rng)

    first, after = (np.datetime64(month, "M") + i for i in (0, 1))
    years = [y for y in range(2008, 2042) if y != int(month[:4])]
    clock = np.append([2008, 2041], rng.choice(years, len(other)))[: len(other)] - 1970
    wrong = clock.astype("M8[Y]").astype("M8[s]") + rng.integers(0, 365 * 86_400, len(other))
    wrong[2::3] = first.astype("M8[s]") - rng.integers(1, 7200, len(wrong[2::3]))
    wrong[3::3] = after.astype("M8[s]") + rng.integers(0, 7200, len(wrong[3::3]))
    pickup[other] = wrong

    spoil_trips(miles, seconds, wrong_trips, rng)
    miles[far] = (np.geomspace(110, 250_000, len(far)) * rng.uniform(0.95, 1, len(far))).round(2)
    return trips | {"pickup": pickup, "miles": miles, "seconds": seconds}


def choose_rows(
    pair: npt.NDArray[Any], size: dict[str, int], rng: np.random.Generator
) -> list[npt.NDArray[Any]]:
    """Rows of each of DEFECTS, none in two: those over 100 miles first, then in their order."""
    # A pair seen once would absorb its far row in its own coefficient. The slope on miles, set by
    # the other rows, would then predict weeks for the next month's far rows.
    order, trips_of_pair = rng.permutation(len(pair)), np.bincount(pair)
    common = trips_of_pair[pair[order]] >= min(20, trips_of_pair.max())
    far = order[common][: size["over_100_miles"]]
    others = [rows for name, rows in size.items() if name != "over_100_miles"]
    return [far, *np.split(order[~np.isin(order, far)], np.cumsum(others))[:-1]]


def spoil_trips(
    miles: Floats,
    seconds: npt.NDArray[Any],
    rows: Sequence[npt.NDArray[Any]],
    rng: np.random.Generator,
) -> None:
    """Give rows of each a drop-off not after pick-up, a minute, over an hour, and no miles."""
    backward, short, left_on, still = rows
    seconds[backward] = -rng.integers(1, 7200, len(backward))
    seconds[backward[::3]] = 0
    seconds[short] = rng.integers(1, 60, len(short))
    seconds[left_on] = rng.integers(3601, 86_400, len(left_on))
    miles[still] = miles[short[::2]] = 0


def draw_charges(trips: Columns, rng: np.random.Generator) -> Columns:
    """The columns no trip needs: what the meter and the driver noted, and what was paid."""
    rows, to_core = len(trips["pair"]), trips["pair"] % ZONES < 30
    fare = (3 + 0.7 * np.rint(3 * trips["miles"] + trips["seconds"] / 180)).round(2)
    tip = np.where(rng.random(rows) < 0.6, np.rint(fare * rng.choice([0.6, 0.8, 1.0], rows)) / 4, 0)
    paid: Columns = {
        "fare_amount": fare,
        "extra": rng.choice([0.0, 1.0, 2.5], rows, p=[0.5, 0.3, 0.2]),
        "mta_tax": np.full(rows, 0.5),
        "tip_amount": tip,
        "tolls_amount": np.where(rng.random(rows) < 0.02, 7.0, 0.0),
        "improvement_surcharge": np.ones(rows),
        "congestion_surcharge": np.where(to_core, 2.75, 0.0),
        "cbd_congestion_fee": np.where(to_core, 0.75, 0.0),
    }
    return paid | {
        "VendorID": rng.choice([1, 2], rows, p=[0.15, 0.85]),
        "store_and_fwd_flag": rng.choice(["N", "Y"], rows, p=[0.995, 0.005]),
        "RatecodeID": rng.choice([1, 2, 5], rows, p=[0.95, 0.01, 0.04]),
        "passenger_count": rng.choice([1, 2, 3, 5], rows, p=[0.85, 0.1, 0.03, 0.02]),
        "ehail_fee": np.zeros(rows),
        "total_amount": np.sum(list(paid.values()), axis=0).round(2),
        "payment_type": np.where(tip > 0, 1, 2),
        "trip_type": rng.choice([1, 2], rows, p=[0.96, 0.04]),
    }


def make_trips(month: str, rows: int, seed: int) -> pa.Table:
    """One row a trip of `month` ("2025-01"), by pickup time but for the planted wrong clocks."""
    rng = np.random.default_rng([seed, *map(int, month.split("-"))])
    meant = draw_trips(make_city(seed), month, rows, rng)
    trips = plant_defects(meant, month, rng)
    columns = draw_charges(meant, rng) | {
        "lpep_pickup_datetime": trips["pickup"],
        "lpep_dropoff_datetime": trips["pickup"] + trips["seconds"],
        "PULocationID": trips["pair"] // ZONES + 1,
        "DOLocationID": trips["pair"] % ZONES + 1,
        "trip_distance": trips["miles"],
    }
    null = dict.fromkeys(METER, rng.random(rows) < UNMETERED) | {"ehail_fee": np.full(rows, True)}
    arrays = [pa.array(columns[c], mask=null.get(c)).cast(type_) for c, type_ in TYPES.items()]
    made_by = f"Synthetic: made by data/make_sample.py with seed {seed}; no TLC row is in it."
    mark = {"synthetic": "true", "description": made_by}
    return pa.table(arrays, schema=pa.schema(TYPES.items(), metadata=mark))


def write_sample(directory: Path) -> None:
    """A file appears under its name only when it is whole."""
    directory.mkdir(parents=True, exist_ok=True)
    for month, rows in MONTHS.items():
        trips, name = make_trips(month, rows, SEED), FILE_NAME.format(month)
        with tempfile.TemporaryDirectory(dir=directory) as unfinished:
            pq.write_table(trips, Path(unfinished, name), compression="zstd")
            Path(unfinished, name).replace(directory / name)


def is_same(path: Path, expected: Path) -> bool:
    """Of tables and their metadata, not of bytes: those also hold the version of pyarrow."""
    if not path.is_file():
        return False
    return bool(pq.read_table(path).equals(pq.read_table(expected), check_metadata=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sample, or with --check answer 1 when it is not the one this script makes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "sample")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    asked = parser.parse_args(argv)
    if not asked.check:
        write_sample(asked.output)
        return 0
    with tempfile.TemporaryDirectory() as made:
        write_sample(Path(made))
        names = [
            n
            for n in map(FILE_NAME.format, MONTHS)
            if not is_same(asked.output / n, Path(made) / n)
        ]
    for name in names:
        print(f"{asked.output / name}: not what this script makes; run it again", file=sys.stderr)
    return len(names) > 0


if __name__ == "__main__":
    sys.exit(main())
