"""Small months made on the spot, for tests that look at what happens to a file."""

from pathlib import Path

import pandas as pd

from taxi_duration.data.month import Month


def write_month(
    path: Path,
    *,
    minutes: float = 10.0,
    without: str | None = None,
    month: Month | None = None,
) -> Path:
    """Write a green month of twelve alike trips, of so many minutes, `without` a column."""
    pickup = pd.Timestamp(f"{month or '2023-01'}-10 08:00:00")
    trips = pd.DataFrame(
        {
            "lpep_pickup_datetime": [pickup + pd.Timedelta(hours=hour) for hour in range(12)],
            "PULocationID": [74, 75, 166] * 4,
            "DOLocationID": [75, 41, 42] * 4,
            "trip_distance": [1.5, 2.5, 3.5] * 4,
        }
    )
    duration = pd.Timedelta(minutes=minutes)
    trips.insert(1, "lpep_dropoff_datetime", trips["lpep_pickup_datetime"] + duration)
    path.parent.mkdir(parents=True, exist_ok=True)
    trips.drop(columns=without or []).to_parquet(path)
    return path


def write_months(directory: Path, first: Month, **changes: object) -> Path:
    """Write a training month and the one that validates it."""
    for month in (first, first.next):
        path = directory / month.file_name("green")
        write_month(path, month=month, **changes)  # type: ignore[arg-type]
    return directory


def identify(path: Path) -> tuple[int, int]:
    """What tells a file from another that was put in its place."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


SAMPLE = Path(__file__).parents[2] / "data" / "sample"
JANUARY, FEBRUARY, MARCH = (
    SAMPLE / f"synthetic_green_tripdata_2025-0{month}.parquet" for month in (1, 2, 3)
)
