from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from pydantic import BaseModel

from orchestrate import main_flow
from orchestrate_s3 import main_flow_s3
from taxi_duration.data.month import Month
from taxi_duration.data.schema import CABS
from taxi_duration.data.tlc import check_months
from taxi_duration.errors import DataError, InputError
from taxi_duration.files import check_writable
from taxi_duration.flows.backfill import backfill
from taxi_duration.flows.options import (
    BackfillOptions,
    LocalOptions,
    S3Options,
    ScoringOptions,
    read_options,
)
from taxi_duration.flows.predict import predict
from taxi_duration.flows.train import make_plan

TODAY = date(2023, 6, 15)


def plan_for(today: date = TODAY, **values: object) -> list[str]:
    return [str(month) for month in make_plan(read_options(LocalOptions, values), today).months]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"month": 0}, "month 0 is invalid: input should be greater than or equal to 1."),
        ({"month": "13"}, "month '13' is invalid: input should be less than or equal to 12."),
        ({"month": 3.5}, "month 3.5 is invalid: input should be a valid integer"),
        ({"year": "21"}, "year '21' is invalid: input should be greater than or equal to 2009."),
        ({"cab": "gren"}, "cab 'gren' is not a cab type: did you mean 'green'?"),
        ({"features": "courze"}, "feature set 'courze' is unknown: did you mean 'course'?"),
        ({"alpha": "-0.5"}, "alpha '-0.5' is invalid: input should be greater than or equal to 0."),
        ({"alpha": "inf"}, "alpha 'inf' is invalid: input should be a finite number."),
        ({"alpha": "nan"}, "alpha 'nan' is invalid: input should be a finite number."),
        ({"train_months": 0}, "train_months 0 is invalid: input should be greater than or equal"),
        ({"train_months": 121}, "train_months 121 is invalid: input should be less than or equal"),
        ({"runner": "spark"}, "runner 'spark' is invalid: input should be 'threads' or 'dask'."),
        ({"dask_address": "127.0.0.1"}, "dask_address '127.0.0.1' is invalid: string should match"),
        ({"offline": "yes"}, "offline 'yes' is invalid: input should be a valid boolean."),
        ({"models_dir": "a\0b"}, r"path 'a\x00b' has a null character: leave it out."),
        ({"colour": "red"}, "colour is no option: give year, month, cab, data_dir,"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_options(LocalOptions, values)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "prefix", ["", "/trips", "trips/", "a//b", "a/../b", "..", ".", "a b", "ü\n"]
)
def test_a_prefix_that_could_leave_its_place_is_refused(prefix: str) -> None:
    with pytest.raises(InputError, match=r"is not a key prefix: give names joined by single slash"):
        read_options(S3Options, {"prefix": prefix})


def test_text_and_numbers_mean_the_same() -> None:
    text = {"year": "2023", "month": "02", "alpha": "1.5", "train_months": "3", "data_dir": "d"}
    numbers = {"year": 2023, "month": 2, "alpha": 1.5, "train_months": 3, "data_dir": Path("d")}
    assert read_options(LocalOptions, text) == read_options(LocalOptions, numbers)


@pytest.mark.parametrize(
    ("takes_them", "kind"),
    [
        (main_flow, LocalOptions),
        (main_flow_s3, S3Options),
        (backfill, BackfillOptions),
        (predict, ScoringOptions),
    ],
)
def test_a_flow_takes_exactly_its_options(
    takes_them: Flow[..., Any], kind: type[BaseModel]
) -> None:
    schema = takes_them.parameters
    assert [*schema.properties] == [*kind.model_fields]
    for name, field in kind.model_fields.items():
        assert schema.properties[name]["description"] == field.description
        assert ("default" in schema.properties[name]) != (name in schema.required)


def test_a_flow_reads_the_text_of_a_deployments_parameters() -> None:
    given = main_flow.validate_parameters({"year": "2023", "month": "02", "data_dir": "d"})
    assert (given["year"], given["month"], given["data_dir"]) == (2023, 2, Path("d"))
    assert main_flow.parameters.properties["cab"]["enum"] == [*CABS]
    with pytest.raises(ParameterTypeError, match="less than or equal to 12"):
        main_flow.validate_parameters({"year": 2023, "month": 13})
    given = predict.validate_parameters({"input": "2023-03", "output": "a.csv", "model": 3})
    assert given["model"] == "3"


def test_the_next_month_validates() -> None:
    assert plan_for(year=2022, month=12) == ["2022-12", "2023-01"]
    assert plan_for(year=2022, month=12, train_months=3) == [
        "2022-10",
        "2022-11",
        "2022-12",
        "2023-01",
    ]


@pytest.mark.parametrize(
    ("today", "months"),
    [
        (date(2023, 6, 1), ["2023-02", "2023-03"]),
        (date(2023, 5, 31), ["2023-01", "2023-02"]),
        (date(2023, 1, 15), ["2022-09", "2022-10"]),
    ],
)
def test_by_default_validation_is_the_newest_published_month(
    today: date, months: list[str]
) -> None:
    assert plan_for(today) == months


def test_the_penalty_is_left_to_the_feature_set_unless_given() -> None:
    assert make_plan(LocalOptions(), TODAY).alpha is None
    assert make_plan(LocalOptions(alpha=0.0), TODAY).alpha == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"year": 2023}, "year is given without month: give both, or neither."),
        ({"month": 2}, "month is given without year"),
        ({"year": 2013, "month": 7}, "green month 2013-07 cannot be used: green cabs began in"),
        ({"year": 2010, "month": 12, "cab": "yellow"}, "coordinates instead of zones"),
        (
            {"year": 2013, "month": 9, "train_months": 3},
            "train_months 3 reaches before green month 2013-08",
        ),
        (
            {"year": 2023, "month": 6},
            "month 2023-06 cannot be trained on, as its validation month 2023-07 has not begun: "
            "give 2023-02 or earlier.",
        ),
        ({"year": 2099, "month": 1}, "month 2099-01 cannot be trained on"),
        ({"year": 9999, "month": 12}, "year 10000"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        plan_for(**values)
    assert message in str(raised.value)


def test_a_window_may_begin_with_the_first_month() -> None:
    assert plan_for(year=2013, month=9, train_months=2) == ["2013-08", "2013-09", "2013-10"]


def check(directory: Path, *, offline: bool, today: date = TODAY) -> None:
    check_months(CABS["green"], [Month(2023, 3), Month(2023, 4)], directory, offline, today)


def test_an_unpublished_month_is_refused_unless_its_file_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        check(tmp_path, offline=False)
    assert "green month 2023-04 is not published yet: expect it by 2023-07-01" in str(raised.value)
    assert "Train on 2023-02 or earlier" in str(raised.value)
    check(tmp_path, offline=False, today=date(2023, 7, 1))


def test_offline_names_the_file_and_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"green_tripdata_2023-03.parquet is missing and offline is"
    ):
        check(tmp_path, offline=True, today=date(2024, 1, 1))


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(InputError, match=r"data directory .*file is a file: give a directory"):
        check(path, offline=True)
    with pytest.raises(InputError, match=r"models directory .*below is not writable"):
        check_writable(path / "below", "models directory")


def test_checking_a_directory_creates_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", "models directory")
    assert list(tmp_path.iterdir()) == []
