"""Hypothesis strategies for trips."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

START = np.datetime64("2023-01-02T00:00:00", "us")


@st.composite
def clean_trips(draw: st.DrawFn, min_size: int = 1, max_size: int = 30) -> pd.DataFrame:
    """Trips as `clean_trips` returns them, with few zones so that pairs repeat."""
    rows = draw(st.integers(min_size, max_size))

    def column(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    zones = st.sampled_from([1, 2, 3, 41, 264, 265])
    seconds = np.array(column(st.integers(0, 4 * 7 * 86_400)), dtype="timedelta64[s]")
    return pd.DataFrame(
        {
            "pickup": START + seconds.astype("timedelta64[us]"),
            "pickup_zone": np.array(column(zones), dtype=np.int64),
            "dropoff_zone": np.array(column(zones), dtype=np.int64),
            "distance_miles": np.array(
                column(st.one_of(st.just(0.0), st.floats(0, 300_000, width=32))), dtype=np.float64
            ),
            "minutes": np.array(column(st.floats(1, 60)), dtype=np.float64),
        }
    )
