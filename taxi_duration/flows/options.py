"""What a training run is about: the options both flows take, checked before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from taxi_duration.data.bucket import check_key_prefix
from taxi_duration.data.month import FIRST_YEAR, Month
from taxi_duration.data.schema import CABS, get_cab
from taxi_duration.errors import InputError
from taxi_duration.model.features import FEATURE_SETS, FeatureSet, get_feature_set
from taxi_duration.regression.solve import check_alpha

MOST_TRAIN_MONTHS = 120
RUNNERS = ("threads", "processes", "dask")


def _whole_number(name: str, value: object, remedy: str) -> int:
    """Take 7 and "7", but not 7.0, True, "7.0" or Python's "1_0"."""
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return int(value)
    raise InputError(f"{name} {value!r} is not a whole number: give {remedy}.")


def _read_year(value: object) -> int | None:
    return (
        None if value is None else Month(_whole_number("year", value, "one such as 2023"), 1).year
    )


def _read_month(value: object) -> int | None:
    return (
        None
        if value is None
        else Month(FIRST_YEAR, _whole_number("month", value, "one from 1 to 12")).month
    )


def _read_cab(value: object) -> str:
    return get_cab(str(value)).name


def _read_features(value: object) -> str:
    return get_feature_set(str(value)).name


def _read_alpha(value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(
            f"alpha {value!r} is not a number: give one of at least 0, such as 3."
        ) from None
    return check_alpha(number)


def _read_train_months(value: object) -> int:
    number = _whole_number("train_months", value, "one such as 3")
    if not 1 <= number <= MOST_TRAIN_MONTHS:
        raise InputError(f"train_months {number} is no window: give 1 to {MOST_TRAIN_MONTHS}.")
    return number


def _read_runner(value: object) -> str | None:
    if value is None or value in RUNNERS:
        return None if value is None else str(value)
    raise InputError(f"runner {value!r} is not one: give {' or '.join(RUNNERS)}.")


def _read_address(value: object) -> str | None:
    if value is None or re.fullmatch(r"(tcp|tls)://[\w.\-\[\]:]+:[0-9]{1,5}", str(value)):
        return None if value is None else str(value)
    raise InputError(
        f"dask_address {value!r} is not one of a scheduler: give one such as tcp://10.0.0.5:8786."
    )


def check_path(value: object) -> object:
    """Refuse a path with a character that no path has.

    Raises:
        InputError: it has a null character.
    """
    if "\0" in str(value):
        raise InputError(
            f"path {str(value)!r} has a null character, which no path has: leave it out."
        )
    return value


def _describe_alphas(features: FeatureSet) -> str:
    *others, last = [f"{alpha:g}" for alpha in features.alphas]
    return f"the best of {', '.join(others)} and {last}" if others else last


Year = Annotated[
    Annotated[int, Field(ge=FIRST_YEAR, le=9999)] | None,
    BeforeValidator(_read_year),
    Field(
        description="year of the last training month; without year and month, the newest one whose "
        "next month is published"
    ),
]
MonthNumber = Annotated[
    Annotated[int, Field(ge=1, le=12)] | None,
    BeforeValidator(_read_month),
    Field(description="last training month, 1 to 12; the next one validates"),
]
CabName = Annotated[
    str,
    BeforeValidator(_read_cab),
    Field(description=f"cab type: {' or '.join(CABS)}", json_schema_extra={"enum": [*CABS]}),
]
DataDirectory = Annotated[
    Path,
    BeforeValidator(check_path),
    Field(description="directory of the months' parquet files"),
]
ModelsDirectory = Annotated[
    Path,
    BeforeValidator(check_path),
    Field(description="directory the model is written under"),
]
Features = Annotated[
    str,
    BeforeValidator(_read_features),
    Field(
        description=f"feature set: {' or '.join(FEATURE_SETS)}",
        json_schema_extra={"enum": [*FEATURE_SETS]},
    ),
]
Alpha = Annotated[
    Annotated[float, Field(ge=0)] | None,
    BeforeValidator(_read_alpha),
    Field(
        description="L2 penalty on the coefficients, in trips, 0 for least squares; by default "
        + ", ".join(f"{_describe_alphas(each)} for {each.name}" for each in FEATURE_SETS.values()),
    ),
]
TrainMonths = Annotated[
    Annotated[int, Field(ge=1, le=MOST_TRAIN_MONTHS)],
    BeforeValidator(_read_train_months),
    Field(description="number of months to train on, the last one included"),
]
NoCache = Annotated[
    bool,
    Strict(),
    Field(
        description="reuse nothing of earlier runs: fetch what was downloaded, and read what was "
        "summed, again"
    ),
]
_RUNNER_TEXT = "where months are reduced at the same time: threads, processes or dask"
RunnerName = Annotated[
    str | None,
    BeforeValidator(_read_runner),
    Field(
        description=f"{_RUNNER_TEXT}; by default one month after another",
        json_schema_extra={"enum": [*RUNNERS, None]},
    ),
]
BackfillRunnerName = Annotated[
    str,
    BeforeValidator(_read_runner),
    Field(description=_RUNNER_TEXT, json_schema_extra={"enum": [*RUNNERS]}),
]
DaskAddress = Annotated[
    str | None,
    BeforeValidator(_read_address),
    Field(
        description="scheduler of an existing Dask cluster, such as tcp://10.0.0.5:8786; by "
        "default the dask runner starts one on this machine"
    ),
]
Offline = Annotated[
    bool, Strict(), Field(description="never touch the network for data; fail on a missing file")
]
BlockName = Annotated[str, Field(min_length=1, description="name of the saved S3Bucket block")]
DataPrefix = Annotated[
    str,
    BeforeValidator(check_key_prefix),
    Field(description="key prefix of the months in the bucket"),
]
ModelsPrefix = Annotated[
    str,
    BeforeValidator(check_key_prefix),
    Field(description="key prefix the model is uploaded under"),
]


class TrainingOptions(BaseModel):
    """The options of every training run, wherever its months come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    year: Year = None
    month: MonthNumber = None
    cab: CabName = "green"
    data_dir: DataDirectory = Path("data")
    models_dir: ModelsDirectory = Path("models")
    features: Features = "extended"
    alpha: Alpha = None
    train_months: TrainMonths = 1
    no_cache: NoCache = False
    runner: RunnerName = None
    dask_address: DaskAddress = None


class LocalOptions(TrainingOptions):
    """Months in a local directory, downloaded from the TLC when absent."""

    offline: Offline = False


class S3Options(TrainingOptions):
    """Months in a bucket, kept locally once fetched."""

    data_dir: DataDirectory = Path("data/s3")
    block: BlockName = "s3-bucket-block"
    prefix: DataPrefix = "trip-data"
    models_prefix: ModelsPrefix = "models"


Options = TypeVar("Options", bound=BaseModel)


def read_options(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Check values, as a command line or a flow run gives them, and name the first wrong one.

    Raises:
        InputError: a value is wrong or no option has that name.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise cause from None
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{name} {first['input']!r}: {first['msg']}.") from None
