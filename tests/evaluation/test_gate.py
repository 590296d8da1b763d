import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.data.clean import Trips
from taxi_duration.errors import InputError
from taxi_duration.evaluation.gate import (
    Finding,
    NotBetter,
    Older,
    Opponent,
    Seen,
    Synthetic,
    Unavailable,
    Verdict,
    WorseSlice,
    find_worse_slices,
    judge,
    resample,
)
from taxi_duration.evaluation.residuals import (
    BLOCKS,
    CHAMPION,
    MODEL,
    ErrorAnalysis,
    deal_into_blocks,
)
from taxi_duration.regression.metrics import Evaluation, GroupErrors, score
from taxi_duration.settings import GateSettings, read_settings
from tests.support.strategies import Floats, clean_trips, deal, make_trips, take

MONTH = "2023-02"
MONTHS = ("2023-01", MONTH)
OPPONENT = Opponent("7", "green/2022-12-0123abcd", ("2022-12",))
SETTINGS = GateSettings()
GENERATOR = np.random.default_rng(0)
TRIPS = make_trips(GENERATOR, 6000)
NOISE = GENERATOR.normal(0, 5, (2, 6000))


def predict(error: float, other: float = 0.0) -> Floats:
    """Minutes that miss by so much noise, and by another's."""
    return TRIPS["minutes"] + error * NOISE[0] + other * NOISE[1]


def analyse(
    model: Floats, champion: Floats | None = None
) -> tuple[dict[str, Evaluation], ErrorAnalysis]:
    predicted = {MODEL: model} | ({} if champion is None else {CHAMPION: champion})
    errors = {name: score(TRIPS["minutes"], each) for name, each in predicted.items()}
    errors["mean"] = errors["zone_pair_median"] = Evaluation(8.0, 6.0, 6000)
    return errors, ErrorAnalysis.of(TRIPS, predicted)


def judge_against(
    model: Floats,
    champion: Floats,
    settings: GateSettings = SETTINGS,
    opponent: Opponent = OPPONENT,
) -> Verdict:
    return judge(*analyse(model, champion), MONTHS, settings, opponent)


def test_the_first_model_has_the_baselines_to_beat() -> None:
    verdict = judge(*analyse(predict(1.0)), MONTHS, SETTINGS, None)
    assert verdict.is_promoted
    assert str(verdict) == "promoted"
    assert json.loads(verdict.model_dump_json()) == {
        "is_promoted": True,
        "reasons": [],
        "findings": [],
        "champion": None,
        "unavailable": None,
        "bootstrap": None,
        "settings": {
            "margin": 0.0,
            "confidence": 0.95,
            "most_slice_worsening": 0.05,
            "fewest_slice_trips": 500,
        },
    }


@pytest.mark.parametrize("baseline", ["zone_pair_median", "mean"])
def test_a_model_no_better_than_a_baseline_is_refused(baseline: str) -> None:
    errors, analysis = analyse(predict(1.0))
    errors[baseline] = replace(errors[MODEL], mae=0.0)  # not below: equal
    verdict = judge(errors, analysis, MONTHS, SETTINGS, None)
    name = {"mean": "training mean", "zone_pair_median": "zone-pair median"}[baseline]
    rmse = errors[MODEL].rmse
    assert str(verdict) == (
        f"not promoted: its RMSE of {rmse:.4f} minutes on 2023-02 is not below the {name}'s "
        f"{rmse:.4f}."
    )


@pytest.mark.parametrize("rmse", [math.nan, math.inf])
def test_a_model_without_a_finite_rmse_is_refused(rmse: float) -> None:
    errors, analysis = analyse(predict(1.0), predict(2.0))
    errors[MODEL] = Evaluation(rmse, 1.0, 6000)
    verdict = judge(errors, analysis, MONTHS, SETTINGS, OPPONENT)
    assert verdict.reasons == [f"its RMSE on 2023-02 is {rmse}, which is no number."]


def test_a_better_model_is_promoted_with_its_numbers() -> None:
    verdict = judge_against(predict(0.9), predict(1.0))
    assert verdict.is_promoted
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    champion, bootstrap = verdict.champion, verdict.bootstrap
    assert champion
    assert bootstrap
    assert (champion.version, champion.months) == ("7", ["2022-12"])
    assert champion.rmse == score(TRIPS["minutes"], predict(1.0)).rmse
    assert bootstrap.improvement == pytest.approx(0.1)
    assert bootstrap.lowest == pytest.approx(0.1)  # each error is a tenth smaller
    assert bootstrap.resamples == 999


def test_the_champion_itself_is_no_improvement() -> None:
    verdict = judge_against(predict(1.0), predict(1.0))
    rmse = score(TRIPS["minutes"], predict(1.0)).rmse
    assert str(verdict) == (
        f"not promoted: its RMSE of {rmse:.4f} minutes is 0.00% lower than the {rmse:.4f} of the "
        "champion, version 7; with a confidence of 95% (TAXI_DURATION_GATE_CONFIDENCE) the "
        "improvement is at least 0.00%, and must be more than 0% (TAXI_DURATION_GATE_MARGIN)."
    )


def test_an_improvement_that_may_be_chance_is_refused() -> None:
    model, champion = predict(1.0), predict(0.0, 1.02)
    errors, _ = analyse(model, champion)
    assert errors[MODEL].rmse < errors[CHAMPION].rmse
    verdict = judge_against(model, champion)
    assert not verdict.is_promoted
    assert verdict.bootstrap is not None
    assert verdict.bootstrap.lowest is not None
    assert verdict.bootstrap.lowest < 0 < verdict.bootstrap.improvement
    # A bet that it is more likely better than not takes less.
    bet = GateSettings(confidence=0.5, most_slice_worsening=1)
    assert judge_against(model, champion, bet).is_promoted


def test_the_margin_is_to_be_passed() -> None:
    model, champion = predict(0.9), predict(1.0)
    assert judge_against(model, champion, GateSettings(margin=0.099)).is_promoted
    (finding,) = judge_against(model, champion, GateSettings(margin=0.101)).findings
    assert isinstance(finding, NotBetter)
    assert (finding.margin, finding.lowest) == (0.101, pytest.approx(0.1))
    assert "at least 10.00%, and must be more than 10.1% (TAXI_DURATION_GATE_MARGIN)" in str(
        finding
    )


FAR_BETTER = (*analyse(predict(0.5), predict(1.0)), MONTHS, SETTINGS)


@pytest.mark.parametrize(
    ("months", "is_synthetic", "finding"),
    [
        (("2023-01", MONTH), (False, False), Seen(version="7", month=MONTH)),
        (
            ("2022-12", "2023-03"), (False, False),
            Older(version="7", month=MONTH, trained_to="2023-01", champion_trained_to="2023-03"),
        ),
        (("2022-12", "2023-01"), (False, False), None),  # the same month, perhaps other features
        (("2022-12",), (True, False), Synthetic(version="7")),
        (("2022-12",), (True, True), None),
        (("2024-12", MONTH), (False, True), None),
    ],
)  # fmt: skip
def test_what_keeps_a_far_better_model_from_replacing_a_champion(
    months: tuple[str, ...], is_synthetic: tuple[bool, bool], finding: Finding | None
) -> None:
    ours, theirs = is_synthetic
    opponent = replace(OPPONENT, months=months, is_synthetic=theirs)
    verdict = judge(*FAR_BETTER, opponent, is_synthetic=ours)
    assert verdict.findings == ([finding] if finding else [])
    assert verdict.is_promoted == (finding is None)
    assert verdict.champion
    assert verdict.champion.is_seen == isinstance(finding, Seen)


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (
            Seen(version="7", month=MONTH),
            "the champion, version 7, was trained on 2023-02 too, which would be no fair "
            "comparison: train on later months, or promote this version by hand.",
        ),
        (
            Older(version="7", month=MONTH, trained_to="2023-01", champion_trained_to="2023-03"),
            "it was trained on months up to 2023-01, and the champion, version 7, up to 2023-03: "
            "whoever is nearer to 2023-02 is better on it, and the older model would be in use. "
            "Promote it by hand if you mean it.",
        ),
        (
            Synthetic(version="7"),
            "it was made of synthetic trips, and the champion, version 7, of real ones: promote "
            "it by hand if you mean it, or keep the two in stores of their own.",
        ),
    ],
)
def test_a_finding_tells_what_to_do(finding: Finding, sentence: str) -> None:
    assert str(finding) == sentence


def test_a_champion_that_cannot_be_had_is_not_replaced() -> None:
    verdict = judge(*analyse(predict(0.5)), MONTHS, SETTINGS, None, "it is gone.")
    assert str(verdict) == ("not promoted: it could not be compared with the champion: it is gone.")
    assert verdict.unavailable == "it is gone."
    assert verdict.findings == [Unavailable(cause="it is gone.")]


def test_no_slice_may_pay_for_the_others() -> None:
    worse = np.where(TRIPS["pickup"].astype("datetime64[h]").astype(int) % 24 < 6, 1.1, 0.9)
    model = TRIPS["minutes"] + worse * NOISE[0]
    verdict = judge_against(model, predict(1.0))
    assert verdict.bootstrap is not None
    assert verdict.bootstrap.lowest is not None
    assert verdict.bootstrap.lowest > 0
    (finding,) = verdict.findings
    assert isinstance(finding, WorseSlice)
    assert (finding.slice_name, finding.limit) == ("night, 0 to 5", 0.05)
    assert finding.rise == pytest.approx(0.1)
    assert verdict.reasons == [
        f"on {finding.trips:,} trips of hour night, 0 to 5 its RMSE of {finding.rmse:.2f} "
        f"minutes is 10.0% higher than the champion's {finding.champion_rmse:.2f}; "
        "TAXI_DURATION_GATE_MOST_SLICE_WORSENING allows 5%."
    ]
    assert judge_against(model, predict(1.0), GateSettings(most_slice_worsening=0.11)).is_promoted
    few = GateSettings(fewest_slice_trips=finding.trips + 1)
    assert judge_against(model, predict(1.0), few).is_promoted


def test_the_limit_is_named_in_the_first_sentence_on_slices_alone() -> None:
    _, analysis = analyse(predict(1.5), predict(1.0))
    worse = find_worse_slices(analysis, GateSettings(fewest_slice_trips=1))
    first, *others = map(str, worse)
    assert len(others) > 10
    assert first.endswith("; TAXI_DURATION_GATE_MOST_SLICE_WORSENING allows 5%.")
    pattern = (
        r"on [\d,]+ trips of .+ its RMSE of [\d.]+ minutes is 50.0% higher than the champion's"
    )
    assert all(re.fullmatch(rf"{pattern} \d+\.\d\d\.", each) for each in others)
    perfect = analyse(predict(1.0), TRIPS["minutes"])[1]
    assert " minutes is higher than the champion's 0.00;" in str(
        find_worse_slices(perfect, SETTINGS)[0]
    )


def test_the_bound_is_about_that_of_a_normal_distribution() -> None:
    ours, theirs = predict(0.0, 1.0) - TRIPS["minutes"], predict(1.0) - TRIPS["minutes"]
    alone = np.arange(6000)
    groups = [GroupErrors.of(alone, 6000, each) for each in (ours, theirs)]
    found = resample(*groups, 0.95)
    ratio = np.sqrt((ours**2).sum() / (theirs**2).sum())
    # The delta method, on the log of the ratio of two means of paired squares.
    spread = (ours**2 / (ours**2).mean() - theirs**2 / (theirs**2).mean()).std() / 2 / 6000**0.5
    assert found.improvement == pytest.approx(1 - ratio)
    assert found.lowest == pytest.approx(1 - ratio * np.exp(1.645 * spread), abs=0.1 * spread)
    assert (found.resamples, found.blocks) == (999, 6000)


def test_blocks_of_trips_give_the_bound_of_trips() -> None:
    many = make_trips(np.random.default_rng(5), 60_000)
    errors = np.random.default_rng(6).normal(0, 5, (2, 60_000)) * [[1.0], [1.01]]
    dealt = deal_into_blocks(many)
    of_blocks = resample(*(GroupErrors.of(dealt, BLOCKS, each) for each in errors), 0.95)
    of_trips = resample(*(GroupErrors.of(np.arange(60_000), 60_000, each) for each in errors), 0.95)
    assert of_blocks.improvement == pytest.approx(of_trips.improvement, rel=1e-12)
    assert of_trips.lowest is not None
    width = of_trips.improvement - of_trips.lowest
    assert of_blocks.lowest == pytest.approx(of_trips.lowest, abs=0.1 * width)


def test_of_a_single_trip_nothing_can_be_said() -> None:
    lone = GroupErrors.of(np.array([3]), 4, np.array([1.0]))
    assert resample(lone, lone, 0.95).lowest is None
    trips = take(TRIPS, slice(1))
    predicted = {MODEL: trips["minutes"] + 1.0, CHAMPION: trips["minutes"] + 2.0}
    errors = {name: score(trips["minutes"], each) for name, each in predicted.items()}
    errors["mean"] = errors["zone_pair_median"] = Evaluation(8.0, 6.0, 1)
    verdict = judge(errors, ErrorAnalysis.of(trips, predicted), MONTHS, SETTINGS, OPPONENT)
    assert str(verdict).endswith("champion, version 7, and there are too few trips to say more.")


def test_two_models_without_errors_are_equal() -> None:
    verdict = judge_against(TRIPS["minutes"], TRIPS["minutes"])
    assert verdict.bootstrap is not None
    assert (verdict.bootstrap.improvement, verdict.bootstrap.lowest) == (0.0, 0.0)
    assert not verdict.is_promoted


@given(clean_trips(), st.integers(0, 2**32 - 1))
def test_the_analysis_of_parts_adds_up_in_any_order(trips: Trips, seed: int) -> None:
    def analyse_part(part: Trips) -> ErrorAnalysis:
        minutes = part["minutes"]
        return ErrorAnalysis.of(
            part, {MODEL: minutes + 1, CHAMPION: minutes * 0.5, "mean": minutes}
        )

    whole = analyse_part(trips)
    parts = deal(trips, np.random.default_rng(seed), 3)
    added = sum(map(analyse_part, parts), ErrorAnalysis())
    for name in (MODEL, CHAMPION):
        for ours, theirs in ((added.slices, whole.slices), (added.blocks, whole.blocks)):
            np.testing.assert_array_equal(ours[name].rows, theirs[name].rows)
            np.testing.assert_allclose(ours[name].squares, theirs[name].squares)
    assert whole.blocks[MODEL].rows.sum() == len(trips["minutes"])
    assert whole.slices[MODEL].rows.sum() == 3 * len(trips["minutes"])


def test_blocks_are_filled_evenly() -> None:
    counts = np.bincount(deal_into_blocks(make_trips(np.random.default_rng(7), 200_000)))
    assert len(counts) == BLOCKS
    # Of a Poisson distribution the variance is the mean.
    assert counts.var() == pytest.approx(counts.mean(), rel=0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("MARGIN", "1"), ("MARGIN", "-0.1"), ("CONFIDENCE", "0.991"), ("CONFIDENCE", "0.4"),
     ("CONFIDENCE", "nan"), ("MOST_SLICE_WORSENING", "-1"), ("FEWEST_SLICE_TRIPS", "0")],
)  # fmt: skip
def test_settings_of_the_gate_are_checked(
    field: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TAXI_DURATION_GATE_{field}", value)
    with pytest.raises(InputError, match=f"TAXI_DURATION_GATE_{field} is '{value}': Input should"):
        read_settings(GateSettings)
