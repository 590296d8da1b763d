"""Training as the flows do it, without a flow."""

from pathlib import Path

from taxi_duration.error_analysis import MODEL, ErrorAnalysis
from taxi_duration.evaluation import Evaluation
from taxi_duration.features import get_feature_set
from taxi_duration.gate import Verdict
from taxi_duration.month import Month
from taxi_duration.month_file import read_trips
from taxi_duration.reduction import reduce_month
from taxi_duration.report import Report, build_report
from taxi_duration.settings import Thresholds
from taxi_duration.stability import QUANTITIES, UNSEEN_PAIRS, Profile
from taxi_duration.store import identify_model
from taxi_duration.training import Training, fit_window, sum_window
from taxi_duration.trips import clean_trips
from tests.months import FEBRUARY


def train_on(path: Path, features: str) -> Training:
    """Train on one month with a feature set's own alphas."""
    feature_set = get_feature_set(features)
    return fit_window(sum_window(feature_set, [lambda: reduce_month(path, feature_set).tables]))


def make_report(training: Training, sha256: str = "ab", verdict: Verdict | None = None) -> Report:
    """A report of made-up errors, as if it had been trained on a file with that sha256.

    What is said of slices, residuals and coefficients is true of the synthetic February.
    """
    trips, funnel = clean_trips(read_trips(FEBRUARY), Month(2025, 2))
    errors = Evaluation(rmse=5.5, mae=4.0, rows=funnel.rows_kept)
    model = training.model
    report = build_report(
        cab="green",
        training=training,
        alphas=(1.0, 3.0, 10.0),
        train_funnels={Month(2025, 1): funnel},
        validation_month=Month(2025, 2),
        validation_funnel=funnel,
        validation=errors,
        baselines={"mean": errors, "zone_pair_median": errors},
        inputs={"green_tripdata_2025-01.parquet": sha256},
        thresholds=Thresholds(),
        drift={},
        stability={"2025-02": dict.fromkeys((*QUANTITIES, UNSEEN_PAIRS), 0.0)},
        profile=Profile.of(trips),
        analysis=ErrorAnalysis.of(trips, {MODEL: model.predict_clean(trips)}),
        verdict=verdict,
    )
    return {"model_id": identify_model(report, model.features), **report}
