"""The run card and the model card, as text; test_card_page.py has the page in a browser."""

import base64
import hashlib
import html
import json
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
from taxi_duration.reports.card import outline, render_html, render_markdown
from taxi_duration.reports.card_page import render_text
from taxi_duration.reports.card_plots import PLOTS, draw_png, draw_svg
from taxi_duration.reports.commands import list_commands, write_training_command
from taxi_duration.reports.model_card import describe_metadata, render_model_card

from taxi_duration.cli.cli import make_parser
from taxi_duration.data.month import Month
from taxi_duration.evaluation.report import Report
from taxi_duration.flows.options import LocalOptions, read_options
from taxi_duration.model.directory import load_report, save_model
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.settings import Thresholds
from tests.conftest import REPOSITORY
from tests.support.card_tables import compare, expect_tables, read_html_tables, read_markdown_tables
from tests.support.months import JANUARY
from tests.support.reports import (
    make_backfill_report,
    make_first_report,
    make_judged_report,
    pass_for_real,
    refuse,
)
from tests.support.trained import make_report, train_on

FIRST_REASON = "its RMSE of 5.2109 minutes is 0.10% lower than the champion's, which is too little."
JUDGED: dict[str, Callable[[], Report]] = {
    "not judged": make_backfill_report,
    "promoted": make_judged_report,
    "first": make_first_report,
    "not promoted": lambda: refuse(FIRST_REASON),
    "worse than the baselines": lambda: make_first_report(FIRST_REASON),
    "seen": lambda: refuse(FIRST_REASON, is_seen=True),
}


@pytest.fixture(scope="module", params=JUDGED)
def report(request: pytest.FixtureRequest) -> Report:
    return JUDGED[request.param]()


@pytest.fixture(scope="module")
def candidate() -> Report:
    return make_judged_report()


def test_every_table_of_the_page_says_what_the_report_says(report: Report) -> None:
    assert read_html_tables(render_html(report)) == expect_tables(report)


def test_every_table_of_the_markdown_says_what_the_report_says(report: Report) -> None:
    assert read_markdown_tables(render_markdown(report, "x", "y")) == expect_tables(report)


def test_a_window_of_months_is_named_by_its_ends(candidate: Report) -> None:
    months = ["2024-11", "2024-12", "2025-01"]
    by_month = {
        month: {"rows_read": 100, "broken": dict.fromkeys(candidate["train"]["broken"], place)}
        for place, month in enumerate(months)
    }
    shift = candidate["stability"]["2025-02"]
    windowed = candidate | {
        "train": candidate["train"] | {"months": months, "by_month": by_month},
        "stability": dict.fromkeys((*months, "2025-02"), shift),
    }
    markdown = render_markdown(windowed, "x", "y")
    title = "# Duration model: green, trained on synthetic trips of 2024-11 to 2025-01\n"
    assert markdown.startswith(title)
    assert read_markdown_tables(markdown) == expect_tables(windowed)
    assert "(at most 2.00%, 2025-01)" in markdown


def fill(sentences: str, report: Report) -> str:
    """Sentences with the numbers of a report that was judged against a champion."""
    gate = report["gate"] or {"champion": None, "bootstrap": None}
    champion = gate["champion"] or {"rmse": 1.0}
    change = compare(report["validation"]["rmse"], champion["rmse"])
    return sentences.format(**champion, **(gate["bootstrap"] or {}), change=change)


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
REASON = FIRST_REASON.replace("its", "Its", 1)


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


@pytest.mark.parametrize("drawn", [None, {"improvement": 0.1, "lowest": None, "resamples": 0}])
def test_a_verdict_without_a_bound_tells_none(drawn: Any) -> None:
    report = make_judged_report(bootstrap=drawn)
    assert show_verdict(report) == fill(f"**Promoted.** {COMPARED}", report)


def make_slice(name: str, trips: int, rmse: float, champion_rmse: float = 4.0) -> dict[str, Any]:
    figures = {"rmse": rmse, "mae": 1.0, "mean_residual": 0.0, "champion_rmse": champion_rmse}
    return {"kind": "hour", "name": name, "trips": trips, **figures}


SLICE_REASONS = (
    "on 1,500 trips of hour a its RMSE of 4.40 minutes is 10.0% higher than the champion's 4.00; "
    "TAXI_DURATION_GATE_MOST_SLICE_WORSENING allows 5%.",
    "on 500 trips of hour b its RMSE of 5.00 minutes is 25.0% higher than the champion's 4.00.",
)


@pytest.mark.parametrize(
    ("slices", "reasons", "shown"),
    [
        (
            [make_slice("a", 1500, 4.4), make_slice("b", 500, 5.0), make_slice("c", 500, 4.2),
             make_slice("d", 499, 9.0)],
            (FIRST_REASON, *SLICE_REASONS),
            [REASON, "On 2 of the 3 slices of at least 500 trips its RMSE is more than 5% above "
             "the champion's, most on hour b, by 25.0%."],
        ),
        (
            [make_slice("a", 1500, 4.4, 0.0), make_slice("b", 500, 5.0)],
            SLICE_REASONS,
            ["On 2 of the 2 slices of at least 500 trips its RMSE is more than 5% above the "
             "champion's, most on hour a."],
        ),
        ([make_slice("a", 1500, 4.4)], SLICE_REASONS[:1], [f"O{SLICE_REASONS[0][1:]}"]),
        # The gate held no slices against those of a champion that had seen the month.
        ([make_slice("a", 1500, 4.4), make_slice("b", 500, 5.0)], (FIRST_REASON,), [REASON]),
    ],
)  # fmt: skip
def test_many_slices_are_one_reason(
    slices: list[dict[str, Any]], reasons: tuple[str, ...], shown: list[str]
) -> None:
    report = refuse(*reasons) | {"slices": slices}
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
    rmse = make_judged_report()["gate"]["champion"]["rmse"]
    reason = f"its RMSE of 9.0000 minutes is 50.00% higher than the {rmse:.4f} of the champion."
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
    report = refuse(FIRST_REASON)
    report["gate"]["bootstrap"] |= {"improvement": improvement, "lowest": lowest}
    assert f" {said}, by 999 bootstrap resamples of " in show_verdict(report)


def test_a_slice_is_marked_only_beyond_the_limit_and_with_trips_enough(candidate: Report) -> None:
    pairs = ((500, 4.2), (500, 4.21), (499, 4.21), (500, 4.0), (500, 3.999), (500, 3.9))
    slices = [make_slice("7 to 8", trips, rmse) for trips, rmse in pairs]
    (table,) = [
        table
        for table in read_markdown_tables(render_markdown(candidate | {"slices": slices}, "", ""))
        if table[0][0] == "hour"
    ]
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


def test_the_page_needs_nothing_but_itself(report: Report) -> None:
    page = render_html(report)
    elements = Elements(page)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {*elements.tags}
    named = [*elements.attributes["href"], *elements.attributes.get("src", [])]
    named += elements.attributes["xlink:href"]
    assert all(link.startswith(("#", "data:")) for link in named)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


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
    tables = expect_tables(candidate)
    labels = elements.attributes["aria-label"]
    assert labels == [tables[0][0][0], "Contents", *(table[0][0] for table in tables[1:])]
    assert elements.attributes["scope"].count("row") == sum(len(table) - 1 for table in tables)
    assert elements.attributes["scope"].count("col") == sum(len(table[0]) for table in tables)
    for title in re.findall("<h2[^>]*>(.*?)</h2>", page):
        assert f">{title}</a>" in page


NOT_HTML = "<script>alert(1)</script><img src=x onerror=y>"


def test_what_a_report_says_is_never_html() -> None:
    candidate = refuse(NOT_HTML)
    candidate["slices"][0] |= {"kind": f'"{NOT_HTML}', "name": NOT_HTML}
    candidate["model_id"] = NOT_HTML
    page = render_html(candidate)
    assert not {"script", "img"} & {*Elements(page).tags}
    assert page.count("&lt;img src=x") == 7


@given(st.text(max_size=60), st.sampled_from(["{}", "> {}", "| a |\n| --- |\n| {} |", "## {}"]))
def test_markdown_makes_no_html_but_its_own(said: str, place: str) -> None:
    elements = Elements(render_text(place.format(f"{said}{NOT_HTML}{said}")))
    assert not {"script", "img"} & {*elements.tags}
    assert "onerror" not in elements.attributes


def test_equal_reports_give_equal_cards_in_any_process_and_thread(
    candidate: Report, tmp_path: Path
) -> None:
    def render(each: Report) -> str:
        return render_html(each) + render_markdown(each, "x", "y") + render_model_card(each)

    with ThreadPoolExecutor(3) as pool:
        (rendered,) = {*pool.map(render, [candidate] * 3)}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(candidate))
    script = (
        "import hashlib, json, sys; "
        "from taxi_duration.reports.card import render_html, render_markdown; "
        "from taxi_duration.reports.model_card import render_model_card; "
        "each = json.load(open(sys.argv[1])); "
        "said = render_html(each) + render_markdown(each, 'x', 'y') + render_model_card(each); "
        "print(hashlib.sha256(said.encode()).hexdigest())"
    )
    command = [sys.executable, "-c", script, path]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == hashlib.sha256(rendered.encode()).hexdigest()


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


PAST = "many months before"
DEGENERATE = {
    "one trip": {
        "density": {"step_minutes": 2, "counts": [[0] * 30, [1] + [0] * 29, *[[0] * 30] * 28]},
        "residuals": {
            "mean": 0.0,
            "quantiles": dict.fromkeys(("5", "25", "50", "75", "95"), 0.0),
            "by_predicted": [
                {"from": 2, "to": 4, "trips": 1}
                | dict.fromkeys(("5", "25", "50", "75", "95"), 0.0)
            ],
        },
    },
    "no pair with trips enough": {"coefficients": {
        "minutes_per_mile": {"working day": [3.0] * 24, "day off": [3.0] * 24},
        "slowest_pairs": [],
    }},
    PAST: {"past": [
        {"month": f"{year}-{month:02}", "rmse": 5.0, "version": "1", "model_id": "green/x"}
        for year in range(2014, 2024) for month in range(1, 13)
    ]},
    "two models of one month": {"past": [
        {"month": "2025-01", "rmse": rmse, "version": "1", "model_id": "green/x"}
        for rmse in (5.0, 6.0)
    ]},
}  # fmt: skip


@pytest.mark.parametrize("parts", DEGENERATE.values(), ids=DEGENERATE)
def test_whatever_there_is_to_plot_is_plotted(candidate: Report, parts: dict[str, Any]) -> None:
    report = candidate | parts
    assert read_html_tables(render_html(report)) == expect_tables(report)
    assert draw_png(report, [*PLOTS]).startswith(b"\x89PNG")


def test_every_month_label_is_at_its_own_point(candidate: Report) -> None:
    drawn = draw_svg(candidate | DEGENERATE[PAST], "past")
    labels = re.findall(r">(\d{4}-\d\d)</text>", drawn)
    assert {*labels} <= {"2025-02", *(each["month"] for each in DEGENERATE[PAST]["past"])}
    assert "2025-02" in labels
    assert 4 <= len({*labels}) == len(labels) <= 6


def test_plots_are_drawn_in_the_pages_colours(candidate: Report) -> None:
    for name in PLOTS:
        colours = {*re.findall(r"#[0-9a-f]{6}\b", draw_svg(candidate, name))}
        assert not colours, name
    assert {*re.findall(r"var\((--\w+)\)", draw_svg(candidate, "residuals"))} == {
        "--ink", "--faint", "--first",
    }  # fmt: skip


def test_the_outline_fits_a_terminal(candidate: Report) -> None:
    slices = [
        make_slice("a", 500, 5.5, 5.5), make_slice("b", 1234, 6.5, 6.5),
        make_slice("few", 499, 99.0), make_slice("c", 1234, 6.0, 6.0) | {"kind": "distance"},
        make_slice("nobody", 2, 9.0) | {"kind": "pick-up borough"},
    ]  # fmt: skip
    validation, baselines = candidate["validation"], candidate["baselines"]
    lines = fill(f"{COMPARED}\n{' ' * 20}{DRAWN}", candidate)
    expected = f"""\
  validation RMSE   {validation["rmse"]:.6f} minutes over {validation["rows_kept"]:,} trips
  to compare        {candidate["gate"]["champion"]["rmse"]:.4f} champion, version 1; \
{baselines["zone_pair_median"]["rmse"]:.4f} zone-pair median; \
{baselines["mean"]["rmse"]:.4f} training mean
  verdict           promoted
                    {lines}
  worst slices      of those of at least 500 trips:
                    6.5000 hour b (1,234 trips)
                    6.0000 distance c (1,234 trips)"""
    assert outline(candidate | {"slices": slices}) == expected
    assert "worst slices" not in outline(candidate | {"slices": slices[-1:]})


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
    given = pass_for_real(candidate | changes)
    assert write_training_command(given) == command
    reproduce = f"python -m taxi_duration reproduce {candidate['model_id']}"
    assert list_commands(given) == (
        f"```sh\n{command}\n{reproduce}\n```\n\n"
        "Months are looked for in `data/`; `--data-dir` names another place."
    )
    place = "--data-dir data/sample --offline"
    assert list_commands(candidate | changes) == (
        f"```sh\n{command} {place}\n{reproduce} {place}\n```"
    )


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
    report = {
        "cab": cab,
        "features": features,
        "alphas": [*chosen],
        "train": {"months": [str(month) for month in Month.of(last).window(window)]},
        "thresholds": Thresholds().model_dump(),
        "inputs": {(JANUARY.name if is_made_up else "green_tripdata_2025-01.parquet"): "ab"},
    }
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
    assert model["name"] == report["model_id"]
    (result,) = model["results"]
    assert result["task"]["type"] == metadata["pipeline_tag"] == "tabular-regression"
    assert {"type", "name"} <= {*result["dataset"]}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        name: report["validation"][name] for name in ("rmse", "mae")
    }
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        f"# {report['model_id']}", "## Intended use", "## Training data", "## Training",
        "## Evaluation", "## Limits", "## How to use it", "## How to train it again",
    ]  # fmt: skip


def test_every_table_of_the_model_card_says_what_the_report_says(report: Report) -> None:
    expected = expect_tables(report)
    tables = read_markdown_tables(render_model_card(report))
    assert len(tables) == 6
    assert [table for table in tables if table not in expected] == []


def test_a_model_card_names_what_its_model_is_bad_at(candidate: Report) -> None:
    card = render_model_card(candidate)
    large = [part for part in candidate["slices"] if part["trips"] >= 500]
    worst = max(large, key=lambda part: part["rmse"])
    said = "It errs most, of slices of at least 500 trips, on"
    assert f"{said} {worst['kind']} {worst['name']}: RMSE {worst['rmse']:.4f} minutes" in card
    few = candidate | {"slices": [make_slice("few", 499, 99.0), make_slice("many", 500, 1.0)]}
    assert f"{said} hour many: RMSE 1.0000 minutes" in render_model_card(few)
    assert "It errs most" not in render_model_card(few | {"slices": few["slices"][:1]})
    assert f'load_model("models/{candidate["model_id"]}")' in card
    assert f"python -m taxi_duration reproduce {candidate['model_id']}" in card


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
    card = render_model_card(candidate | {"features": features, "alpha": alpha})
    (said,) = re.findall("## Training\n\n(.*)\n", card)
    assert said.startswith(solved)
    assert said.endswith(f"{candidate['train']['rmse']:.4f} minutes{clipped}")
    assert ("penalty" in said) == ("intercept" in said) == bool(alpha)


def test_minutes_that_are_the_same_at_all_hours_are_told_once(candidate: Report) -> None:
    hours = [2.4e-05 + place * 1e-14 for place in range(24)]
    pace = {"working day": hours, "day off": hours[::-1]}
    flat = candidate | {"coefficients": candidate["coefficients"] | {"minutes_per_mile": pace}}
    sentence = "A third mile adds 2.4e-05 minutes to a trip of two, at any hour."
    for card in (render_html(flat), render_markdown(flat, "x", "y")):
        assert sentence in card
        assert "One more mile" not in card
        assert "0.0000" not in card.partition("What it has learned")[2].partition("Earlier")[0]
    assert read_html_tables(render_html(flat)) == expect_tables(flat)


def test_what_unmetered_means_is_said(candidate: Report) -> None:
    said = "Unmetered are trips with a distance of 0 or less, or of over 50 miles."
    assert said in render_markdown(candidate, "x", "y")
    assert said in render_model_card(candidate)


def test_a_saved_models_cards_are_its_reports(tmp_path: Path) -> None:
    trained = train_on(JANUARY, "course")
    directory = save_model(tmp_path, trained.model, make_report(trained))
    report = load_report(directory)
    assert (directory / "report.html").read_bytes() == render_html(report).encode()
    assert (directory / "README.md").read_bytes() == render_model_card(report).encode()
