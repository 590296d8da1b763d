"""The run card, the model card and the summary as text; test_page.py has the page in a browser."""

import base64
import hashlib
import html
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.cli.flags import make_parser
from taxi_duration.data.month import Month
from taxi_duration.evaluation.gate import NotBelowBaseline, NotBetter, Seen, WorseSlice, conclude
from taxi_duration.evaluation.report import Report, dump_report
from taxi_duration.flows.options import LocalOptions, read_options
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.reports import render
from taxi_duration.reports.plots import PLOTS
from taxi_duration.reports.render import (
    SECTIONS,
    Remarks,
    compare_rmse,
    describe_metadata,
    explain_promotion,
    list_commands,
    outline,
    render_backfill_markdown,
    render_html,
    render_markdown,
    render_model_card,
    write_training_command,
)
from taxi_duration.settings import GateSettings, Thresholds
from tests.conftest import REPOSITORY
from tests.support.card_tables import read_html_tables, read_markdown_tables
from tests.support.months import JANUARY
from tests.support.reports import (
    DEGENERATE,
    make_backfill_report,
    make_first_report,
    make_judged_report,
    pass_for_real,
    refuse,
)
from tests.support.trained import alter

BASELINE = NotBelowBaseline(baseline="mean", month="2025-02", rmse=5.2109, baseline_rmse=5.0)
SEEN = Seen(version="1", month="2025-02")
JUDGED: dict[str, Callable[[], Report]] = {
    "not judged": make_backfill_report,
    "promoted": make_judged_report,
    "first": make_first_report,
    "not promoted": lambda: refuse(BASELINE),
    "worse than the baselines": lambda: make_first_report(BASELINE),
    "seen": lambda: refuse(SEEN, is_seen=True),
}


@pytest.fixture(scope="module", params=JUDGED)
def report(request: pytest.FixtureRequest) -> Report:
    return JUDGED[request.param]()


@pytest.fixture(scope="module")
def candidate() -> Report:
    return make_judged_report()


@pytest.fixture
def with_plots() -> None:
    """For tests that look at plots, or at all of a page."""


@pytest.fixture(autouse=True)
def draw_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave plots out of what is tested as text: drawing them is most of the time."""
    if "with_plots" not in request.fixturenames:
        monkeypatch.setattr(render, "draw_png", lambda *_: b"")
        monkeypatch.setattr(render, "draw_svg", lambda *_: "")


def find_table(report: Report, name: str) -> list[list[str]]:
    tables = read_markdown_tables(render_markdown(report, "x", "y"))
    (table,) = [table for table in tables if table[0][0] == name]
    return table


def test_page_and_markdown_have_the_same_tables_and_the_model_card_some(report: Report) -> None:
    tables = read_markdown_tables(render_markdown(report, "x", "y"))
    assert read_html_tables(render_html(report)) == tables
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    card = read_markdown_tables(render_model_card(report))
    assert len(card) == 6
    assert [table for table in card if table not in tables] == []


def test_the_tables_say_what_the_report_says(candidate: Report) -> None:
    validation, champion = candidate.validation, candidate.champion
    assert champion
    rivals = {
        "champion, version 1": champion.rmse,
        "zone-pair median": candidate.baselines["zone_pair_median"].rmse,
        "training mean": candidate.baselines["mean"].rmse,
    }
    assert find_table(candidate, "on 2025-02")[1:] == [
        ["linear regression, extended features", f"{validation.rmse:.4f}", ""],
        *(
            [name, f"{rmse:.4f}", compare_rmse(validation.rmse, rmse)]
            for name, rmse in rivals.items()
        ),
    ]
    night = next(part for part in candidate.slices if part.name == "night, 0 to 5")
    assert find_table(candidate, "hour")[1][:6] == [
        night.name,
        f"{night.trips:,}",
        *(f"{each:.4f}" for each in (night.rmse, night.mae, night.mean_residual)),
        f"{night.champion_rmse:.4f}",
    ]
    quantiles = candidate.residuals.quantiles.model_dump().values()
    assert find_table(candidate, "minutes")[1][1:] == [
        f"{each:.4f}" for each in (candidate.residuals.mean, *quantiles)
    ]
    trip, pair = candidate.largest_errors[0], candidate.coefficients.slowest_pairs[0]
    largest = find_table(candidate, "picked up")
    assert largest[1][0] == trip.pickup.replace("T", " ")
    assert largest[1][-1] == f"{trip.minutes - trip.predicted:.2f}"
    assert find_table(candidate, "slowest pairs of zones")[1][-1] == f"{pair.minutes_per_mile:.2f}"
    paces = candidate.coefficients.minutes_per_mile
    assert find_table(candidate, "minutes a mile, from noon on")[2] == [
        "13:00", *(f"{each[13]:#.4g}" for each in paces.values()),
    ]  # fmt: skip
    past = find_table(candidate, "validated on")
    assert past[1] == ["2024-10", "1", "green/2024-10-0a1b2c3d", "6.1250"]
    assert past[-1] == ["2025-02", "this one", candidate.model_id, f"{validation.rmse:.4f}"]
    trips = find_table(candidate, "trips")
    assert trips[0] == ["trips", "training 2025-01", "validation 2025-02"]
    assert trips[-1] == ["kept", f"{candidate.train.rows_kept:,}", f"{validation.rows_kept:,}"]
    assert f"dropped: {next(iter(validation.dropped))}" in [row[0] for row in trips]
    files = [[*each] for each in candidate.inputs.items()]
    assert find_table(candidate, "file")[1:] == files
    assert find_table(candidate, "software")[1:] == [[*each] for each in candidate.versions.items()]


def test_a_window_of_months_is_named_by_its_ends(candidate: Report) -> None:
    months = ["2024-11", "2024-12", "2025-01"]
    broken = candidate.train.broken
    by_month = {
        month: {"rows_read": 100, "broken": dict.fromkeys(broken, place)}
        for place, month in enumerate(months)
    }
    shift = candidate.stability["2025-02"] | {"distance": 0.25, "unseen_pairs": 0.125}
    windowed = alter(
        candidate,
        {"train": {"months": months}, "validation": {"broken": dict.fromkeys(broken, 7)}},
        stability=dict.fromkeys((*months, "2025-02"), shift),
    )
    windowed = alter(windowed, train=windowed.train.model_dump() | {"by_month": by_month})
    markdown = render_markdown(windowed, "x", "y")
    title = "# Duration model: green, trained on synthetic trips of 2024-11 to 2025-01\n"
    assert markdown.startswith(title)
    assert find_table(windowed, "on 2025-02")[3][0] == "zone-pair median of 2025-01"
    rule, count = next(iter(broken.items()))
    contract = find_table(windowed, "contract: rows")
    assert contract[1] == [rule, f"{count:,} (at most 2.00%, 2025-01)", "7", contract[1][3]]
    limits = {row[0]: row[-1] for row in contract}
    assert limits["zone missing"] == "1 %"
    assert limits["picked up outside the month"] == "5 %"
    stability = find_table(windowed, "drift: population stability index")
    assert stability[1][0] == "2024-11 beside the window's other months"
    assert stability[-1][0] == "2025-02 beside the training window"
    assert (stability[-1][1], stability[-1][-1]) == ("0.2500", "12.50%")


def fill(sentences: str, report: Report) -> str:
    """Fill sentences with the numbers of a report that was judged against a champion."""
    champion, gate = report.champion, report.gate
    if champion is None or gate is None:
        return sentences
    figures = champion.model_dump() | (gate.bootstrap.model_dump() if gate.bootstrap else {})
    return sentences.format(**figures, change=compare_rmse(report.validation.rmse, champion.rmse))


def show_verdict(report: Report) -> str:
    quoted = re.findall("^>(?: (.*))?$", render_markdown(report, "x", "y"), flags=re.MULTILINE)
    return "\n".join(quoted)


COMPARED = (
    "The champion, version 1 (green/2024-12-0f1e2d3c), has an RMSE of {rmse:.4f} minutes and an "
    "MAE of {mae:.4f} on the same trips; this model's RMSE is {change}."
)
DRAWN = (
    "The improvement is {improvement:.2%}, and with a confidence of 95% at least {lowest:.2%}, by "
    "999 bootstrap resamples of {blocks:,} blocks of trips; the gate asks for an improvement of "
    "more than 0%."
)
REASON = f"I{str(BASELINE)[1:]}"


@pytest.mark.parametrize(
    ("judged", "verdict"),
    [
        ("not judged", "**Not judged.** No gate held this model against a champion."),
        ("promoted", f"**Promoted.** {COMPARED} {DRAWN}"),
        (
            "first",
            "**Promoted.** There was no champion yet, and it is better than the baselines.",
        ),
        ("not promoted", f"**Not promoted.**\n\n- {REASON}\n\n{COMPARED} {DRAWN}"),
        ("worse than the baselines", f"**Not promoted.**\n\n- {REASON}"),
    ],
)
def test_the_verdict_is_told_with_its_numbers(judged: str, verdict: str) -> None:
    report = JUDGED[judged]()
    assert show_verdict(report) == fill(verdict, report)


@pytest.mark.parametrize("drawn", [None, {"lowest": None, "resamples": 0}])
def test_a_verdict_without_a_bound_tells_none(drawn: Any) -> None:
    report = make_judged_report(bootstrap=drawn)
    assert show_verdict(report) == fill(f"**Promoted.** {COMPARED}", report)


def make_slice(name: str, trips: int, rmse: float, champion_rmse: float = 4.0) -> dict[str, Any]:
    figures = {"rmse": rmse, "mae": 1.0, "mean_residual": 0.0, "champion_rmse": champion_rmse}
    return {"kind": "hour", "name": name, "trips": trips, **figures}


def worsen(name: str, trips: int, rmse: float, champion_rmse: float = 4.0) -> WorseSlice:
    return WorseSlice(
        slice_kind="hour", slice_name=name, trips=trips, rmse=rmse, champion_rmse=champion_rmse,
        limit=None,
    )  # fmt: skip


SLICES = [
    make_slice("a", 1500, 4.4), make_slice("b", 500, 5.0), make_slice("c", 500, 4.2),
    make_slice("d", 499, 9.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("findings", "shown"),
    [
        (
            [BASELINE, worsen("a", 1500, 4.4), worsen("b", 500, 5.0)],
            [REASON, "On 2 of the 3 slices of at least 500 trips its RMSE is more than 5% above "
             "the champion's, most on hour b, by 25.0%."],
        ),
        (
            [worsen("a", 1500, 4.4, 0.0), worsen("b", 500, 5.0)],
            ["On 2 of the 3 slices of at least 500 trips its RMSE is more than 5% above the "
             "champion's, most on hour a."],
        ),
        (
            [worsen("a", 1500, 4.4)],
            ["On 1,500 trips of hour a its RMSE of 4.40 minutes is 10.0% higher than the "
             "champion's 4.00."],
        ),
        # The gate held no slices against those of a champion that had seen the month.
        ([BASELINE], [REASON]),
    ],
)  # fmt: skip
def test_many_slices_are_one_reason(findings: list[Any], shown: list[str]) -> None:
    report = alter(refuse(*findings), slices=SLICES)
    listed = "\n".join(f"- {each}" for each in shown)
    explained = fill(f"{COMPARED} {DRAWN}", report)
    verdict = f"**Not promoted.**\n\n{listed}\n\n{explained}"
    assert show_verdict(report) == verdict
    assert f"\n\n{verdict}\n\n" in render_model_card(report)
    assert "".join(f"{' ' * 20}{each}\n" for each in shown) in outline(report)
    page = render_html(report)
    assert [
        html.unescape(each) for each in re.findall("<li>(.*)</li>", page)[: len(shown)]
    ] == shown


def test_the_champions_rmse_is_told_once() -> None:
    reason = NotBetter(
        version="1", rmse=9.0, champion_rmse=6.0, improvement=-0.5, lowest=-0.6, margin=0.0,
        confidence=0.95,
    )  # fmt: skip
    report = refuse(reason)
    expected = (
        f"The champion, version 1 (green/2024-12-0f1e2d3c), has an MAE of {{mae:.4f}} minutes on "
        f"the same trips. {DRAWN}"
    )
    assert show_verdict(report).endswith(f"\n\n{fill(expected, report)}")


@pytest.mark.parametrize(
    ("improvement", "lowest", "said"),
    [
        (0.0, 0.0, "The improvement is 0.00%, and with a confidence of 95% at least 0.00%"),
        (0.01, -0.02, "This model is better by 1.00%, and with a confidence of 95% worse by at "
         "most 2.00%"),
        (-0.315, -0.3256, "This model is worse by 31.50%, and with a confidence of 95% by at most "
         "32.56%"),
    ],
)  # fmt: skip
def test_what_is_worse_is_no_negative_improvement(
    improvement: float, lowest: float, said: str
) -> None:
    report = make_judged_report(bootstrap={"improvement": improvement, "lowest": lowest})
    assert f" {said}, by 999 bootstrap resamples of " in show_verdict(report)


def test_a_slice_is_marked_only_beyond_the_limit_and_with_trips_enough(candidate: Report) -> None:
    pairs = ((500, 4.2), (500, 4.21), (499, 4.21), (500, 4.0), (500, 3.999), (500, 3.9))
    slices = [make_slice("7 to 8", trips, rmse) for trips, rmse in pairs]
    table = find_table(alter(candidate, slices=slices), "hour")
    assert [row[-1] for row in table[1:]] == [
        "5.0% higher", "5.2% higher, over the limit", "5.2% higher", "the same", "the same",
        "2.5% lower",
    ]  # fmt: skip


class Elements(HTMLParser):
    """Tags, and attributes by name, of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")


@pytest.mark.usefixtures("with_plots")
def test_the_page_needs_nothing_but_itself(report: Report) -> None:
    page = render_html(report)
    elements = Elements(page)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {*elements.tags}
    named = [*elements.attributes["href"], *elements.attributes.get("src", [])]
    named += elements.attributes["xlink:href"]
    assert all(link.startswith(("#", "data:")) for link in named)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


@pytest.mark.usefixtures("with_plots")
def test_the_page_has_no_two_elements_of_one_name(candidate: Report) -> None:
    elements = Elements(render_html(candidate))
    names = elements.attributes["id"]
    assert len({*names}) == len(names)
    links = [*elements.attributes["href"], *elements.attributes["xlink:href"]]
    assert {link[1:] for link in links if link.startswith("#")} <= {*names}


def test_the_page_says_to_machines_that_read_it_aloud_what_is_what(candidate: Report) -> None:
    page = render_html(candidate)
    elements = Elements(page)
    assert elements.attributes["lang"] == ["en"]
    assert elements.tags.count("h1") == elements.tags.count("main") == 1
    assert elements.tags.count("figure") == elements.tags.count("figcaption") == len(PLOTS)
    tables = read_html_tables(page)
    labels = elements.attributes["aria-label"]
    assert labels == [tables[0][0][0], "Contents", *(table[0][0] for table in tables[1:])]
    assert elements.attributes["scope"].count("row") == sum(len(table) - 1 for table in tables)
    assert elements.attributes["scope"].count("col") == sum(len(table[0]) for table in tables)
    assert re.findall("<h2[^>]*>(.*?)</h2>", page) == [*SECTIONS]
    assert all(f">{title}</a>" in page for title in SECTIONS)


NOT_HTML = "<script>alert(1)</script><img src=x onerror=y>"


def test_what_a_report_says_is_never_html() -> None:
    text = f"'\"></td></style>{NOT_HTML}"
    report = make_judged_report(champion={"model_id": text, "version": text})
    slices = [report.slices[0].model_dump() | {"kind": f'"{text}', "name": text}]
    changed = alter(report, slices=slices, model_id=text, drift={text: [text]}, past=[])
    with_reason = changed.model_copy(update={"gate": conclude([SEEN], GateSettings())})
    for each in (changed, with_reason):
        elements = Elements(render_html(each))
        assert not {"script", "img"} & {*elements.tags}
        assert "onerror" not in elements.attributes


@pytest.mark.usefixtures("with_plots")
def test_equal_reports_give_equal_cards_in_any_process_and_thread(
    candidate: Report, tmp_path: Path
) -> None:
    def render(each: Report) -> str:
        return render_html(each) + render_markdown(each, "x", "y") + render_model_card(each)

    with ThreadPoolExecutor(3) as pool:
        (rendered,) = {*pool.map(render, [candidate] * 3)}
    path = tmp_path / "report.json"
    path.write_bytes(dump_report(candidate))
    script = (
        "import hashlib, sys; "
        "from taxi_duration.evaluation.report import read_report; "
        "from taxi_duration.reports.render import *; "
        "each = read_report(open(sys.argv[1], 'rb').read(), ''); "
        "said = render_html(each) + render_markdown(each, 'x', 'y') + render_model_card(each); "
        "print(hashlib.sha256(said.encode()).hexdigest())"
    )
    command = [sys.executable, "-c", script, path]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == hashlib.sha256(rendered.encode()).hexdigest()


@pytest.mark.usefixtures("with_plots")
def test_the_markdown_has_one_picture_and_is_small_enough_to_be_listed(candidate: Report) -> None:
    markdown = render_markdown(candidate, "[abc](http://127.0.0.1:5000/#/x)", "models/x")
    ((text, picture),) = re.findall(r"!\[(.*?)\]\(data:image/png;base64,(.*?)\)", markdown)
    assert text == (
        "Actual against predicted; Residuals by predicted minutes; One more mile, by hour; "
        "RMSE by validation month"
    )
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert len(markdown) < 300_000
    assert markdown.endswith(
        "\n\nMLflow run: [abc](http://127.0.0.1:5000/#/x)\n\nModel: `models/x`"
    )


@pytest.mark.parametrize("parts", DEGENERATE.values(), ids=DEGENERATE)
def test_a_page_is_rendered_whatever_there_is_to_show(
    candidate: Report, parts: dict[str, Any]
) -> None:
    report = alter(candidate, **parts)
    tables = read_markdown_tables(render_markdown(report, "x", "y"))
    assert read_html_tables(render_html(report)) == tables


def test_the_outline_fits_a_terminal(candidate: Report) -> None:
    slices = [
        make_slice("a", 500, 5.5, 5.5), make_slice("b", 1234, 6.5, 6.5),
        make_slice("few", 499, 99.0), make_slice("c", 1234, 6.0, 6.0) | {"kind": "distance"},
        make_slice("nobody", 2, 9.0) | {"kind": "pick-up borough"},
    ]  # fmt: skip
    validation, baselines, champion = candidate.validation, candidate.baselines, candidate.champion
    assert champion
    lines = fill(f"{COMPARED}\n{' ' * 20}{DRAWN}", candidate)
    expected = f"""\
  validation RMSE   {validation.rmse:.6f} minutes over {validation.rows_kept:,} trips
  to compare        {champion.rmse:.4f} champion, version 1; \
{baselines["zone_pair_median"].rmse:.4f} zone-pair median; \
{baselines["mean"].rmse:.4f} training mean
  verdict           promoted
                    {lines}
  worst slices      of those of at least 500 trips:
                    6.5000 hour b (1,234 trips)
                    6.0000 distance c (1,234 trips)"""
    assert outline(alter(candidate, slices=slices)) == expected
    assert "worst slices" not in outline(alter(candidate, slices=slices[-1:]))


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "python orchestrate.py --year 2025 --month 1"),
        ({"cab": "yellow"}, "python orchestrate.py --year 2025 --month 1 --cab yellow"),
        (
            {"features": "course", "alphas": [0.0]},
            "python orchestrate.py --year 2025 --month 1 --features course",
        ),
        ({"alphas": [0.5]}, "python orchestrate.py --year 2025 --month 1 --alpha 0.5"),
        (
            {"thresholds": {**Thresholds().model_dump(), "most_null_zones": 0.125}},
            "TAXI_DURATION_CONTRACT_MOST_NULL_ZONES=0.125 python orchestrate.py --year 2025 "
            "--month 1",
        ),
    ],
)
def test_the_training_command_says_only_what_is_not_so_by_default(
    candidate: Report, changes: dict[str, Any], command: str
) -> None:
    changed = alter(candidate, **changes)
    given = pass_for_real(changed)
    assert write_training_command(given) == command
    reproduce = f"python -m taxi_duration reproduce {candidate.model_id}"
    assert list_commands(given) == [command, reproduce]
    shown = (
        f"```sh\n{command}\n{reproduce}\n```\n\n"
        "Months are looked for in `data/`; `--data-dir` names another place."
    )
    assert shown in render_markdown(given, "x", "y")
    assert render_model_card(given).endswith(f"{shown}\n")
    place = "--data-dir data/sample --offline"
    assert list_commands(changed) == [f"{command} {place}", f"{reproduce} {place}"]


@given(
    cab=st.sampled_from(["green", "yellow"]),
    last=st.dates(date(2014, 1, 1), date(2025, 12, 31)),
    window=st.integers(1, 12),
    features=st.sampled_from([*FEATURE_SETS]),
    alpha=st.none() | st.floats(0, 1e6),
    is_made_up=st.booleans(),
)
def test_the_training_command_trains_the_reports_model(
    cab: str, last: date, window: int, features: str, alpha: float | None, is_made_up: bool
) -> None:
    chosen = FEATURE_SETS[features].alphas if alpha is None else (alpha,)
    months = [str(month) for month in Month.of(last).window(window)]
    report = alter(
        make_backfill_report(),
        {"cab": cab, "features": features, "alphas": [*chosen], "train": {"months": months}},
        inputs={(JANUARY.name if is_made_up else "green_tripdata_2025-01.parquet"): "ab"},
    )
    python, script, *flags = shlex.split(write_training_command(report))
    assert (python, script) == ("python", "orchestrate.py")
    given = vars(make_parser(LocalOptions, "").parse_args(flags))
    options = read_options(LocalOptions, given)
    assert (options.cab, options.features, options.train_months) == (cab, features, window)
    assert (options.year, options.month) == (last.year, last.month)
    place = (JANUARY.parent.relative_to(REPOSITORY), True) if is_made_up else (Path("data"), False)
    assert (options.data_dir, options.offline) == place
    told = FEATURE_SETS[features].alphas if options.alpha is None else (options.alpha,)
    assert told == chosen


def test_a_model_card_is_one_that_hubs_read(report: Report) -> None:
    _, front, text = render_model_card(report).split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata == describe_metadata(report)
    assert (metadata["license"], metadata["library_name"]) == ("mit", "sklearn")
    assert {"sklearn", "skops", "tabular-regression"} <= {*metadata["tags"]}
    ((model,),) = [metadata["model-index"]]
    assert model["name"] == report.model_id
    (result,) = model["results"]
    assert result["task"]["type"] == metadata["pipeline_tag"] == "tabular-regression"
    assert {"type", "name"} <= {*result["dataset"]}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "rmse": report.validation.rmse,
        "mae": report.validation.mae,
    }
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        f"# {report.model_id}", "## Intended use", "## Training data", "## Training",
        "## Evaluation", "## Limits", "## How to use it", "## How to train it again",
    ]  # fmt: skip


def test_a_model_card_names_what_its_model_is_bad_at(candidate: Report) -> None:
    card = render_model_card(candidate)
    large = [part for part in candidate.slices if part.trips >= 500]
    worst = max(large, key=lambda part: part.rmse)
    said = "It errs most, of slices of at least 500 trips, on"
    assert f"{said} {worst.kind} {worst.name}: RMSE {worst.rmse:.4f} minutes" in card
    slices = [make_slice("few", 499, 99.0), make_slice("many", 500, 1.0)]
    few = alter(candidate, slices=slices)
    assert f"{said} hour many: RMSE 1.0000 minutes" in render_model_card(few)
    assert "It errs most" not in render_model_card(alter(few, slices=slices[:1]))
    assert f'load_model("models/{candidate.model_id}")' in card
    assert f"python -m taxi_duration reproduce {candidate.model_id}" in card


def test_cards_say_whether_trips_are_made_up(candidate: Report) -> None:
    def read(report: Report) -> tuple[str, str, list[str]]:
        dataset = describe_metadata(report)["model-index"][0]["results"][0]["dataset"]
        text = render_model_card(report).split("---\n", 2)[2]
        card = render_markdown(report, "x", "y")
        firsts = [card.split("\n\n")[0], card.split("\n\n")[1], text.split("\n\n")[1]]
        return dataset["type"], dataset["name"], [each.strip() for each in firsts]

    kind, name, firsts = read(candidate)
    assert (kind, name) == ("nyc-synthetic-trips", "synthetic trips, green, 2025-02")
    assert ["synthetic trips of 2025-0" in each for each in firsts] == [True] * 3
    assert "TLC trip" not in render_model_card(candidate)
    assert "TLC's trip" not in render_model_card(candidate)
    kind, name, firsts = read(pass_for_real(candidate))
    assert (kind, name) == ("nyc-tlc-trip-records", "TLC trip records, green, 2025-02")
    assert ["synthetic" in each for each in firsts] == [False] * 3
    assert "trained on the TLC's trip records of 2025-01." in firsts[-1]


@pytest.mark.parametrize(
    ("features", "alpha", "solved", "clipped"),
    [
        ("course", 0.0, "Plain least squares, solved", "; predictions are not clipped."),
        ("course", 2.0, "Least squares with an L2 penalty of 2 trips on the coefficients, solved",
         "; predictions are not clipped."),
        ("extended", 0.0, "Plain least squares, solved",
         ", before predictions are clipped to 1 to 60."),
        ("made by hand", 3.0, "Least squares with an L2 penalty of 3 trips on",
         ", before predictions are clipped, if its feature set has bounds."),
    ],
)  # fmt: skip
def test_a_model_card_tells_the_training_that_was(
    candidate: Report, features: str, alpha: float, solved: str, clipped: str
) -> None:
    card = render_model_card(alter(candidate, features=features, alpha=alpha))
    (said,) = re.findall("## Training\n\n(.*)\n", card)
    assert said.startswith(solved)
    assert said.endswith(f"{candidate.train.rmse:.4f} minutes{clipped}")
    assert ("penalty" in said) == ("intercept" in said) == bool(alpha)


def test_minutes_that_are_the_same_at_all_hours_are_told_once(candidate: Report) -> None:
    hours = [2.4e-05 + place * 1e-14 for place in range(24)]
    pace = {"working day": hours, "day off": hours[::-1]}
    flat = alter(candidate, {"coefficients": {"minutes_per_mile": pace}})
    sentence = "A third mile adds 2.4e-05 minutes to a trip of two, at any hour."
    for card in (render_html(flat), render_markdown(flat, "x", "y")):
        assert sentence in card
        assert "One more mile" not in card
        assert "0.0000" not in card.partition("What it has learned")[2].partition("Earlier")[0]


def test_what_unmetered_means_is_said(candidate: Report) -> None:
    said = "Unmetered are trips with a distance of 0 or less, or of over 50 miles."
    assert said in render_markdown(candidate, "x", "y")
    assert said in render_model_card(candidate)


def test_a_promotion_is_explained_beside_the_champion() -> None:
    begin = "RMSE 5.0000 minutes on 2025-02, "
    for rmse, said in ((8.0, "37.5% lower than that"), (5.002, "the same as that")):
        judged = alter(make_judged_report(champion={"rmse": rmse}), {"validation": {"rmse": 5.0}})
        assert explain_promotion(judged) == f"{begin}{said} of version 1."
    first = alter(make_first_report(), {"validation": {"rmse": 5.0}})
    assert explain_promotion(first) == f"{begin[:-2]}: the first that is better than the baselines."


def test_what_is_beyond_a_limit_is_said_before_the_figures(candidate: Report) -> None:
    remarks = Remarks(("a notice",), ("a shift", "another"), "it is champion now.")
    said = render_markdown(candidate, "x", "y", remarks)
    assert "Beyond the limits of drift:\n\n- a shift\n- another\n\n| drift:" in said
    assert "about this run's months:\n\n- a notice\n\n" in said
    assert "\n\nIt is champion now.\n\n| on 2025-02 |" in said
    assert remarks.sentences == ["a notice", "a shift", "another", "it is champion now."]
    alone = render_markdown(candidate, "x", "y", Remarks(("a notice",)))
    assert "Beyond the limits" not in alone
    assert Remarks(("a notice",)).sentences == ["a notice"]


def test_trials_and_new_columns_are_shown_only_where_there_are_some(candidate: Report) -> None:
    shown = "New about the columns, and of no harm"
    few = alter(candidate, trials=[], drift={})
    assert "(alpha 10; training RMSE" in render_markdown(few, "x", "y")
    assert shown not in render_markdown(few, "x", "y") + render_html(few)
    trials = [{"alpha": 0.0, "rmse": 5.25}, {"alpha": 2.0, "rmse": 5.5}]
    many = alter(candidate, trials=trials, drift={"b.parquet": ["column y is new."]})
    tried = "(alpha 10, chosen inside the training window: 5.2500 with 0, 5.5000 with 2; training"
    for card in (render_markdown(many, "x", "y"), render_html(many)):
        assert tried in card
        assert shown in card
    assert "- `b.parquet`: column y is new." in render_markdown(many, "x", "y").splitlines()


def test_no_line_of_the_markdown_is_indented_into_a_code_block(candidate: Report) -> None:
    lines = render_markdown(candidate, "x", "y").splitlines()
    assert [line for line in lines if line.startswith(" ")] == []


def test_a_backfill_has_its_plot_table_and_warnings() -> None:
    given: dict[str, Any] = {
        "title": "green, 2023-01 to 2023-03", "trained": "of the month before", "plot": b"x",
        "header": ["validated on", "model"], "rows": [["2023-02", "4.5"]], "mlflow_run": "here",
    }  # fmt: skip
    markdown = render_backfill_markdown(**given, warnings=["a shift", "another"])
    assert (
        markdown
        == """\
# Backfill: green, 2023-01 to 2023-03

RMSE in minutes on each month of a model of the month before.

![RMSE by month](data:image/png;base64,eA==)

| validated on | model |
| --- | ---: |
| 2023-02 | 4.5 |

- a shift
- another

MLflow run: here"""
    )
    assert "\n\n\n" not in render_backfill_markdown(**given, warnings=[])
