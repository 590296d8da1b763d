"""What a report says of a model beside others, in words: its contenders and the gate's verdict."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from taxi_duration.evaluation.gate import begin_slice_reason, is_beyond
from taxi_duration.evaluation.report import Report
from taxi_duration.regression.metrics import compare_rmse
from taxi_duration.settings import GateSettings


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


def list_reasons(report: Report) -> list[str]:
    """Why the model is not promoted, a sentence each; several slices are summed up in one."""
    gate = report["gate"]
    if gate is None:
        return []
    worse = list_worse_slices(report)
    if len(worse) < 2:
        return [begin_sentence(reason) for reason in gate["reasons"]]
    of_slices = tuple(
        f"{begin_slice_reason(part['kind'], part['name'], part['trips'])} its " for part in worse
    )
    others = [reason for reason in gate["reasons"] if not reason.startswith(of_slices)]
    found = [*others, *([_sum_up(report, worse)] if others != gate["reasons"] else [])]
    return [begin_sentence(reason) for reason in found]


def _sum_up(report: Report, worse: list[dict[str, Any]]) -> str:
    limit = show_per_cent(report["gate"]["settings"]["most_slice_worsening"])
    worst = max(worse, key=_measure_rise)
    rise = _measure_rise(worst)
    return (
        f"on {len(worse)} of the {len(list_large_slices(report))} slices of at least "
        f"{find_fewest_trips(report):,} trips its RMSE is more than {limit} above the champion's, "
        f"most on {worst['kind']} {worst['name']}{f', by {rise:.1%}' if isfinite(rise) else ''}."
    )


def _measure_rise(part: dict[str, Any]) -> float:
    """By what share a slice's RMSE is above the champion's."""
    return float(part["rmse"] / part["champion_rmse"] - 1) if part["champion_rmse"] else inf


def explain_verdict(report: Report) -> list[str]:
    """What the verdict rests on beside `list_reasons`, a sentence each."""
    gate, champion = report["gate"], find_champion(report)
    if gate is None:
        return ["No gate held this model against a champion."]
    if champion is None:
        first = "There was no champion yet, and it is better than the baselines."
        return [] if gate["reasons"] else [first]
    name = f"The champion, version {champion['version']} ({champion['model_id']}), has an"
    mae = f"MAE of {champion['mae']:.4f}"
    told = f" {champion['rmse']:.4f} of the champion"
    if any(told in reason for reason in gate["reasons"]):
        compared = f"{name} {mae} minutes on the same trips."
    else:
        change = compare_rmse(report["validation"]["rmse"], champion["rmse"])
        compared = (
            f"{name} RMSE of {champion['rmse']:.4f} minutes and an {mae} on the same trips; this "
            f"model's RMSE is {change}."
        )
    return [compared, *_describe_bootstrap(gate["bootstrap"], gate["settings"])]


def _describe_bootstrap(drawn: dict[str, Any] | None, settings: dict[str, Any]) -> list[str]:
    if drawn is None or drawn["lowest"] is None:
        return []
    improvement, lowest = drawn["improvement"], drawn["lowest"]
    confidence = f"with a confidence of {show_per_cent(settings['confidence'])}"
    if lowest >= 0:
        measured = f"The improvement is {improvement:.2%}, and {confidence} at least {lowest:.2%}"
    else:
        better = f"better by {improvement:.2%}, and {confidence} worse"
        worse = f"worse by {-improvement:.2%}, and {confidence}"
        change = better if improvement >= 0 else worse
        measured = f"This model is {change} by at most {-lowest:.2%}"
    return [
        f"{measured}, by {drawn['resamples']:,} bootstrap resamples of {drawn['blocks']:,} blocks "
        "of trips; the gate asks for an improvement of more than "
        f"{show_per_cent(settings['margin'])}."
    ]


def list_worse_slices(report: Report) -> list[dict[str, Any]]:
    """The slices that are worse than the champion's by more than the gate allows."""
    if not find_champion(report):
        return []
    settings = report["gate"]["settings"]
    return [part for part in report["slices"] if is_beyond(part, settings)]


def list_large_slices(report: Report) -> list[dict[str, Any]]:
    """The slices with trips enough to say something of a model."""
    fewest = find_fewest_trips(report)
    return [part for part in report["slices"] if part["trips"] >= fewest]


def find_fewest_trips(report: Report) -> int:
    """The trips that a slice must have to count; of a model not judged, those of the default."""
    gate = report["gate"]
    default = GateSettings.model_fields["fewest_slice_trips"].default
    return int(gate["settings"]["fewest_slice_trips"] if gate else default)


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
