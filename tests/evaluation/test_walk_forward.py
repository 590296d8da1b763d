from typing import Any

from taxi_duration.evaluation.walk_forward import Step, list_rows, list_series


def make_step(validation: str, **changes: Any) -> Step:
    values = {
        "train": ("2023-01",), "trips": 62_574, "model": 4.52288, "zone_pair_median": 6.6424,
        "mean": 9.3221, "champion": None, "model_id": "green/2023-01-0123abcd",
    }  # fmt: skip
    return Step(validation, **{**values, **changes})


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
