"""Fill the templates of the reports for people: run card, model card, summary and backfill.

A report's figures are prepared once, as tables of plain text and sentences; the templates in
templates/ say where they go. Equal reports give equal bytes.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from taxi_duration.data.clean import find_limit
from taxi_duration.data.month import Month
from taxi_duration.evaluation.gate import (
    NOT_JUDGED,
    NOT_PROMOTED,
    PROMOTED,
    Bootstrap,
    NotBetter,
    WorseSlice,
    is_beyond,
)
from taxi_duration.evaluation.report import Report
from taxi_duration.evaluation.residuals import SliceErrors
from taxi_duration.evaluation.stability import UNSEEN_PAIRS
from taxi_duration.model.directory import MODEL_FILE
from taxi_duration.model.features import FARTHEST_MILES, FEATURE_SETS
from taxi_duration.model.month_sums import QUANTITIES
from taxi_duration.reports.plots import FEWEST_IN_BAND, TITLES, draw_png, draw_svg
from taxi_duration.settings import GateSettings, Thresholds, name_variable

HERE = Path(__file__).parent

SECTIONS = (
    "Where it errs",
    "Residuals",
    "Largest errors",
    "What it has learned",
    "Earlier months",
    "Trips",
    "Drift",
    "Making it again",
)
"""Headings of the run card, for its table of contents."""

SAMPLE = "data/sample"
"""Directory of the synthetic months in the repository."""

FLAGS = {"cab": "green", "features": "extended", "alpha": None, "train_months": 1}
"""Defaults of orchestrate.py's options; a flag that has its default is left out of a command."""

TASK = "tabular-regression"


@dataclass(frozen=True)
class Remarks:
    """What happened in a run that its report, which follows from the inputs alone, cannot have.

    Args:
        notices: what is unusual about how the months were found or downloaded.
        warnings: what is beyond the limits of drift.
        promotion: what came of the gate's verdict.
    """

    notices: Sequence[str] = ()
    warnings: Sequence[str] = ()
    promotion: str | None = None

    @property
    def sentences(self) -> list[str]:
        """All of them."""
        return [*self.notices, *self.warnings, *([self.promotion] if self.promotion else [])]


NO_REMARKS = Remarks()


class Strong(str):
    """A cell that is emphasised."""

    __slots__ = ()


class Code(str):
    """A cell that is set in a monospaced font."""

    __slots__ = ()


class Table(NamedTuple):
    """A table of text; the first column names the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Plot(NamedTuple):
    """One of `plots.PLOTS`, and in words what it shows."""

    name: str
    title: str
    caption: str


def render_html(report: Report) -> str:
    """Return the run card as a page that needs nothing but itself."""
    return _render(
        "card.html.j2",
        **_prepare(report),
        sections=SECTIONS,
        style=Markup((HERE / "style.css").read_text("utf-8")),  # noqa: S704 - ours
        draw=lambda name: Markup(draw_svg(report, name)),  # noqa: S704 - matplotlib's
    )


def render_markdown(
    report: Report, mlflow_run: str, model_location: str, remarks: Remarks = NO_REMARKS
) -> str:
    """Return the run card as the markdown shown in Prefect, its plots in one picture.

    Args:
        mlflow_run: a link to it, or why there is none.
    """
    prepared = _prepare(report)
    plots = list(prepared["plots"].values())
    return _render(
        "card.md.j2",
        **prepared,
        picture=embed_png(
            draw_png(report, [plot.name for plot in plots]),
            "; ".join(plot.title for plot in plots),
        ),
        remarks=remarks,
        mlflow_run=mlflow_run,
        model_location=model_location,
    )


def render_model_card(report: Report) -> str:
    """Return README.md of a model directory, in the format that model hubs read."""
    large = _find_large_slices(report)
    metadata = yaml.safe_dump(describe_metadata(report), sort_keys=False, width=100)
    return (
        _render(
            "model_card.md.j2",
            **_prepare(report),
            metadata=metadata,
            feature_set=FEATURE_SETS.get(report.features),
            unseen=report.stability[report.validation.month][UNSEEN_PAIRS],
            worst=max(large, key=lambda part: part.rmse, default=None),
        )
        + "\n"
    )


def outline(report: Report, promotion: str | None = None) -> str:
    """Return the card in a few lines of plain text: errors, contenders, verdict, worst slices.

    Args:
        promotion: what came of the verdict.
    """
    validation = report.validation
    _, *others = list_contenders(report)
    worst = [
        max(parts, key=lambda part: part.rmse)
        for _, parts in groupby(_find_large_slices(report), lambda part: part.kind)
    ]
    fewest = _find_gate_settings(report).fewest_slice_trips
    paragraphs = {
        "validation RMSE": [f"{validation.rmse:.6f} minutes over {validation.rows_kept:,} trips"],
        "to compare": ["; ".join(f"{rmse:.4f} {name}" for name, rmse in others)],
        "verdict": [name_verdict(report), *list_reasons(report), *explain_verdict(report)],
        "champion": [promotion] if promotion else [],
        "worst slices": [
            *([f"of those of at least {fewest:,} trips:"] if worst else []),
            *(f"{each.rmse:.4f} {each.kind} {each.name} ({each.trips:,} trips)" for each in worst),
        ],
    }
    return _render("summary.txt.j2", paragraphs=paragraphs)


def render_backfill_markdown(
    *,
    title: str,
    trained: str,
    plot: bytes,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    warnings: Sequence[str],
    mlflow_run: str,
) -> str:
    """Return the markdown of a backfill that is shown in Prefect.

    Args:
        title: such as "green, 2023-01 to 2023-06".
        trained: how each model was trained, such as "with extended features, trained on the 3
            months before it".
        plot: PNG of the RMSE by month.
        header, rows: the table of errors by month.
        mlflow_run: a link to it, or why there is none.
    """
    return _render(
        "backfill.md.j2",
        title=title,
        trained=trained,
        picture=embed_png(plot, "RMSE by month"),
        table=Table(header, rows),
        warnings=warnings,
        mlflow_run=mlflow_run,
    )


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table, its first column aligned left and the others right.

    >>> print(make_table(["trips", "kept"], [[Strong("green"), "7"]]))
    | trips | kept |
    | --- | ---: |
    | **green** | 7 |
    """
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(_mark, cells))} |" for cells in lines)


def _mark(cell: str) -> str:
    marks = {Strong: "**", Code: "`"}.get(type(cell), "")
    return f"{marks}{cell}{marks}"


def embed_png(picture: bytes, text: str) -> str:
    """Return markdown that contains a picture.

    >>> embed_png(b"abc", "RMSE")
    '![RMSE](data:image/png;base64,YWJj)'
    """
    return f"![{text}](data:image/png;base64,{base64.b64encode(picture).decode()})"


ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _begin_sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


ENVIRONMENT.filters |= {
    "figure": lambda value: f"{value:.4f}",
    "count": lambda value: f"{value:,}",
    "general": lambda value: f"{value:g}",
    "share": lambda value: f"{value:.2%}",
    "sentence": _begin_sentence,
    "markdown": lambda table: make_table(*table),
    "slug": lambda title: re.sub(r"\W+", "-", title.lower()),
}
ENVIRONMENT.tests |= {
    "strong": lambda cell: isinstance(cell, Strong),
    "code": lambda cell: isinstance(cell, Code),
}


def _render(template: str, **values: Any) -> str:
    text = ENVIRONMENT.get_template(template).render(values)
    # What a template leaves out leaves blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + ("\n" if ".html" in template else "")


def _prepare(report: Report) -> dict[str, Any]:
    """Return what the templates show of a report: its tables, plots and sentences by name."""
    pace = report.coefficients.minutes_per_mile
    # Minutes that are the same at all hours are said once; their last digits are rounding errors.
    is_flat = len({f"{minutes:.4g}" for each in pace.values() for minutes in each}) == 1
    plots = [_describe_density(report), BANDS_PLOT]
    plots += [] if is_flat else [PACE_PLOT]
    plots += [PAST_PLOT] if report.past else []
    return {
        "report": report,
        "months": name_months(report.train.months),
        "trips_of": "synthetic trips of " if report.is_synthetic else "",
        "scored": _describe_score(report),
        "slices_note": _describe_slices(report),
        "verdict": name_verdict(report),
        "reasons": list_reasons(report),
        "explained": explain_verdict(report),
        "fewest_trips": _find_gate_settings(report).fewest_slice_trips,
        "commands": list_commands(report),
        "plots": {plot.name: plot for plot in plots},
        "columns": [
            f"`{name}`: {sentence}" for name, each in report.drift.items() for sentence in each
        ],
        "flat_pace": f"{next(iter(pace.values()))[0]:.4g}" if is_flat else None,
        "tables": {
            "contenders": _tabulate_contenders(report),
            "slices": _tabulate_slices(report),
            "residuals": _tabulate_residuals(report),
            "largest": _tabulate_largest_errors(report),
            "pairs": _tabulate_pairs(report),
            "hours": [] if is_flat else _tabulate_hours(pace),
            "past": _tabulate_past(report),
            "trips": _tabulate_trips(report),
            "contract": _tabulate_contract(report),
            "stability": _tabulate_stability(report),
            "files": Table(
                ("file", "sha256"), [(Code(name), Code(sha)) for name, sha in report.inputs.items()]
            ),
            "software": Table(("software", "version"), [*report.versions.items()]),
        },
    }


def name_months(months: Sequence[str]) -> str:
    """Return the months of a window, oldest first: two by name, more by the first and the last.

    >>> name_months(["2022-12", "2023-01", "2023-02"])
    '2022-12 to 2023-02'
    """
    return f"{months[0]} to {months[-1]}" if len(months) > 2 else ", ".join(months)


def show_per_cent(share: float) -> str:
    """Return a share as per cent, as short as it can be.

    >>> show_per_cent(0.125)
    '12.5%'
    """
    return f"{100 * share:.4g}%"


THE_SAME = "the same"


def compare_rmse(ours: float, theirs: float) -> str:
    """Return how much lower or higher one error is than another, to a tenth of a per cent.

    >>> compare_rmse(4.5, 5.0), compare_rmse(4.999, 5.0)
    ('10.0% lower', 'the same')
    """
    if not theirs:
        return "higher" if ours else THE_SAME
    change = f"{abs(ours / theirs - 1):.1%}"
    if change == "0.0%":
        return THE_SAME
    return f"{change} {'lower' if ours < theirs else 'higher'}"


def explain_promotion(report: Report) -> str:
    """Return why a model became champion, in a sentence."""
    validation, champion = report.validation, report.champion
    better = f"RMSE {validation.rmse:.4f} minutes on {validation.month}"
    if champion is None:
        return f"{better}: the first that is better than the baselines."
    change = compare_rmse(validation.rmse, champion.rmse)
    word = "as" if change == THE_SAME else "than"
    return f"{better}, {change} {word} that of version {champion.version}."


def name_verdict(report: Report) -> str:
    """Return the gate's verdict in a word or two."""
    if report.gate is None:
        return NOT_JUDGED
    return PROMOTED if report.gate.is_promoted else NOT_PROMOTED


def list_contenders(report: Report) -> list[tuple[str, float]]:
    """Return the model, its champion and the baselines, each with its RMSE in minutes."""
    months, champion = report.train.months, report.champion
    last = f" of {months[-1]}" if len(months) > 1 else ""
    found = [
        (f"linear regression, {report.features} features", report.validation.rmse),
        (f"zone-pair median{last}", report.baselines["zone_pair_median"].rmse),
        ("training mean", report.baselines["mean"].rmse),
    ]
    if champion:
        seen = f", trained on {report.validation.month} too" if champion.is_seen else ""
        found.insert(1, (f"champion, version {champion.version}{seen}", champion.rmse))
    return found


def list_reasons(report: Report) -> list[str]:
    """Return why the model is not promoted, a sentence each; many slices make one sentence."""
    if report.gate is None:
        return []
    worse = [each for each in report.gate.findings if isinstance(each, WorseSlice)]
    if len(worse) < 2:
        return [_begin_sentence(reason) for reason in report.gate.reasons]
    others = [str(each) for each in report.gate.findings if not isinstance(each, WorseSlice)]
    return [_begin_sentence(reason) for reason in [*others, _sum_up(report, worse)]]


def _sum_up(report: Report, worse: Sequence[WorseSlice]) -> str:
    settings = _find_gate_settings(report)
    worst = max(worse, key=lambda each: each.rise)
    by = f", by {worst.rise:.1%}" if isfinite(worst.rise) else ""
    return (
        f"on {len(worse)} of the {len(_find_large_slices(report))} slices of at least "
        f"{settings.fewest_slice_trips:,} trips its RMSE is more than "
        f"{show_per_cent(settings.most_slice_worsening)} above the champion's, most on "
        f"{worst.slice_kind} {worst.slice_name}{by}."
    )


def explain_verdict(report: Report) -> list[str]:
    """Return what the verdict rests on beside `list_reasons`, a sentence each."""
    gate, champion = report.gate, report.champion
    if gate is None:
        return ["No gate held this model against a champion."]
    if champion is None:
        first = "There was no champion yet, and it is better than the baselines."
        return [] if gate.reasons else [first]
    name = f"The champion, version {champion.version} ({champion.model_id}), has an"
    mae = f"MAE of {champion.mae:.4f}"
    if any(isinstance(each, NotBetter) for each in gate.findings):
        compared = f"{name} {mae} minutes on the same trips."  # the reason says its RMSE
    else:
        change = compare_rmse(report.validation.rmse, champion.rmse)
        compared = (
            f"{name} RMSE of {champion.rmse:.4f} minutes and an {mae} on the same trips; this "
            f"model's RMSE is {change}."
        )
    return [compared, *_describe_bootstrap(gate.bootstrap, gate.settings)]


def _describe_bootstrap(drawn: Bootstrap | None, settings: GateSettings) -> list[str]:
    if drawn is None or drawn.lowest is None:
        return []
    improvement, lowest = drawn.improvement, drawn.lowest
    confidence = f"with a confidence of {show_per_cent(settings.confidence)}"
    if lowest >= 0:
        measured = f"The improvement is {improvement:.2%}, and {confidence} at least {lowest:.2%}"
    else:
        better = f"better by {improvement:.2%}, and {confidence} worse"
        worse = f"worse by {-improvement:.2%}, and {confidence}"
        change = better if improvement >= 0 else worse
        measured = f"This model is {change} by at most {-lowest:.2%}"
    return [
        f"{measured}, by {drawn.resamples:,} bootstrap resamples of {drawn.blocks:,} blocks "
        "of trips; the gate asks for an improvement of more than "
        f"{show_per_cent(settings.margin)}."
    ]


def _find_gate_settings(report: Report) -> GateSettings:
    """Return the gate's settings; for a model that was not judged, the defaults."""
    return report.gate.settings if report.gate else GateSettings.model_construct()


def _find_large_slices(report: Report) -> list[SliceErrors]:
    """Return the slices that have enough trips to judge a model by."""
    fewest = _find_gate_settings(report).fewest_slice_trips
    return [part for part in report.slices if part.trips >= fewest]


def _describe_score(report: Report) -> str:
    trips = "synthetic trips of " if report.is_synthetic else ""
    tried = ", ".join(f"{trial.rmse:.4f} with {trial.alpha:g}" for trial in report.trials)
    chosen = f", chosen inside the training window: {tried}" if tried else ""
    return (
        f"on {trips}{report.validation.month} (alpha {report.alpha:g}{chosen}; training RMSE "
        f"{report.train.rmse:.4f}, validation MAE {report.validation.mae:.4f})."
    )


def _describe_slices(report: Report) -> str:
    said = (
        "A residual is actual less predicted minutes: above zero, trips took longer. Unmetered are "
        f"trips with a distance of 0 or less, or of over {FARTHEST_MILES:g} miles."
    )
    if report.champion is None:
        return said
    settings = _find_gate_settings(report)
    return (
        f"{said} The gate allows a slice of at least {settings.fewest_slice_trips:,} trips to be "
        f"{show_per_cent(settings.most_slice_worsening)} worse than under the champion; those "
        "beyond are marked."
    )


def _tabulate_contenders(report: Report) -> Table:
    (name, rmse), *others = list_contenders(report)
    return Table(
        (f"on {report.validation.month}", "RMSE, minutes", "model's RMSE is"),
        [
            (Strong(name), f"{rmse:.4f}", ""),
            *((name, f"{each:.4f}", compare_rmse(rmse, each)) for name, each in others),
        ],
    )


def _tabulate_slices(report: Report) -> list[Table]:
    settings = _find_gate_settings(report)
    header = ["trips", "RMSE", "MAE", "mean residual"]
    if report.champion:
        header += ["champion's RMSE", "model's RMSE is"]

    def describe(part: SliceErrors) -> list[str]:
        figures = [f"{each:.4f}" for each in (part.rmse, part.mae, part.mean_residual)]
        row = [part.name, f"{part.trips:,}", *figures]
        if report.champion is None or part.champion_rmse is None:
            return row
        change = compare_rmse(part.rmse, part.champion_rmse)
        if is_beyond(part, settings):
            change = Strong(f"{change}, over the limit")
        return [*row, f"{part.champion_rmse:.4f}", change]

    return [
        Table((kind, *header), [describe(part) for part in parts])
        for kind, parts in groupby(report.slices, lambda part: part.kind)
    ]


def _tabulate_residuals(report: Report) -> Table:
    quantiles = report.residuals.quantiles.model_dump()
    figures = {"mean": report.residuals.mean}
    figures |= {f"{share} %": minutes for share, minutes in quantiles.items()}
    row = ("residual: mean, and quantiles", *(f"{each:.4f}" for each in figures.values()))
    return Table(("minutes", *figures), [row])


def _tabulate_largest_errors(report: Report) -> Table:
    return Table(
        ("picked up", "from zone", "to zone", "miles", "minutes", "predicted", "residual"),
        [
            (
                trip.pickup.replace("T", " "),
                f"{trip.pickup_zone}",
                f"{trip.dropoff_zone}",
                f"{trip.distance_miles:.2f}",
                f"{trip.minutes:.2f}",
                f"{trip.predicted:.2f}",
                f"{trip.minutes - trip.predicted:.2f}",
            )
            for trip in report.largest_errors
        ],
    )


def _tabulate_pairs(report: Report) -> Table:
    return Table(
        ("slowest pairs of zones", "trips", "miles", "predicted minutes a mile"),
        [
            (
                f"{pair.pickup_zone} to {pair.dropoff_zone}",
                f"{pair.trips:,}",
                f"{pair.miles:.2f}",
                f"{pair.minutes_per_mile:.2f}",
            )
            for pair in report.coefficients.slowest_pairs
        ],
    )


def _tabulate_hours(pace: Mapping[str, Sequence[float]]) -> list[Table]:
    hours = [
        (f"{hour}:00", *(f"{minutes:#.4g}" for minutes in each))
        for hour, each in enumerate(zip(*pace.values(), strict=True))
    ]
    return [
        Table(("minutes a mile, before noon", *pace), hours[:12]),
        Table(("minutes a mile, from noon on", *pace), hours[12:]),
    ]


def _tabulate_past(report: Report) -> Table:
    ours = (report.validation.month, "this one", report.model_id, report.validation.rmse)
    months = [(each.month, each.version, each.model_id, each.rmse) for each in report.past]
    return Table(
        ("validated on", "version", "model", "RMSE"),
        [
            (Strong(month) if version == "this one" else month, version, Code(name), f"{rmse:.4f}")
            for month, version, name, rmse in [*months, ours]
        ],
    )


def _name_parts(report: Report) -> tuple[str, str]:
    training = f"training {name_months(report.train.months)}"
    return training, f"validation {report.validation.month}"


def _tabulate_trips(report: Report) -> Table:
    train, validation = report.train, report.validation
    rows: list[tuple[str, int, int]] = [("read", train.rows_read, validation.rows_read)]
    rows += [(f"dropped: {rule}", n, validation.dropped[rule]) for rule, n in train.dropped.items()]
    rows += [(f"kept, noted: {rule}", n, validation.noted[rule]) for rule, n in train.noted.items()]
    rows.append((Strong("kept"), train.rows_kept, validation.rows_kept))
    return Table(
        ("trips", *_name_parts(report)), [(name, f"{a:,}", f"{b:,}") for name, a, b in rows]
    )


def _tabulate_contract(report: Report) -> Table:
    thresholds = Thresholds.model_validate(report.thresholds)
    return Table(
        ("contract: rows", *_name_parts(report), "limit a month"),
        [
            (
                rule,
                f"{count:,}{_name_worst_month(report, rule)}",
                f"{report.validation.broken[rule]:,}",
                f"{100 * find_limit(rule, thresholds):.4g} %",
            )
            for rule, count in report.train.broken.items()
        ],
    )


def _name_worst_month(report: Report, rule: str) -> str:
    """Return the month of a window in which most rows break a rule, if any does."""
    shares = {
        month: rows.broken[rule] / rows.rows_read for month, rows in report.train.by_month.items()
    }
    worst = max(shares, key=lambda month: shares[month])
    return f" (at most {shares[worst]:.2%}, {worst})" if shares[worst] and len(shares) > 1 else ""


def _tabulate_stability(report: Report) -> Table:
    *train, validation = report.stability
    beside = {month: f"{month} beside the window's other months" for month in train}
    beside[validation] = f"{validation} beside the training window"
    return Table(
        ("drift: population stability index", *QUANTITIES, "unseen zone pairs"),
        [
            (
                beside[month],
                *(f"{shift[each]:.4f}" for each in QUANTITIES),
                f"{shift[UNSEEN_PAIRS]:.2%}",
            )
            for month, shift in report.stability.items()
        ],
    )


def _describe_density(report: Report) -> Plot:
    fullest = max(map(max, report.density.counts))
    return Plot(
        "density",
        TITLES["density"],
        f"Trips in each square of {report.density.step_minutes} minutes, from 1 (faint) to "
        f"{fullest:,} (full), on a scale of logarithms. On the line, both are equal.",
    )


BANDS_PLOT = Plot(
    "residuals",
    TITLES["residuals"],
    "The median, and bands that hold the middle half and the middle nine tenths of the trips; "
    f"where at least {FEWEST_IN_BAND} trips were predicted to take so long.",
)
PACE_PLOT = Plot(
    "minutes_per_mile",
    TITLES["minutes_per_mile"],
    "The minutes that a third mile adds to a trip of two, by the hour of the pick-up.",
)
PAST_PLOT = Plot(
    "past",
    TITLES["past"],
    "RMSE in minutes on the validation months of models that were registered before this one, and "
    "its own.",
)


def list_commands(report: Report) -> list[str]:
    """Return the commands that train a report's model, and that reproduce it."""
    reproduce = ["python", "-m", "taxi_duration", "reproduce", report.model_id]
    return [write_training_command(report), shlex.join([*reproduce, *_find_data(report)])]


def write_training_command(report: Report) -> str:
    """Return the command that trains a report's model, without what is so by default."""
    last = Month.parse(report.train.months[-1])
    features = FEATURE_SETS.get(report.features)
    is_own_choice = features is not None and report.alphas == [*features.alphas]
    given = {
        "year": last.year,
        "month": last.month,
        "cab": report.cab,
        "features": report.features,
        "alpha": None if is_own_choice else report.alphas[0],
        "train_months": len(report.train.months),
    }
    flags = [
        text
        for name, value in given.items()
        if name not in FLAGS or value != FLAGS[name]
        for text in (f"--{name.replace('_', '-')}", f"{value}")
    ]
    limits = [
        f"{name_variable(Thresholds, name)}={value}"
        for name, value in report.thresholds.items()
        if value != Thresholds.model_fields[name].default
    ]
    return shlex.join([*limits, "python", "orchestrate.py", *flags, *_find_data(report)])


def _find_data(report: Report) -> list[str]:
    """Return the flags by which synthetic months are found; the TLC's need none."""
    return ["--data-dir", SAMPLE, "--offline"] if report.is_synthetic else []


def describe_metadata(report: Report) -> dict[str, Any]:
    """Return a model card's front matter, as Hugging Face's hub reads it."""
    cab, month = report.cab, report.validation.month
    records = "synthetic trips" if report.is_synthetic else "TLC trip records"
    errors = {"rmse": report.validation.rmse, "mae": report.validation.mae}
    result = {
        "task": {"type": TASK, "name": "Trip duration in minutes"},
        "dataset": {
            "type": f"nyc-{records.lower().replace(' ', '-')}",
            "name": f"{records}, {cab}, {month}",
            "config": cab,
            "split": month,
        },
        "metrics": [
            {"type": name, "value": value, "name": f"{name.upper()}, minutes"}
            for name, value in errors.items()
        ],
    }
    return {
        "license": "mit",
        "library_name": "sklearn",
        "pipeline_tag": TASK,
        "tags": ["sklearn", "skops", TASK, "nyc-taxi", "trip-duration", cab],
        "model_format": "skops",
        "model_file": MODEL_FILE,
        "metrics": [*errors],
        "model-index": [{"name": report.model_id, "results": [result]}],
    }
