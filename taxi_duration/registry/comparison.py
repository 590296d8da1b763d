"""Whether a training came out as it was recorded.

Figures and coefficients agree when they differ by at most `TOLERANCE` of the recorded one, or of 1
where that is smaller; counts and the chosen alpha when they are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from taxi_duration.data.clean import RowFunnel
from taxi_duration.evaluation.report import Report, read_versions
from taxi_duration.model.directory import locate_model
from taxi_duration.model.features import Floats, Term
from taxi_duration.model.model import DurationModel
from taxi_duration.model.training import Training
from taxi_duration.registry.reproduction import Recorded, Retrained, named_gaps

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """One thing, recorded and reproduced; None where it is not there at all.

    Args:
        difference: relative, the largest one; None where one side is not there.
        detail: where they differ, if they do.
    """

    what: str
    recorded: float | None
    reproduced: float | None
    difference: float | None
    agrees: bool
    detail: str = ""


def compare(recorded: Recorded, retrained: Retrained) -> list[Comparison]:
    """Hold everything that came out against what the model and its report have.

    Raises:
        ModelError: the report lacks a figure.
    """
    with named_gaps(recorded):
        return [
            *_compare_rows("training", recorded.report["train"], retrained.funnel),
            *_compare_rows(
                "validation", recorded.report["validation"], retrained.validation_funnel
            ),
            *_compare_trials(recorded.report["trials"], retrained.training),
            *_compare_models(recorded, retrained.training.model),
            *_compare_errors(recorded.report, retrained),
        ]


def _compare_rows(part: str, said: Report, funnel: RowFunnel) -> list[Comparison]:
    return [
        _compare_exactly(f"{part} rows read", said["rows_read"], funnel.rows_read),
        _compare_exactly(f"{part} rows kept", said["rows_kept"], funnel.rows_kept),
    ]


def _compare_trials(said: Sequence[Report], training: Training) -> list[Comparison]:
    recorded = {float(trial["alpha"]): float(trial["rmse"]) for trial in said}
    tried = {trial.alpha: trial.rmse for trial in training.trials}
    return [
        _compare_figures(f"held-out RMSE of alpha {alpha:g}", recorded.get(alpha), tried.get(alpha))
        for alpha in sorted({*recorded, *tried})
    ]


def _compare_models(recorded: Recorded, again: DurationModel) -> list[Comparison]:
    model = recorded.model
    return [
        _compare_exactly("alpha of the report", recorded.report["alpha"], again.alpha),
        _compare_exactly("alpha of the model", model.alpha, again.alpha),
        _compare_figures("intercept", model.intercept, again.intercept),
        *(
            _compare_coefficients(
                term, model.coefficients[term.name], again.coefficients[term.name]
            )
            for term in model.features.parsed
        ),
    ]


def _compare_errors(report: Report, retrained: Retrained) -> list[Comparison]:
    said, found = report["validation"], retrained.validation
    return [
        _compare_figures("training RMSE", report["train"]["rmse"], retrained.training.rmse),
        _compare_figures("validation RMSE", said["rmse"], found.rmse),
        _compare_figures("validation MAE", said["mae"], found.mae),
        _compare_figures("RMSE of the saved model", said["rmse"], retrained.saved.rmse),
    ]


def _compare_exactly(what: str, recorded: float, reproduced: float) -> Comparison:
    return replace(_compare_figures(what, recorded, reproduced), agrees=recorded == reproduced)


def _compare_figures(what: str, recorded: float | None, reproduced: float | None) -> Comparison:
    if recorded is None or reproduced is None:
        return Comparison(what, recorded, reproduced, None, agrees=False)
    difference = abs(reproduced - recorded) / max(1.0, abs(recorded))
    return Comparison(what, recorded, reproduced, difference, agrees=difference <= TOLERANCE)


def _compare_coefficients(term: Term, recorded: Floats, reproduced: Floats) -> Comparison:
    """Compare a term's coefficients code by code; counted are those of codes that were seen."""
    is_seen, is_seen_again = ~np.isnan(recorded), ~np.isnan(reproduced)
    differences = np.abs(reproduced - recorded) / np.fmax(1.0, np.abs(recorded))
    differences[~is_seen & ~is_seen_again] = 0.0
    differences[is_seen != is_seen_again] = np.inf
    worst = int(differences.argmax())
    largest = float(differences[worst])
    agrees = largest <= TOLERANCE
    (name,) = term.name_columns([worst])
    sides = {"recorded": recorded[worst], "reproduced": reproduced[worst]}
    said = [f"{'not seen' if np.isnan(c) else f'{c:.12g}'} {side}" for side, c in sides.items()]
    return Comparison(
        f"coefficients of {term.name}",
        int(np.count_nonzero(is_seen)),
        int(np.count_nonzero(is_seen_again)),
        largest if np.isfinite(largest) else None,
        agrees,
        "" if agrees else f"{name} is {said[0]}, {said[1]}",
    )


def find_other_versions(report: Report) -> dict[str, tuple[str, str]]:
    """Of what the figures depend on, the versions that are not the report's: theirs, and ours."""
    here, said = read_versions(), report.get("versions", {})
    return {
        name: (str(said.get(name, "none")), here.get(name, "none"))
        for name in {**said, **here}
        if said.get(name) != here.get(name)
    }


def is_same_code(recorded: Recorded) -> bool:
    """Whether this code, with its libraries, is the one that gave the model its identity."""
    with named_gaps(recorded):
        now = locate_model(Path(), recorded.report, recorded.model.features)
    return now.as_posix() == recorded.model_id
