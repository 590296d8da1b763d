import json
import re
from dataclasses import replace

import pytest
from taxi_duration.reports.card import Remarks, render_markdown

from taxi_duration.data.clean import RowFunnel, clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import read_trips
from taxi_duration.evaluation.report import Report, build_report, collect_metrics, explain_promotion
from taxi_duration.evaluation.residuals import MODEL, ErrorAnalysis
from taxi_duration.model.month_sums import Profile
from taxi_duration.model.training import Trial
from taxi_duration.regression.metrics import Evaluation, compare_rmse
from taxi_duration.settings import Thresholds
from tests.support.months import FEBRUARY, JANUARY
from tests.support.reports import make_judged_report, refuse
from tests.support.trained import train_on

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
    ) | {"model_id": MODEL_ID}


def test_the_report_has_the_promised_shape(report: Report) -> None:
    assert report["cab"] == "green"
    assert (report["features"], report["alpha"]) == ("course", 0.0)
    assert report["train"]["months"] == ["2022-12", "2023-01"]
    assert report["validation"]["month"] == "2023-02"
    for part, read, kept, rmse in (("train", 1200, 1000, 4.0), ("validation", 600, 550, 6.0)):
        assert (report[part]["rows_read"], report[part]["rows_kept"]) == (read, kept)
        assert report[part]["rmse"] == rmse
    assert report["validation"]["mae"] == 4.0
    assert report["trials"] == [{"alpha": 0.0, "rmse": 5.25}, {"alpha": 2.0, "rmse": 5.5}]
    assert report["baselines"]["mean"]["rmse"] == 12.0
    assert report["baselines"]["zone_pair_median"]["rmse"] == 5.0
    assert list(report["inputs"].values()) == ["ab", "cd"]
    assert {"python", "scikit-learn", "taxi_duration"} <= report["versions"].keys()
    assert report["train"]["broken"] == {"zone missing": 4, "not within 1 to 60 minutes": 100}
    assert report["train"]["by_month"]["2023-01"] == {
        "rows_read": 800,
        "broken": {"zone missing": 4, "not within 1 to 60 minutes": 40},
    }
    assert report["validation"]["broken"]["zone missing"] == 0
    assert report["thresholds"] == {
        "most_outside_month": 0.05,
        "most_negative_durations": 0.05,
        "fewest_within_hour": 0.85,
        "most_null_zones": 0.125,
        "most_zones_out_of_range": 0.001,
        "fewest_rows": 0.5,
        "most_rows": 2.0,
    }
    assert report["drift"] == {"b.parquet": ["column x is new.", "column y is new."]}
    assert report["stability"]["2023-02"]["unseen_pairs"] == 0.04
    assert json.loads(json.dumps(report)) == report


def test_metrics_are_the_reports_figures(report: Report) -> None:
    slices = {
        re.sub(r"\W+", "_", f"slice {part['kind']} {part['name']} rmse"): part["rmse"]
        for part in report["slices"]
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


def test_the_markdown_compares_and_links(report: Report) -> None:
    lines = render_markdown(report, "[abc](http://127.0.0.1:5000/#/x)", "models/x").splitlines()
    assert (
        "RMSE **6.0000 minutes** on 2023-02 (alpha 0, chosen inside the training window: "
        "5.2500 with 0, 5.5000 with 2; training RMSE 4.0000, validation MAE 4.0000)." in lines
    )
    assert lines[0] == "# Duration model: green, trained on 2022-12, 2023-01"
    assert "| **linear regression, course features** | 6.0000 |  |" in lines
    assert "| zone-pair median of 2023-01 | 5.0000 | 20.0% higher |" in lines
    assert "| training mean | 12.0000 | 50.0% lower |" in lines
    assert "| read | 1,200 | 600 |" in lines
    assert "| dropped: shorter than 1 minute | 200 | 50 |" in lines
    assert "| zone missing | 4 (at most 0.50%, 2023-01) | 0 | 12.5 % |" in lines
    worst = "100 (at most 15.00%, 2022-12)"
    assert f"| not within 1 to 60 minutes | {worst} | 50 | 15 % |" in lines
    assert (
        "| 2022-12 beside the window's other months | 0.5000 | 0.0000 | 0.2500 | 12.50% |" in lines
    )
    assert "| 2023-02 beside the training window | 0.0100 | 0.0200 | 0.0300 | 4.00% |" in lines
    assert "- `b.parquet`: column y is new." in lines
    assert "MLflow run: [abc](http://127.0.0.1:5000/#/x)" in lines


def test_no_line_of_the_markdown_is_indented_into_a_code_block(report: Report) -> None:
    assert not [
        line for line in render_markdown(report, "x", "y").splitlines() if line.startswith(" ")
    ]


def test_every_table_has_as_many_cells_in_each_row(report: Report) -> None:
    for block in render_markdown(report, "x", "y").split("\n\n"):
        rows = [line.count(" | ") for line in block.splitlines() if line.startswith("|")]
        assert len(set(rows)) <= 1


def test_the_champion_is_among_those_the_model_is_compared_with(report: Report) -> None:
    judged = make_judged_report()
    lines = render_markdown(judged, "x", "y").splitlines()
    rmse, theirs = judged["validation"]["rmse"], judged["gate"]["champion"]["rmse"]
    assert f"| champion, version 1 | {theirs:.4f} | {compare_rmse(rmse, theirs)} |" in lines
    seen = render_markdown(refuse(is_seen=True), "x", "y")
    assert f"| champion, version 1, trained on 2025-02 too | {theirs:.4f} |" in seen
    assert "champion, version" not in render_markdown(report, "x", "y")


def test_a_promotion_is_explained_beside_the_champion() -> None:
    judged = make_judged_report()
    champion = judged["gate"]["champion"]
    begin = "RMSE 5.0000 minutes on 2025-02, "
    judged["validation"]["rmse"] = 5.0
    for rmse, said in ((8.0, "37.5% lower than that"), (5.002, "the same as that")):
        champion["rmse"] = rmse
        assert explain_promotion(judged) == f"{begin}{said} of version 1."


def test_what_is_beyond_a_limit_is_said_before_the_figures(report: Report) -> None:
    remarks = Remarks(("a notice",), ("a shift", "another"), "it is champion now.")
    said = render_markdown(report, "x", "y", remarks)
    assert "Beyond the limits of drift:\n\n- a shift\n- another\n\n| drift:" in said
    assert "about this run's months:\n\n- a notice\n\n" in said
    assert "champion.\n\nIt is champion now.\n\n| on 2023-02 |" in said
    assert remarks.sentences == ["a notice", "a shift", "another", "it is champion now."]
    assert "Beyond the limits" not in render_markdown(report, "x", "y", Remarks(("a notice",)))
    assert Remarks(("a notice",)).sentences == ["a notice"]


def test_drift_is_shown_only_where_there_is_some(report: Report) -> None:
    assert "New about the columns" in render_markdown(report, "x", "y")
    assert "New about the columns" not in render_markdown({**report, "drift": {}}, "x", "y")


def test_without_trials_none_are_told(report: Report) -> None:
    alone = {**report, "trials": []}
    assert "(alpha 0; training RMSE 4.0000" in render_markdown(alone, "x", "y")
