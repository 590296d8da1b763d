"""Training again what was trained before, from the same bytes and parameters, and comparing.

A figure or a coefficient agrees when it differs by at most `TOLERANCE` of the recorded one, or of 1
where that is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import SYNTHETIC_PREFIX, MonthFile, check_unchanged
from taxi_duration.data.schema import Cab, get_cab
from taxi_duration.data.tlc import LocalMonths
from taxi_duration.errors import DataError, ModelError, describe
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.evaluation.report import read_versions
from taxi_duration.files import hash_file
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.month_sums import reduce_month
from taxi_duration.model.tables import Tables
from taxi_duration.model.training import fit_window, identify_training, sum_window
from taxi_duration.registry.resolve import FoundModel
from taxi_duration.settings import Thresholds

TOLERANCE = 1e-9

Figures = Mapping[str, float | npt.NDArray[np.float64]]
"""What came out, by what it is: figures, and a term's coefficients with NaN for what was not seen.
"""


@dataclass(frozen=True)
class Recipe:
    """All that a training follows from, as its report says.

    Args:
        features: the model's own, with the alphas that could be chosen.
        alphas: those that could be chosen, or the one that was given.
        inputs: of each month, training months first, its file's name and sha256.
    """

    cab: Cab
    features: FeatureSet
    alphas: tuple[float, ...]
    thresholds: Thresholds
    inputs: Mapping[Month, tuple[str, str]]

    @classmethod
    def of(cls, recorded: FoundModel) -> Recipe:
        """Read a report's.

        Raises:
            ModelError: it is not there.
        """
        report = recorded.report
        with _named_gaps(recorded):
            cab, alphas = get_cab(report.cab), tuple(report.alphas)
            months = [*report.train.months, report.validation.month]
            by_name = {name.removeprefix(SYNTHETIC_PREFIX): name for name in report.inputs}
            inputs = {}
            for month in map(Month.parse, months):
                name = by_name[month.file_name(cab.name)]
                inputs[month] = name, report.inputs[name]
            thresholds = Thresholds(**report.thresholds)
            if not alphas:
                raise LookupError("no alpha")
            features = recorded.model.features
            if len(alphas) > 1:
                features = replace(features, alphas=alphas)
        return cls(cab, features, alphas, thresholds, inputs)

    @property
    def identity(self) -> str:
        """What this code, with its libraries, calls such a training."""
        *train, _ = self.inputs
        inputs = {month: self.inputs[month][1] for month in train}
        return identify_training(self.cab.name, self.features, self.alphas, inputs, read_versions())


@dataclass(frozen=True)
class Reproduction:
    """How what was recorded compares with what came out the second time.

    Args:
        files: the months', training months first; their bytes are the recorded ones.
        differences: by what was compared, the largest; infinite where one side is not there.
        other_versions: of what the figures depend on, those not of the report: theirs, ours.
        is_same_code: whether this code would give the training the same identity.
    """

    recorded: FoundModel
    files: tuple[MonthFile, ...]
    differences: Mapping[str, float]
    other_versions: Mapping[str, tuple[str, str]]
    is_same_code: bool

    @property
    def wrong(self) -> dict[str, float]:
        """What differs by more than `TOLERANCE`, the largest difference first."""
        found = [each for each in self.differences.items() if not each[1] <= TOLERANCE]
        return dict(sorted(found, key=lambda each: -each[1]))


def reproduce(recorded: FoundModel, data_directory: Path, *, offline: bool) -> Reproduction:
    """Train and validate once more, from the months' files alone, and compare.

    Args:
        offline: whether absent months are not fetched.

    Raises:
        ModelError: the report does not say all that a training has.
        DataError: a month's file is not there, has other bytes, or changes meanwhile.
    """
    recipe = Recipe.of(recorded)
    with _named_gaps(recorded):
        said = list_recorded(recorded)
    files = verify_inputs(recipe, data_directory, offline=offline)
    reproduced = retrain(recorded, recipe, files)
    here, theirs = read_versions(), recorded.report.versions
    return Reproduction(
        recorded,
        tuple(files),
        compare(said, reproduced),
        {
            name: (str(theirs.get(name, "none")), here.get(name, "none"))
            for name in sorted({*theirs, *here})
            if theirs.get(name) != here.get(name)
        },
        recipe.identity == recorded.model_id,
    )


def verify_inputs(recipe: Recipe, data_directory: Path, *, offline: bool) -> list[MonthFile]:
    """Have every month's file, absent ones fetched, with the very bytes that were trained on.

    A file that is there is neither asked about nor replaced.

    Raises:
        DataError: a file is absent and cannot be fetched, or has other bytes.
        SourceError, StorageError: as `LocalMonths`.
    """
    fetch = LocalMonths(recipe.cab, data_directory, offline)
    files, wrong = [], []
    for month, (name, sha256) in recipe.inputs.items():
        path = data_directory / name
        if path.is_file():
            file = MonthFile(month, path, _hash_present(path), was_there=True)
        elif name.startswith(SYNTHETIC_PREFIX):
            raise DataError(
                f"{path} is missing, and nobody publishes it",
                "name the directory that holds the synthetic sample, data/sample, with --data-dir",
            )
        else:
            file = fetch(month)
            if file.path.name != name:  # the sample's, which does for a month that nothing names
                raise DataError(
                    f"{path} is missing, and {file.path.name}, which is there, is no substitute",
                    "place it there, or name another directory with --data-dir",
                )
        if file.sha256 != sha256:
            wrong.append(f"{file.path} has sha256 {file.sha256}, recorded is {sha256}")
        files.append(file)
    if wrong:
        raise DataError(
            f"{'; '.join(wrong)}, so the TLC has published it anew, or it was changed here",
            "put the file with the recorded sha256 there, from a backup or a bucket, or train "
            "again on this one",
        )
    return files


def _hash_present(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({describe(error)})", "put a good copy there"
        ) from error


def retrain(recorded: FoundModel, recipe: Recipe, files: Sequence[MonthFile]) -> Figures:
    """Train and validate once more; no sums that were kept earlier are used.

    Raises:
        DataError: as `reduce_trips`, or a file changes meanwhile.
    """
    *train, validation = files
    funnels: list[RowFunnel] = []

    def read(file: MonthFile) -> list[Tables]:
        sums = reduce_month(
            file.path, recipe.features, recipe.cab, file.month, thresholds=recipe.thresholds
        )
        check_unchanged(file.path, file.sha256)
        funnels.append(sums.funnel)
        return sums.tables

    window = sum_window(recipe.features, [partial(read, file) for file in train])
    given = recipe.alphas[0] if len(recipe.alphas) == 1 else None
    training = fit_window(window, given)
    model = training.model
    predictors = {"model": model.predict_clean, "saved": recorded.model.predict_clean}
    scores = evaluate_predictors(predictors, validation.path, recipe.cab, validation.month)
    check_unchanged(validation.path, validation.sha256)
    return {
        "training rows read": sum(funnel.rows_read for funnel in funnels),
        "training rows kept": sum(funnel.rows_kept for funnel in funnels),
        "validation rows read": scores.funnel.rows_read,
        "validation rows kept": scores.funnel.rows_kept,
        **{f"held-out RMSE of alpha {each.alpha:g}": each.rmse for each in training.trials},
        "alpha of the report": model.alpha,
        "alpha of the model": model.alpha,
        "intercept": model.intercept,
        **{f"coefficients of {name}": values for name, values in model.coefficients.items()},
        "training RMSE": training.rmse,
        "validation RMSE": scores.errors["model"].rmse,
        "validation MAE": scores.errors["model"].mae,
        "RMSE of the saved model": scores.errors["saved"].rmse,
    }


def list_recorded(recorded: FoundModel) -> Figures:
    """Return what `retrain` should come to, of the report and the model that were saved."""
    report, model = recorded.report, recorded.model
    train, validation = report.train, report.validation
    trials = {trial.alpha: trial.rmse for trial in report.trials}
    return {
        "training rows read": float(train.rows_read),
        "training rows kept": float(train.rows_kept),
        "validation rows read": float(validation.rows_read),
        "validation rows kept": float(validation.rows_kept),
        **{f"held-out RMSE of alpha {alpha:g}": rmse for alpha, rmse in trials.items()},
        "alpha of the report": report.alpha,
        "alpha of the model": model.alpha,
        "intercept": model.intercept,
        **{f"coefficients of {name}": values for name, values in model.coefficients.items()},
        "training RMSE": train.rmse,
        "validation RMSE": validation.rmse,
        "validation MAE": validation.mae,
        "RMSE of the saved model": validation.rmse,
    }


def compare(recorded: Figures, reproduced: Figures) -> dict[str, float]:
    """Return by how much each figure differs at most, as a share of max(1, |recorded|)."""
    return {
        what: _find_difference(recorded[what], reproduced[what])
        if what in recorded and what in reproduced
        else np.inf
        for what in {**recorded, **reproduced}
    }


def _find_difference(
    recorded: float | npt.NDArray[np.float64], reproduced: float | npt.NDArray[np.float64]
) -> float:
    ours, theirs = np.atleast_1d(reproduced), np.atleast_1d(recorded)
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return np.inf
    differences = np.abs(ours - theirs) / np.fmax(1.0, np.abs(theirs))
    return float(np.nanmax(differences, initial=0.0))


@contextmanager
def _named_gaps(recorded: FoundModel) -> Iterator[None]:
    """Turn what a report that lacks something raises into an error that names the training."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the report of {recorded.model_id} does not say all that a training has "
            f"({type(error).__name__}: {describe(error)})",
            "train it again",
        ) from error
