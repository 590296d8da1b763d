"""The options of the flows, each declared once: for Prefect, the command line and Python.

A field's description is its help on the command line and its text in Prefect's form.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
)
from pydantic.fields import FieldInfo

from taxi_duration.data.bucket import DEFAULT_BLOCK, check_key_prefix
from taxi_duration.data.month import FIRST_YEAR, Month
from taxi_duration.data.schema import CABS, DEFAULT_CAB, get_cab
from taxi_duration.errors import InputError
from taxi_duration.model.features import FEATURE_SETS, FeatureSet, get_feature_set

LOCAL_FLOW, S3_FLOW = "main-flow", "main-flow-s3"
BACKFILL_FLOW, PREDICT_FLOW = "backfill", "predict"
FLOWS = [LOCAL_FLOW, S3_FLOW, BACKFILL_FLOW, PREDICT_FLOW]
"""The flows' names on a Prefect server."""

MOST_TRAIN_MONTHS = 120


def _check_cab(name: str) -> str:
    return get_cab(name).name


def _check_features(name: str) -> str:
    return get_feature_set(name).name


def _check_month(text: str) -> str:
    return str(Month.parse(text))


def _check_path(path: str | Path) -> str | Path:
    if "\0" in str(path):
        raise InputError(f"path {str(path)!r} has a null character", "leave it out")
    return path


def _describe_alphas(features: FeatureSet) -> str:
    *others, last = [f"{alpha:g}" for alpha in features.alphas]
    return f"the best of {', '.join(others)} and {last}" if others else last


FilePath = Annotated[Path, AfterValidator(_check_path)]
MonthText = Annotated[
    str, AfterValidator(_check_month), Field(json_schema_extra={"pattern": "^[0-9]{4}-[0-9]{2}$"})
]
KeyPrefix = Annotated[str, AfterValidator(check_key_prefix)]
Flag = Annotated[bool, Strict()]

Cab = Annotated[
    str,
    AfterValidator(_check_cab),
    Field(description=f"cab type: {' or '.join(CABS)}", json_schema_extra={"enum": [*CABS]}),
]
DataDirectory = Annotated[FilePath, Field(description="directory of the months' parquet files")]
Offline = Annotated[
    Flag, Field(description="never touch the network for data; fail on a missing file")
]
_RUNNER_TEXT = "where months are reduced at the same time: threads or dask"


class ModelOptions(BaseModel):
    """How models are trained and where they are kept, whichever months they are trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cab: Cab = DEFAULT_CAB
    data_dir: DataDirectory = Path("data")
    models_dir: FilePath = Field(
        default=Path("models"), description="directory the model is written under"
    )
    features: Annotated[str, AfterValidator(_check_features)] = Field(
        default="extended",
        description=f"feature set: {' or '.join(FEATURE_SETS)}",
        json_schema_extra={"enum": [*FEATURE_SETS]},
    )
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="L2 penalty on the coefficients, in trips, 0 for least squares; by default "
        + ", ".join(f"{_describe_alphas(each)} for {each.name}" for each in FEATURE_SETS.values()),
    )
    train_months: int = Field(
        default=1,
        ge=1,
        le=MOST_TRAIN_MONTHS,
        description="number of months to train on, the last one included",
    )
    no_cache: Flag = Field(
        default=False,
        description="reuse nothing of earlier runs: fetch what was downloaded, and read what was "
        "summed, again",
    )
    runner: Literal["threads", "dask"] | None = Field(
        default=None, description=f"{_RUNNER_TEXT}; by default one month after another"
    )
    dask_address: (
        Annotated[str, Field(pattern=r"^(tcp|tls)://[\w.\-\[\]:]+:[0-9]{1,5}$")] | None
    ) = Field(
        default=None,
        description="scheduler of an existing Dask cluster, such as tcp://10.0.0.5:8786; by "
        "default the dask runner starts one on this machine",
    )


class _LastMonth(BaseModel):
    year: Annotated[int, Field(ge=FIRST_YEAR, le=9999)] | None = Field(
        default=None,
        description="year of the last training month; without year and month, the newest one whose "
        "next month is published",
    )
    month: Annotated[int, Field(ge=1, le=12)] | None = Field(
        default=None, description="last training month, 1 to 12; the next one validates"
    )


class TrainingOptions(ModelOptions, _LastMonth):
    """The options of every training run, wherever its months come from."""


class LocalOptions(TrainingOptions):
    """Months in a local directory, downloaded from the TLC when absent."""

    offline: Offline = False


class S3Options(TrainingOptions):
    """Months in a bucket, kept locally once fetched."""

    data_dir: DataDirectory = Path("data/s3")
    block: str = Field(
        default=DEFAULT_BLOCK, min_length=1, description="name of the saved S3Bucket block"
    )
    prefix: KeyPrefix = Field(
        default="trip-data", description="key prefix of the months in the bucket"
    )
    models_prefix: KeyPrefix = Field(
        default="models", description="key prefix the model is uploaded under"
    )


class _Span(BaseModel):
    from_month: MonthText = Field(description="first month of the span, YYYY-MM; it trains")
    to_month: MonthText = Field(description="last month of the span, YYYY-MM; it validates")


class BackfillOptions(ModelOptions, _Span):
    """A span of months, in a local directory or downloaded."""

    runner: Literal["threads", "dask"] = Field(default="threads", description=_RUNNER_TEXT)
    offline: Offline = False


def _write_version(name: object) -> object:
    # A version is a number among a deployment's parameters.
    return str(name) if type(name) is int else name


class ScoringOptions(BaseModel):
    """The options of a batch prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[str, AfterValidator(_check_path)] = Field(
        min_length=1,
        description="trips to score: a parquet or CSV file with the TLC's columns, or a month, "
        "YYYY-MM, downloaded when absent",
    )
    output: FilePath = Field(description="parquet or CSV file the predictions are written to")
    model: Annotated[str, BeforeValidator(_write_version)] = Field(
        default="champion",
        min_length=1,
        description="the model: champion, the number of a version, or a model directory",
        json_schema_extra={"type": ["string", "integer"]},
    )
    cab: Cab = DEFAULT_CAB
    data_dir: DataDirectory = Path("data")
    offline: Offline = False
    id_column: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="column of the input that is copied to the predictions as id; by default id is "
        "the row's number, from 0",
    )


Options = TypeVar("Options", bound=BaseModel)
Result = TypeVar("Result")


def read_options(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Return options read from values as a command line or a flow run gives them.

    Raises:
        InputError: a value is wrong or no option has that name; the message names the first.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, value, allowed = str(first["loc"][0]), first["input"], first["msg"]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise cause from None
        if first["type"] == "missing":
            raise InputError(f"{name} is missing", "give it") from None
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"{name} is no option", f"give {', '.join(kind.model_fields)}"
            ) from None
        raise InputError(f"{name} {value!r} is invalid", allowed[0].lower() + allowed[1:]) from None


def takes(
    kind: type[Options],
) -> Callable[[Callable[[Options], Result]], Callable[..., Result]]:
    """Give a flow's function one parameter for each field of its options.

    Prefect reads the parameters from the function's signature: for its form, for deployments and
    to validate those of a run.
    """

    def decorate(run: Callable[[Options], Result]) -> Callable[..., Result]:
        @functools.wraps(run)
        def run_with(**given: Any) -> Result:
            return run(read_options(kind, given))

        parameters = [_make_parameter(name, field) for name, field in kind.model_fields.items()]
        run_with.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run_with

    return decorate


def _make_parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    # Not as Field(description=...), which Prefect replaces by what the docstring says.
    extra = cast(dict[str, Any], field.json_schema_extra or {})
    described = Field(json_schema_extra={"description": field.description, **extra})
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else field.default,
        annotation=Annotated[field.annotation, *field.metadata, described],
    )
