"""What a report says of a model beside others, in words: its contenders and the gate's verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taxi_duration.evaluation import compare_rmse
from taxi_duration.report import Report


@dataclass(frozen=True)
class Contender:
    """What predicts the validation month's trips too, and its RMSE there in minutes."""

    name: str
    rmse: float


def list_contenders(report: Report) -> list[Contender]:
    """The model, the champion it was judged against, if any, and the baselines."""
    months, baselines = report["train"]["months"], report["baselines"]
    found = [
        Contender(
            f"linear regression, {report['features']} features", report["validation"]["rmse"]
        ),
        Contender(
            "zone-pair median" + (f" of {months[-1]}" if months[1:] else ""),
            baselines["zone_pair_median"]["rmse"],
        ),
        Contender("training mean", baselines["mean"]["rmse"]),
    ]
    champion = find_champion(report)
    if champion:
        seen = f", trained on {report['validation']['month']} too" if champion["is_seen"] else ""
        name = f"champion, version {champion['version']}{seen}"
        found.insert(1, Contender(name, champion["rmse"]))
    return found


def find_champion(report: Report) -> dict[str, Any] | None:
    """The champion that the model was judged against, as the report has it."""
    champion: dict[str, Any] | None = report["gate"] and report["gate"]["champion"]
    return champion


def name_verdict(report: Report) -> str:
    """The gate's verdict in a word or two."""
    gate = report["gate"]
    if gate is None:
        return "not judged"
    return "promoted" if gate["is_promoted"] else "not promoted"


def explain_verdict(report: Report) -> list[str]:
    """What the verdict rests on, a sentence each."""
    gate, champion = report["gate"], find_champion(report)
    if gate is None:
        return ["No gate held this model against a champion."]
    reasons = [begin_sentence(reason) for reason in gate["reasons"]]
    if champion is None:
        return reasons or ["There was no champion yet, and it is better than the baselines."]
    change = compare_rmse(report["validation"]["rmse"], champion["rmse"])
    compared = (
        f"The champion, version {champion['version']} ({champion['model_id']}), has an RMSE of "
        f"{champion['rmse']:.4f} minutes and an MAE of {champion['mae']:.4f} on the same trips; "
        f"this model's RMSE is {change or 'the same'}."
    )
    return [*reasons, compared, *_describe_bootstrap(gate["bootstrap"], gate["settings"])]


def _describe_bootstrap(drawn: dict[str, Any] | None, settings: dict[str, Any]) -> list[str]:
    if drawn is None or drawn["lowest"] is None:
        return []
    return [
        f"The improvement is {drawn['improvement']:.2%}, and with a confidence of "
        f"{show_per_cent(settings['confidence'])} at least {drawn['lowest']:.2%}, by "
        f"{drawn['resamples']:,} bootstrap resamples of {drawn['blocks']:,} blocks of trips; the "
        "gate asks for more than "
        f"{show_per_cent(settings['margin'])}."
    ]


def is_beyond(part: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a slice is worse than the champion's by more than the gate's settings allow."""
    most: float = part["champion_rmse"] * (1 + settings["most_slice_worsening"])
    return bool(part["trips"] >= settings["fewest_slice_trips"] and part["rmse"] > most)


def begin_sentence(text: str) -> str:
    """Text with a capital at its beginning, and as it is after that.

    >>> begin_sentence("its RMSE is low.")
    'Its RMSE is low.'
    """
    return text[:1].upper() + text[1:]


def show_per_cent(share: float) -> str:
    """A share as per cent, as short as it can be.

    >>> show_per_cent(0.125)
    '12.5%'
    """
    return f"{100 * share:.4g}%"
