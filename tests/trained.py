"""Training as the flows do it, without a flow."""

from pathlib import Path

from taxi_duration.features import get_feature_set
from taxi_duration.reduction import reduce_month
from taxi_duration.training import Training, fit_window, sum_window


def train_on(path: Path, features: str) -> Training:
    """Train on one month with a feature set's own alphas."""
    feature_set = get_feature_set(features)
    return fit_window(sum_window(feature_set, [lambda: reduce_month(path, feature_set).tables]))
