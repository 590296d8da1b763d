"""The report as a person sees it: in Prefect's own pages, in a real browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.conftest import connected_to
from tests.runs import Run, read_report_artifact

SCREENSHOTS_VARIABLE = "TAXI_DURATION_SCREENSHOTS"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        message = "no chromium on the path: install the system's chromium to see the page"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="module")
def address(prefect_server: str, train_on_real_months: Callable[..., Run]) -> str:
    """Where the summary of a run sends the user to see its report."""
    run = train_on_real_months("--year", "2023", "--month", "1", "--features", "course")
    with connected_to(prefect_server):
        artifact = read_report_artifact(run.flow_run.id)
    url = f"{prefect_server.removesuffix('/api')}/artifacts/artifact/{artifact.id}"
    assert url in run.output
    return url


@pytest.fixture(scope="module")
def page(chromium: str, address: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(address)
        page.get_by_role("table").filter(has_text="RMSE").wait_for(timeout=60_000)
        yield page
        browser.close()


def read_rows(page: Page, heading: str) -> list[list[str]]:
    table = page.get_by_role("table").filter(has_text=heading)
    assert table.count() == 1
    return [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]


def test_page_shows_the_errors_in_a_table(page: Page) -> None:
    assert read_rows(page, "RMSE, minutes") == [
        ["linear regression, course features", "6.0338", ""],
        ["zone-pair median", "6.6424", "9.2% lower"],
        ["training mean", "9.3221", "35.3% lower"],
    ]


def test_page_shows_what_became_of_the_trips(page: Page) -> None:
    rows = read_rows(page, "dropped: ")
    assert rows[0] == ["read", "68,211", "64,809"]
    assert rows[-1] == ["kept", "65,946", "62,574"]


def test_page_shows_what_the_contract_counts_and_allows(page: Page) -> None:
    rows = read_rows(page, "limit a month")
    assert ["drop-off not after pick-up", "61", "81", "5 %"] in rows
    assert ["zone not 1 to 265", "0", "0", "0.1 %"] in rows


def test_nothing_of_the_report_is_a_code_block(page: Page) -> None:
    assert page.locator("pre").filter(has_text="RMSE").count() == 0
    assert page.locator("code").filter(has_text="RMSE").count() == 0
    assert page.get_by_text("| --- |").count() == 0
    assert page.locator("pre table, code table").count() == 0


def test_page_links_to_the_mlflow_run(page: Page) -> None:
    link = page.locator("a[href*='/#/experiments/']")
    assert link.count() == 1
    assert "/runs/" in (link.get_attribute("href") or "")


def test_page_can_be_shown_in_the_documentation(page: Page, tmp_path: Path) -> None:
    directory = Path(os.environ.get(SCREENSHOTS_VARIABLE, tmp_path))
    picture = directory / "prefect-report.png"
    page.screenshot(path=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
