"""Training over a window of months: their sums added up, alpha chosen inside it, one solve."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from threadpoolctl import threadpool_limits

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import LANES
from taxi_duration.errors import InputError
from taxi_duration.model.features import FeatureSet, get_feature_set
from taxi_duration.model.model import DurationModel
from taxi_duration.model.month_sums import recall_month, reduce_month
from taxi_duration.model.tables import Layout, Tables
from taxi_duration.regression.solve import NormalEquations, check_alpha
from taxi_duration.regression.sums import Sums
from taxi_duration.settings import Thresholds, read_settings
from taxi_duration.version import identify_code

_BLAS = Lock()

TRAINING_CODE = "taxi_duration.model.training"
"""This module: what it imports is the code that a model depends on."""


def identify_training(
    cab: str,
    features: FeatureSet,
    alphas: Sequence[float],
    inputs: Mapping[Month, str],
    versions: Mapping[str, str],
) -> str:
    """Return a training's identity, which follows from what it is given and not from what came out.

    Whom the model is judged against, on which month and by which settings, is no part of it.

    Args:
        cab: name of the cab type.
        alphas: those that could be chosen.
        inputs: training month -> sha256 of its file.
        versions: library -> its version.

    Returns:
        `<cab>/<last training month>-<8 hexadecimal digits>`.
    """
    identity = {
        "cab": cab,
        "features": [features.name, features.terms, features.bounds],
        "alphas": [*alphas],
        "inputs": {str(month): inputs[month] for month in sorted(inputs)},
        "versions": dict(versions),
        "code": identify_code(TRAINING_CODE),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{cab}/{max(inputs)}-{digest[:8]}"


@dataclass(frozen=True)
class Window:
    """The sums of a training window: of the trips that fit, and of those alpha is chosen on.

    Without alphas to choose from, or without trips in the window's last days, `held_out` is None.
    """

    features: FeatureSet
    fitted: Sums
    held_out: Sums | None

    @functools.cached_property
    def whole(self) -> Sums:
        return self.fitted + self.held_out if self.held_out else self.fitted

    @property
    def mean_minutes(self) -> float:
        return float(self.whole.targets[0]) / self.whole.weight

    @property
    def columns(self) -> int:
        """Columns with a coefficient, the intercept not among them."""
        whole = self.whole
        return int(np.count_nonzero(whole.levels) + np.count_nonzero(whole.gram.diagonal()) - 1)


@dataclass(frozen=True)
class Trial:
    """An alpha, and the RMSE (minutes, before clipping) on the held-out trips of a fit with it."""

    alpha: float
    rmse: float


@dataclass(frozen=True)
class Training:
    """A fitted model, what it was chosen among, and its exact fit to the window.

    `rmse` is in minutes, over all `trips` of the window, before clipping.
    """

    model: DurationModel
    trials: tuple[Trial, ...]
    rmse: float
    trips: int


def train_model(
    paths: Sequence[str | Path],
    features: str | FeatureSet = "extended",
    alpha: float | None = None,
    sums_directory: str | Path | None = None,
) -> DurationModel:
    """Train on the trips of one or more month files together.

    Each file is read once, in chunks, and memory hardly grows with their number.

    Args:
        paths: parquet files as the TLC publishes them, the latest month last.
        features: a feature set or the name of one.
        alpha: L2 penalty, 0 for ordinary least squares. When None, the feature set's own; when it
            has several, the one that does best on the last month from day 25 on, fitted to all
            trips before.
        sums_directory: where months' sums are kept and found again, so that a window that moves
            reads only the new month; None keeps nothing.

    Raises:
        InputError: no path, an unknown feature set, a negative or non-finite alpha, or a
            threshold in the environment that is none.
        DataError: a file is missing, unreadable, leaves no trip or breaks the data contract.
    """
    if not paths:
        raise InputError("paths is empty", "give at least one month's file")
    if isinstance(paths, (str, Path)):
        raise InputError(f"paths is the single path {paths}", "give a list of paths")
    feature_set = get_feature_set(features) if isinstance(features, str) else features
    chosen = None if alpha is None else check_alpha(alpha)
    thresholds = read_settings(Thresholds)

    def read(path: str | Path) -> list[Tables]:
        if sums_directory is None:
            return reduce_month(path, feature_set, thresholds=thresholds).tables
        directory = Path(sums_directory)
        return recall_month(directory, path, feature_set, thresholds=thresholds).sums.tables

    months = [functools.partial(read, path) for path in paths]
    return fit_window(sum_window(feature_set, months), chosen).model


def sum_window(features: FeatureSet, months: Sequence[Callable[[], list[Tables]]]) -> Window:
    """Add the tables of months up, one month at a time.

    Args:
        months: each gives what `tabulate` returns of a month; the latest last.
    """
    if not months:
        raise InputError("the window is empty", "give at least one month")
    *others, last = months
    earlier: Tables | None = None
    for read in others:
        # A month is small beside the window: its parts are added up by themselves first.
        month = functools.reduce(operator.add, read())
        earlier = earlier + month if earlier else month
        del month
    early, *late = last()
    fitted = earlier + early if earlier else early
    del earlier, early
    if late and not (fitted.trips and late[0].trips):
        fitted, late = fitted + late[0], []
    return Window(features, fitted.sum_columns(), late[0].sum_columns() if late else None)


def fit_window(window: Window, alpha: float | None = None) -> Training:
    """Choose alpha, unless it is given, and fit the whole window with it.

    The trials cost a solve each, and no trip is read again. When there is no telling between
    several alphas, the middle one is taken.
    """
    alphas = window.features.alphas if alpha is None else (alpha,)
    chosen = alphas[len(alphas) // 2]
    trials: tuple[Trial, ...] = ()
    # Two pools of BLAS threads, NumPy's and SciPy's, would wait for each other; the trials take
    # turns on threads of our own instead, and come out the same on any number of cores. The limit
    # is the whole process's, so one window at a time sets it and takes it back.
    with _BLAS, threadpool_limits(1, user_api="blas"):
        if len(alphas) > 1 and window.held_out:
            trial = functools.partial(_try_alpha, NormalEquations(window.fitted), window.held_out)
            with ThreadPoolExecutor(LANES) as threads:
                trials = tuple(threads.map(trial, alphas))
            chosen = min(trials, key=lambda each: each.rmse).alpha
        sums = window.whole
        fit = NormalEquations(sums).solve(chosen)
        rmse = float(np.sqrt(sums.measure_rss(fit) / sums.weight))
    coefficients = Layout(window.features).split_coefficients(fit, sums)
    model = DurationModel(window.features, chosen, fit.intercept, coefficients)
    return Training(model, trials, rmse, int(sums.weight))


def _try_alpha(equations: NormalEquations, held_out: Sums, alpha: float) -> Trial:
    rss = held_out.measure_rss(equations.solve(alpha))
    return Trial(alpha, float(np.sqrt(rss / held_out.weight)))
