"""The run card of the synthetic sample as people see it, in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.image import imread
from playwright.sync_api import Browser, Page, sync_playwright

from taxi_duration.evaluation.gate import Unavailable
from taxi_duration.evaluation.report import Report
from taxi_duration.reports.render import render_html
from tests.support.browsers import QUIET, SCREENSHOTS_VARIABLE, find_chromium
from tests.support.card_tables import read_html_tables
from tests.support.reports import make_judged_report, refuse

WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = ("light", "dark")
LEAST_CONTRAST = 4.5
"""Of text of any size (WCAG 2.2, success criterion 1.4.3)."""

READ_TABLES = """() => [...document.querySelectorAll("table")].map(
    table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText)))"""

FIND_FAINT_TEXT = """least => {
    const read = text => text.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = read(colour).map(
            part => part / 255 <= 0.04045 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const findPaper = element => {
        const paper = getComputedStyle(element).backgroundColor;
        return (read(paper)[3] ?? 1) ? paper : findPaper(element.parentElement);
    };
    const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let seen = 0;
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
        if (!text) continue;
        const style = getComputedStyle(element), isDrawn = element.closest("svg");
        const both = [light(isDrawn ? style.fill : style.color), light(findPaper(element))];
        const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (!(contrast >= least)) faint.push([text, contrast]);
        seen++;
    }
    return [seen, faint];
}"""


@pytest.fixture(scope="module")
def report() -> Report:
    return make_judged_report()


@pytest.fixture(scope="module")
def address(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("card") / "report.html"
    path.write_bytes(render_html(report).encode())
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(params=[(scheme, width) for scheme in SCHEMES for width in WIDTHS])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page on a screen, having asked for nothing and complained of nothing."""
    scheme, width = request.param
    viewport = {"width": WIDTHS[width], "height": 900}
    page = browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda asking: asked.append(asking.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert [url for url in asked if url != address and not url.startswith("data:")] == []
    assert said == []


def test_every_figure_can_be_read_on_any_screen(page: Page, report: Report) -> None:
    assert page.evaluate(READ_TABLES) == read_html_tables(render_html(report))
    seen, faint = page.evaluate(FIND_FAINT_TEXT, LEAST_CONTRAST)
    assert faint == []
    assert seen > 500


def test_nothing_but_a_table_scrolls_sideways(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter(
            each => each.getBoundingClientRect().right > innerWidth + 1
                && !each.closest(".scroll, pre, svg")).map(each => each.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    for figure in page.locator("figure svg").all():
        box = figure.bounding_box()
        assert box
        assert box["width"] >= 340


def test_a_page_is_light_or_dark_as_its_reader_likes(browser: Browser, address: str) -> None:
    papers = []
    for scheme in SCHEMES:
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert papers == ["rgb(255, 255, 255)", "rgb(20, 24, 31)"]


def test_the_verdict_is_told_by_colour_too(browser: Browser) -> None:
    page = browser.new_page(color_scheme="light")
    colours = []
    for report in (make_judged_report(), refuse(Unavailable(cause="it is gone."))):
        page.set_content(render_html(report))
        verdict = page.locator("blockquote strong")
        colours.append((verdict.inner_text(), verdict.evaluate("it => getComputedStyle(it).color")))
    page.close()
    assert colours == [("Promoted.", "rgb(21, 112, 58)"), ("Not promoted.", "rgb(179, 38, 30)")]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_can_be_shown_in_the_documentation(
    browser: Browser, address: str, scheme: str, tmp_path: Path
) -> None:
    """With TAXI_DURATION_SCREENSHOTS=docs/images this takes the pictures that are there."""
    picture = Path(os.environ.get(SCREENSHOTS_VARIABLE, tmp_path)) / f"card-{scheme}.png"
    page = browser.new_page(viewport={"width": 1160, "height": 2120}, color_scheme=scheme)
    page.goto(address)
    page.screenshot(path=picture)
    page.close()
    assert imread(picture).std() > 0.05
    assert picture.stat().st_size < 400_000
