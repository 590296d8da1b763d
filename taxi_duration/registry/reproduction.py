"""Training again what was trained before, from the same bytes and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import SYNTHETIC_PREFIX, MonthFile, check_unchanged
from taxi_duration.data.schema import Cab, get_cab
from taxi_duration.data.tlc import LocalMonths
from taxi_duration.errors import DataError, ModelError
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.evaluation.report import Report
from taxi_duration.files import hash_file
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.model import DurationModel
from taxi_duration.model.month_sums import reduce_month
from taxi_duration.model.tables import Tables
from taxi_duration.model.training import Training, fit_window, sum_window
from taxi_duration.regression.metrics import Evaluation
from taxi_duration.settings import Thresholds


@dataclass(frozen=True)
class Recorded:
    """A finished training: its identity, where it was found, its report and its model."""

    model_id: str
    place: str
    report: Report
    model: DurationModel


@contextmanager
def named_gaps(recorded: Recorded) -> Iterator[None]:
    """Turn what a report that lacks something raises into an error that names the training."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the report of {recorded.model_id} does not say all that a training has "
            f"({type(error).__name__}: {' '.join(str(error).split())}): train it again."
        ) from error


@dataclass(frozen=True)
class Recipe:
    """All that a training follows from, as its report says.

    Args:
        features: the model's own, with the alphas that could be chosen.
        alpha: the one that was given; None if there was a choice.
        inputs: of each month, training months first, its file's name and sha256.
    """

    cab: Cab
    features: FeatureSet
    alpha: float | None
    thresholds: Thresholds
    inputs: Mapping[Month, tuple[str, str]]

    @classmethod
    def of(cls, recorded: Recorded) -> Recipe:
        """Read a report's.

        Raises:
            ModelError: it is not there.
        """
        report, features = recorded.report, recorded.model.features
        with named_gaps(recorded):
            cab, alphas = get_cab(report["cab"]), tuple(map(float, report["alphas"]))
            months = [*report["train"]["months"], report["validation"]["month"]]
            by_name = {name.removeprefix(SYNTHETIC_PREFIX): name for name in report["inputs"]}
            inputs = {}
            for month in map(Month.parse, months):
                name = by_name[month.file_name(cab.name)]
                inputs[month] = name, str(report["inputs"][name])
            thresholds = Thresholds(**report["thresholds"])
            if len(alphas) > 1:
                features, alpha = replace(features, alphas=alphas), None
            else:
                alpha = alphas[0]
        return cls(cab, features, alpha, thresholds, inputs)


@dataclass(frozen=True)
class Retrained:
    """What came out the second time.

    Args:
        validation: errors of the retrained model.
        saved: errors, on the same trips, of the model that was recorded.
    """

    training: Training
    funnel: RowFunnel
    validation: Evaluation
    saved: Evaluation
    validation_funnel: RowFunnel


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
                f"{path} is missing, and nobody publishes it: name the directory that holds the "
                "synthetic sample, data/sample, with --data-dir."
            )
        else:
            file = fetch(month)
            if file.path.name != name:  # the sample's, which does for a month that nothing names
                raise DataError(
                    f"{path} is missing, and {file.path.name}, which is there, is no substitute: "
                    "place it there, or name another directory with --data-dir."
                )
        if file.sha256 != sha256:
            wrong.append(f"{file.path} has sha256 {file.sha256}, recorded is {sha256}")
        files.append(file)
    if wrong:
        raise DataError(
            f"{'; '.join(wrong)}: the TLC has published it anew, or it was changed here. Put the "
            "file with the recorded sha256 there, from a backup or a bucket, or train again on "
            "this one."
        )
    return files


def _hash_present(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): put a good copy there."
        ) from error


def retrain(recorded: Recorded, recipe: Recipe, files: Sequence[MonthFile]) -> Retrained:
    """Train and validate once more, from the months' files alone; no sums kept earlier are used.

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
    training = fit_window(window, recipe.alpha)
    models = {"retrained": training.model, "saved": recorded.model}
    predictors = {name: model.predict_clean for name, model in models.items()}
    scores = evaluate_predictors(predictors, validation.path, recipe.cab, validation.month)
    check_unchanged(validation.path, validation.sha256)
    first, *others = funnels
    return Retrained(
        training,
        sum(others, first),
        scores.errors["retrained"],
        scores.errors["saved"],
        scores.funnel,
    )
