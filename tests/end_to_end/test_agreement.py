"""Whatever predicts, predicts the same from the same raw trips: on this machine and over HTTP."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
from pandas.tseries.holiday import USFederalHolidayCalendar

from taxi_duration import load_model
from taxi_duration.data.schema import CABS
from taxi_duration.evaluation.report import load_report
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.registry.runs import REGISTERED_MODEL, log_training
from tests.conftest import REPOSITORY
from tests.support.months import FEBRUARY, JANUARY
from tests.support.runs import call_taxi_duration
from tests.support.servers import PROGRAMS, answers, find_free_port, make_environment, run_server
from tests.support.strategies import Floats
from tests.support.trained import make_report, save_training, train_on

MOST_APART = 1e-9
"""In minutes."""

CHAMPION_URI = f"models:/{REGISTERED_MODEL}@champion"
ODD_ZONES = {"PULocationID": [999, 0, 74, 264], "DOLocationID": [75, 74, 999, 265]}

Trip = dict[str, Any]


@dataclass(frozen=True)
class Models:
    """A saved model of each feature set, and a store in which they are versions 1 and 2."""

    directories: dict[str, Path]
    store: str
    uris: dict[str, str]

    def predict(self, features: str, trips: pd.DataFrame) -> Floats:
        """What the library says, by which the others are judged."""
        return load_model(self.directories[features]).predict(trips)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    directory, directories = tmp_path_factory.mktemp("models"), {}
    store = f"sqlite:///{directory / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", store)
        for name in ("course", "extended"):
            training = train_on(JANUARY, name)
            saved = save_training(directory / name, training.model, make_report(training))
            log_training(CABS["green"], training.model, saved, load_report(saved))
            directories[name] = saved
    client = mlflow.MlflowClient(store)
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", "2")
    uris = {"course": f"models:/{REGISTERED_MODEL}/1", "extended": CHAMPION_URI}
    return Models(directories, store, uris)


@pytest.fixture(scope="module")
def trips() -> pd.DataFrame:
    """Hundreds of trips of the month after, with all columns; the odd ones are among them."""
    seen, month = pd.read_parquet(JANUARY), pd.read_parquet(FEBRUARY)
    zones = ["PULocationID", "DOLocationID"]
    is_seen = pd.MultiIndex.from_frame(month[zones]).isin(pd.MultiIndex.from_frame(seen[zones]))
    groups = [
        month[month["trip_distance"] == 0],
        month[month["trip_distance"] > 50],
        month[month[zones].max(axis=1) >= 264],
        month[~is_seen],
    ]
    assert min(map(len, groups)) >= 10
    odd = [group.sample(min(len(group), 40), random_state=1) for group in groups]
    nowhere = month.head(4).assign(**ODD_ZONES).astype(month.dtypes)
    return pd.concat([month.sample(200, random_state=1), *odd, nowhere], ignore_index=True)


def as_json(trips: pd.DataFrame, separator: str = "T") -> list[Trip]:
    """The trips with every column, as an application has them."""

    def convert(value: Any) -> Any:
        if isinstance(value, pd.Timestamp):
            return value.isoformat(sep=separator)
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else value

    rows: list[dict[Any, Any]] = trips.to_dict("records")
    return [{str(name): convert(value) for name, value in row.items()} for row in rows]


def assert_agree(found: Any, expected: Floats) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=float), expected, rtol=0, atol=MOST_APART)


def read_zones(trip: Trip) -> tuple[int, ...]:
    """Where a trip begins and ends; 0 for a zone that is none."""
    return tuple(zone if 1 <= zone <= 265 else 0 for zone in map(trip.get, ODD_ZONES))


def make_course_record(trip: Trip) -> dict[str, Any]:
    """What the pipeline of a `course` model takes for a trip."""
    start, end = read_zones(trip)
    return {"PU_DO": f"{start}_{end}", "trip_distance": trip["trip_distance"]}


def make_extended_record(holidays: Container[date], trip: Trip) -> dict[str, Any]:
    """What the pipeline of an `extended` model takes for a trip."""
    (start, end), miles = read_zones(trip), trip["trip_distance"]
    pickup = trip["lpep_pickup_datetime"]
    is_day_off = pickup.weekday() >= 5 or pickup.date() in holidays
    hour = pickup.hour + 24 * is_day_off
    if not 0 < miles <= 50:  # the taximeter measured none
        return {
            f"unmetered*PU_DO={start}_{end}": 3.0,
            f"unmetered*day_hour={hour}": 3.0,
            "unmetered": 3.0,
            "DO": str(end),
        }
    near = 1 - math.exp(-miles / 5)
    return {
        f"metered*PU_DO={start}_{end}": 1.0,
        f"near*day_hour={hour}": near,
        f"near*PU={start}": near,
        f"near*DO={end}": near,
        "near": near,
        "miles": min(miles, 30.0),
        "DO": str(end),
    }


@pytest.mark.parametrize("features", [*FEATURE_SETS])
def test_scikit_learn_alone_agrees(features: str, models: Models, trips: pd.DataFrame) -> None:
    state = skops.io.load(models.directories[features] / "model.skops", trusted=[])
    holidays = USFederalHolidayCalendar().holidays("2025-01-01", "2025-12-31").date
    make = {"course": make_course_record, "extended": partial(make_extended_record, holidays)}
    records = [make[features](trip) for trip in trips.to_dict("records")]
    minutes = state["pipeline"].predict(records)
    if state["features"]["bounds"]:
        minutes = minutes.clip(*state["features"]["bounds"])
    assert_agree(minutes, models.predict(features, trips))


@pytest.mark.parametrize("features", [*FEATURE_SETS])
def test_the_predict_command_agrees(
    features: str, models: Models, trips: pd.DataFrame, tmp_path: Path
) -> None:
    trips.to_parquet(tmp_path / "trips.parquet")
    options = {
        "--model": models.directories[features],
        "--input": tmp_path / "trips.parquet",
        "--output": tmp_path / "minutes.parquet",
    }
    arguments = [str(part) for option in options.items() for part in option]
    assert call_taxi_duration("predict", *arguments) == 0
    minutes = pd.read_parquet(tmp_path / "minutes.parquet")["predicted_minutes"]
    assert_agree(minutes, models.predict(features, trips))


UNITS = ("s", "ms", "us", "ns")
ZONE_TYPES = ("int16", "int32", "int64", "Int64", "object")
# In a process of its own: mlflow puts the code that is logged in the place of ours.
PREDICT_BY_PYFUNC = f"""
import json, sys
import mlflow, pandas
store, trips, *uris = sys.argv[1:]
mlflow.set_tracking_uri(store)
trips = pandas.read_parquet(trips)
zones = ["PULocationID", "DOLocationID"]
variants = {{"raw": trips}}
variants |= {{u: trips.astype({{"lpep_pickup_datetime": f"M8[{{u}}]"}}) for u in {UNITS}}}
variants |= {{t: trips.astype(dict.fromkeys(zones, t)) for t in {ZONE_TYPES}}}
found = {{}}
for uri in uris:
    model = mlflow.pyfunc.load_model(uri)
    found[uri] = {{name: model.predict(variant).tolist() for name, variant in variants.items()}}
    needed = ["PULocationID", "DOLocationID", "trip_distance"]
    try:
        found[uri]["without a pick-up"] = model.predict(trips[needed]).tolist()
    except mlflow.MlflowException as error:
        found[uri]["without a pick-up"] = str(error)
json.dump(found, sys.stdout)
"""


def test_pyfunc_agrees_whatever_the_types(
    models: Models, trips: pd.DataFrame, tmp_path: Path
) -> None:
    trips.to_parquet(tmp_path / "trips.parquet")
    arguments = [models.store, "trips.parquet", *models.uris.values()]
    command = [sys.executable, "-c", PREDICT_BY_PYFUNC, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    found = json.loads(done.stdout)
    for features, uri in models.uris.items():
        expected, without = models.predict(features, trips), found[uri].pop("without a pick-up")
        assert {*found[uri]} == {"raw", *UNITS, *ZONE_TYPES}
        for minutes in found[uri].values():
            assert_agree(minutes, expected)
        if features == "course":
            assert_agree(without, expected)
        else:
            assert "Model is missing inputs ['lpep_pickup_datetime']" in without


Ask = Callable[[Any], httpx.Response]


@pytest.fixture(scope="module")
def app(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """examples/serve.py with the `extended` model, as its first line says to run it."""
    url = f"http://127.0.0.1:{(port := find_free_port())}"
    command = [PROGRAMS / "uvicorn", "examples.serve:app", "--port", str(port)]
    environment = make_environment(TAXI_MODEL=str(models.directories["extended"]))
    log = tmp_path_factory.mktemp("app") / "log"
    ready = f"{url}/health"
    with (
        run_server(command, environment, log, lambda: answers(ready), REPOSITORY),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield lambda trips: client.post("/predict", json=trips)
        model_id = f"green/{models.directories['extended'].name}"
        assert client.get("/health").json() == {"model_id": model_id}
    assert "Traceback" not in log.read_text("utf-8")


def test_the_example_over_http_agrees(app: Ask, models: Models, trips: pd.DataFrame) -> None:
    for separator in "T", " ":
        answer = app(as_json(trips, separator))
        assert answer.status_code == 200, answer.text
        assert answer.json()["model_id"] == f"green/{models.directories['extended'].name}"
        assert_agree(answer.json()["minutes"], models.predict("extended", trips))


TRIP = {
    "lpep_pickup_datetime": "2023-02-01T08:30:00",
    "PULocationID": 74,
    "DOLocationID": 75,
    "trip_distance": 1.4,
}


ZONED = "the TLC's have no time zone; convert them to New York's time and drop the zone"


@pytest.mark.parametrize(
    ("trips", "said"),
    [
        ([], "the list of trips is empty: give at least one."),
        ([{}], "column trip_distance is missing: the columns are none."),
        ([{"PULocationID": 74}], "column trip_distance is missing: the columns are PULocationID."),
        ([TRIP, {}], "1 of 2 trips have no usable distance_miles: drop or fill them before"),
        ([{**TRIP, "PULocationID": None}], "1 of 1 trips have no usable pickup_zone: drop"),
        ([{**TRIP, "DOLocationID": 74.5}], "1 of 1 trips have no usable dropoff_zone: drop"),
        ([{**TRIP, "DOLocationID": -1}], "1 of 1 trips have no usable dropoff_zone: drop"),
        ([{**TRIP, "trip_distance": 1e300}], "1 of 1 trips have no usable distance_miles: drop"),
        ([{**TRIP, "trip_distance": 10**400}], "column trip_distance holds object, which cannot"),
        ([{**TRIP, "trip_distance": "far"}], "could not convert string to float: 'far'"),
        ([TRIP | {"lpep_pickup_datetime": 1675240200000}], "numbers are not times"),
        ([TRIP, TRIP | {"lpep_pickup_datetime": 1675240200000}], "numbers are not times"),
        ([TRIP | {"lpep_pickup_datetime": "soon"}], "unable to parse: soon"),
        ([TRIP | {"lpep_pickup_datetime": "2023-02-01T08:30:00Z"}], ZONED),
        ([TRIP, TRIP | {"lpep_pickup_datetime": "2023-02-01T08:30:00-05:00"}], ZONED),
        ([TRIP | {"PULocationID": True}], "which cannot be read as numbers: booleans are not num"),
        ([TRIP, TRIP | {"trip_distance": False}], "holds object, which cannot be read as numbers"),
        (TRIP, "Input should be a valid list"),
        ([TRIP, 74], "Input should be a valid dictionary"),
    ],
)
def test_the_example_says_what_is_wrong_with_trips(trips: Any, said: str, app: Ask) -> None:
    answer = app(trips)
    assert answer.status_code == 422
    assert said in answer.text
    assert ".." not in answer.text


def test_the_example_takes_zones_that_are_none_and_whole_floats(app: Ask, models: Models) -> None:
    made = [{**TRIP, "PULocationID": zone} for zone in (999, 0, 265.0, 74.0)]
    assert_agree(app(made).json()["minutes"], models.predict("extended", pd.DataFrame(made)))


@pytest.fixture(scope="module")
def served(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """`mlflow models serve` of the champion, which is an `extended` model."""
    url = f"http://127.0.0.1:{(port := find_free_port())}"
    command = [
        PROGRAMS / "mlflow", "models", "serve", "-m", CHAMPION_URI,
        "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = make_environment(MLFLOW_TRACKING_URI=models.store)
    directory = tmp_path_factory.mktemp("served")  # where this package is not
    log, ready = directory / "log", f"{url}/ping"
    with (
        run_server(command, environment, log, lambda: answers(ready), directory),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield lambda content: client.post("/invocations", json=content)


def test_mlflow_models_serve_agrees(served: Ask, models: Models, trips: pd.DataFrame) -> None:
    expected = models.predict("extended", trips)
    rows = as_json(trips, " ")
    split = {"columns": [*trips], "data": [[*row.values()] for row in as_json(trips)]}
    floats = [row | {"PULocationID": float(row["PULocationID"])} for row in rows]
    for content in (
        {"dataframe_split": split},
        {"dataframe_records": rows},
        {"dataframe_records": floats},
    ):
        answer = served(content)
        assert answer.status_code == 200, answer.text
        assert_agree(answer.json()["predictions"], expected)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({**TRIP, "PULocationID": None}, "Failed to convert column PULocationID to type 'int64'"),
        ({**TRIP, "PULocationID": -1}, "1 of 1 trips have no usable pickup_zone: drop or fill"),
        ({**TRIP, "lpep_pickup_datetime": "soon"}, "Failed to convert column lpep_pickup_datetime"),
        ({"PULocationID": 74, "DOLocationID": 75}, "Model is missing inputs"),
    ],
)
def test_mlflow_models_serve_says_what_is_wrong_with_trips(
    wrong: Trip, said: str, served: Ask
) -> None:
    answer = served({"dataframe_records": [wrong]})
    assert answer.status_code == 400
    assert said in answer.text
