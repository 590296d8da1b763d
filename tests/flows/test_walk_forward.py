from datetime import date
from typing import Any

import pytest

from taxi_duration.errors import InputError
from taxi_duration.flows.options import read_options
from taxi_duration.flows.walk_forward import (
    BackfillOptions,
    BackfillPlan,
    Step,
    list_rows,
    list_series,
    plan_backfill,
)

TODAY = date(2024, 2, 15)


def plan_for(first: str, last: str, **values: object) -> BackfillPlan:
    given = {"from_month": first, "to_month": last, **values}
    return plan_backfill(read_options(BackfillOptions, given), TODAY)


def list_months(plan: BackfillPlan) -> list[str]:
    """Each training as `first last>validation`, its window by its ends."""
    return [f"{each.train[0]} {each.train[-1]}>{each.validation}" for each in plan.steps]


def make_step(validation: str, **changes: Any) -> Step:
    values = {
        "train": ("2023-01",), "trips": 62_574, "model": 4.52288, "zone_pair_median": 6.6424,
        "mean": 9.3221, "champion": None, "model_id": "green/2023-01-0123abcd",
    }  # fmt: skip
    return Step(validation, **{**values, **changes})


def test_each_month_validates_a_model_of_the_month_before() -> None:
    plan = plan_for("2022-11", "2023-02")
    assert list_months(plan) == [
        "2022-11 2022-11>2022-12",
        "2022-12 2022-12>2023-01",
        "2023-01 2023-01>2023-02",
    ]
    assert [str(month) for month in plan.months] == ["2022-11", "2022-12", "2023-01", "2023-02"]
    assert (plan.span, plan.title) == ("2022-11 to 2023-02", "green backfill 2022-11 to 2023-02")


def test_a_window_rolls_and_reads_nothing_outside_the_span() -> None:
    plan = plan_for("2023-01", "2023-05", train_months="3")
    assert list_months(plan) == ["2023-01 2023-03>2023-04", "2023-02 2023-04>2023-05"]
    assert len(plan.months) == 5


@pytest.mark.parametrize(
    ("first", "last", "train_months", "months"),
    [
        ("2023-01", "2023-02", 1, 2),
        ("2013-08", "2023-08", 120, 121),
        ("2024-01", "2024-02", 1, 2),  # in February 2024
    ],
    ids=["two months", "the longest window", "to the month of today"],
)
def test_the_shortest_spans(first: str, last: str, train_months: int, months: int) -> None:
    plan = plan_for(first, last, train_months=train_months)
    assert (len(plan.steps), len(plan.months)) == (1, months)


def test_the_longest_span() -> None:
    given = {"cab": "yellow", "from_month": "2011-01", "to_month": "2030-12"}
    plan = plan_backfill(read_options(BackfillOptions, given), date(2031, 1, 1))
    assert (len(plan.steps), len(plan.months)) == (239, 240)


def test_options_are_those_of_every_step() -> None:
    plan = plan_for(
        "2023-01", "2023-04", features="course", alpha="2", no_cache=True, runner="dask",
        dask_address="tcp://127.0.0.1:8786",
    )  # fmt: skip
    assert {
        (each.features.name, each.alphas, each.no_cache, each.runner, each.dask_address)
        for each in plan.steps
    } == {("course", (2.0,), True, "dask", "tcp://127.0.0.1:8786")}
    assert plan_for("2023-01", "2023-02").common.runner == "threads"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"to_month": "2023-01"},
            "from 2023-01 to 2023-01 leaves no month to validate a model trained on 1 month: give "
            "a last month of 2023-02 or later.",
        ),
        (
            {"to_month": "2022-06", "train_months": 3},
            "from 2023-01 to 2022-06 leaves no month to validate a model trained on 3 months: give "
            "a last month of 2023-04 or later.",
        ),
        (
            {"from_month": "2013-08", "to_month": "2033-08"},
            "from 2013-08 to 2033-08 is 241 months: give at most 240.",
        ),
        (
            {"to_month": "2024-03"},
            "last month 2024-03 has not begun: give one that is published, such as 2023-11.",
        ),
        (
            {"from_month": "2013-07"},
            "green month 2013-07 cannot be used: green cabs began in August 2013: give 2013-08 or "
            "later.",
        ),
        ({"from_month": "2023-13"}, "month 13 is not a month: give a number from 1 to 12."),
        (
            {"from_month": "january"},
            "month 'january' is not of the form YYYY-MM: give one such as 2023-01.",
        ),
        (
            {"from_month": "2023-1"},
            "month '2023-1' is not of the form YYYY-MM: give one such as 2023-01.",
        ),
        ({"to_month": None}, "month 'None' is not of the form YYYY-MM: give one such as 2023-01."),
        ({"train_months": 121}, "train_months 121 is no window: give 1 to 120."),
        ({"runner": "cloud"}, "runner 'cloud' is not one: give threads or processes or dask."),
        ({"runner": None}, "runner None: Input should be a valid string."),
        (
            {"dask_address": "tcp://127.0.0.1:8786"},
            "dask_address tcp://127.0.0.1:8786 is given: give runner dask with it.",
        ),
        ({"year": 2023}, "year 2023: Extra inputs are not permitted."),
    ],
)
def test_a_span_or_option_that_cannot_be_is_refused(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        plan_for(**{"first": "2023-01", "last": "2023-06"} | rename(values))  # type: ignore[arg-type]
    assert message in str(raised.value)


def rename(values: dict[str, object]) -> dict[str, object]:
    return {{"from_month": "first", "to_month": "last"}.get(k, k): v for k, v in values.items()}


def test_table_shows_the_figures_that_there_are() -> None:
    window = ("2022-12", "2023-01", "2023-02")
    champion = {"champion": 4.4, "champion_version": "3"}
    steps = [
        make_step("2023-02"),
        make_step("2023-03", train=window, trips=1, **champion),
        make_step("2023-04", champion_is_seen=True, **champion),
    ]
    header, rows = list_rows(steps)
    assert header == [
        "validated on", "trained on", "trips", "model", "zone-pair median", "training mean",
        "champion, version 3",
    ]  # fmt: skip
    same = ["4.5229", "6.6424", "9.3221"]
    assert rows == [
        ["2023-02", "2023-01", "62,574", *same, ""],
        ["2023-03", "2022-12 to 2023-02", "1", *same, "4.4000"],
        ["2023-04", "2023-01", "62,574", *same, "4.4000 (trained on it)"],
    ]


def test_a_predictor_that_was_never_scored_is_no_series() -> None:
    first, second = make_step("2023-02"), make_step("2023-03", model=4.7)
    assert list_series([first, second]) == {
        "model": [4.52288, 4.7],
        "zone_pair_median": [6.6424, 6.6424],
        "mean": [9.3221, 9.3221],
    }
    scored = make_step("2023-04", champion=4.1)
    assert list_series([first, scored])["champion"] == [None, 4.1]
