import json
import re
from dataclasses import replace

import pytest

from taxi_duration.data.clean import RowFunnel, clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import read_trips
from taxi_duration.errors import ModelError
from taxi_duration.evaluation.report import (
    Report,
    build_report,
    check_finite,
    collect_metrics,
    describe_schema,
    dump_report,
    read_report,
)
from taxi_duration.evaluation.residuals import MODEL, ErrorAnalysis
from taxi_duration.model.month_sums import Profile
from taxi_duration.model.training import Trial
from taxi_duration.regression.metrics import Evaluation
from taxi_duration.settings import Thresholds
from tests.conftest import REPOSITORY
from tests.support.months import FEBRUARY, JANUARY
from tests.support.reports import make_judged_report
from tests.support.trained import alter, train_on

MODEL_ID = "green/2023-01-0123abcd"
TRIALS = (Trial(0.0, 5.25), Trial(2.0, 5.5))


@pytest.fixture(scope="module")
def report() -> Report:
    trips, _ = clean_trips(read_trips(FEBRUARY), Month(2025, 2))
    training = replace(train_on(JANUARY, "course"), rmse=4.0, trials=TRIALS)
    analysis = ErrorAnalysis.of(trips, {MODEL: training.model.predict_clean(trips)})
    return build_report(
        cab="green",
        training=training,
        alphas=(0.0, 2.0),
        train_funnels={
            Month(2022, 12): RowFunnel(
                400,
                {"shorter than 1 minute": 150},
                250,
                {"zero distance": 3},
                {"zone missing": 0, "not within 1 to 60 minutes": 60},
            ),
            Month(2023, 1): RowFunnel(
                800,
                {"shorter than 1 minute": 50},
                750,
                {"zero distance": 4},
                {"zone missing": 4, "not within 1 to 60 minutes": 40},
            ),
        },
        validation_month=Month(2023, 2),
        validation_funnel=RowFunnel(
            600,
            {"shorter than 1 minute": 50},
            550,
            {"zero distance": 3},
            {"zone missing": 0, "not within 1 to 60 minutes": 50},
        ),
        validation=Evaluation(rmse=6.0, mae=4.0, rows=550),
        baselines={
            "mean": Evaluation(rmse=12.0, mae=9.0, rows=550),
            "zone_pair_median": Evaluation(rmse=5.0, mae=4.5, rows=550),
        },
        inputs={"green_tripdata_2023-01.parquet": "cd", "green_tripdata_2022-12.parquet": "ab"},
        thresholds=Thresholds(most_null_zones=0.125),
        drift={"b.parquet": ("column x is new.", "column y is new."), "a.parquet": ()},
        stability={
            "2022-12": {"distance": 0.5, "hour": 0.0, "duration": 0.25, "unseen_pairs": 0.125},
            "2023-01": {"distance": 0.25, "hour": 0.0, "duration": 0.125, "unseen_pairs": 0.5},
            "2023-02": {"distance": 0.01, "hour": 0.02, "duration": 0.03, "unseen_pairs": 0.04},
        },
        profile=Profile.of(trips),
        analysis=analysis,
        model_id=MODEL_ID,
    )


def test_report_json_has_the_promised_shape(report: Report) -> None:
    content = json.loads(dump_report(report))
    assert [*content][:6] == ["model_id", "cab", "features", "alpha", "alphas", "trials"]
    assert (content["cab"], content["features"], content["alpha"]) == ("green", "course", 0.0)
    broken = {"zone missing": 4, "not within 1 to 60 minutes": 100}
    assert content["train"] == {
        "months": ["2022-12", "2023-01"],
        "rmse": 4.0,
        "rows_read": 1200,
        "rows_kept": 1000,
        "dropped": {"shorter than 1 minute": 200},
        "noted": {"zero distance": 7},
        "broken": broken,
        "by_month": {
            "2022-12": {
                "rows_read": 400,
                "broken": {"zone missing": 0, "not within 1 to 60 minutes": 60},
            },
            "2023-01": {
                "rows_read": 800,
                "broken": {"zone missing": 4, "not within 1 to 60 minutes": 40},
            },
        },
    }
    assert content["validation"]["month"] == "2023-02"
    assert content["trials"] == [{"alpha": 0.0, "rmse": 5.25}, {"alpha": 2.0, "rmse": 5.5}]
    assert content["baselines"]["zone_pair_median"] == {"rmse": 5.0, "mae": 4.5}
    assert [*content["inputs"].values()] == ["ab", "cd"]
    assert content["thresholds"] == Thresholds(most_null_zones=0.125).model_dump()
    assert content["drift"] == {"b.parquet": ["column x is new.", "column y is new."]}
    assert content["stability"]["2023-02"]["unseen_pairs"] == 0.04
    assert [*content["residuals"]["by_predicted"][0]] == [
        "from", "to", "trips", "5", "25", "50", "75", "95",
    ]  # fmt: skip
    assert {"python", "scikit-learn", "taxi_duration"} <= content["versions"].keys()


@pytest.mark.parametrize("is_judged", [True, False])
def test_a_report_is_read_back_as_it_was(report: Report, is_judged: bool) -> None:
    written = make_judged_report() if is_judged else report
    assert read_report(dump_report(written), "report.json") == written


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]", "report.json is not a report (JSON: Input should be an object)"),
        (b"{", "report.json is not a report (JSON: Invalid JSON"),
        (b"{}", "report.json is not a report (model_id: Field required)"),
    ],
)
def test_what_is_no_report_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ModelError) as refusal:
        read_report(content, "report.json")
    assert refusal.value.problem.startswith(problem)


def test_figures_that_are_not_finite_are_refused_by_name(report: Report) -> None:
    check_finite(report)
    changes = {"validation": {"rmse": float("nan")}}
    trials = [{"alpha": 1.0, "rmse": float("-inf")}]
    with pytest.raises(ModelError, match=r"trials\.0\.rmse is -inf, validation\.rmse is nan"):
        check_finite(alter(report, changes, trials=trials))


def test_the_documentation_describes_every_field() -> None:
    assert (REPOSITORY / "docs" / "report.md").read_text("utf-8") == describe_schema()


def test_metrics_are_the_reports_figures(report: Report) -> None:
    slices = {
        re.sub(r"\W+", "_", f"slice {part.kind} {part.name} rmse"): part.rmse
        for part in report.slices
    }
    assert {"slice_hour_night_0_to_5_rmse", "slice_pick_up_borough_Queens_rmse"} <= slices.keys()
    assert collect_metrics(report) == {
        **slices,
        "train_rmse": 4.0,
        "train_rows_read": 1200.0,
        "train_rows_kept": 1000.0,
        "validation_rmse": 6.0,
        "validation_mae": 4.0,
        "validation_rows_read": 600.0,
        "validation_rows_kept": 550.0,
        "train_zone_missing": 4.0,
        "train_not_within_1_to_60_minutes": 100.0,
        "train_dropped_shorter_than_1_minute": 200.0,
        "train_noted_zero_distance": 7.0,
        "validation_zone_missing": 0.0,
        "validation_not_within_1_to_60_minutes": 50.0,
        "validation_dropped_shorter_than_1_minute": 50.0,
        "validation_noted_zero_distance": 3.0,
        "mean_rmse": 12.0,
        "zone_pair_median_rmse": 5.0,
        "stability_distance": 0.01,
        "stability_hour": 0.02,
        "stability_duration": 0.03,
        "stability_unseen_pairs": 0.04,
    }
