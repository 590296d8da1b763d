"""Deployment, run, report and backfill as a person sees them: in Prefect's and MLflow's own pages,
in a real browser."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from playwright.sync_api import Browser, Page, expect, sync_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from taxi_duration.data.month import Month
from tests.conftest import REPOSITORY, connected_to
from tests.support.browsers import QUIET, SCREENSHOTS_VARIABLE, find_chromium
from tests.support.months import SAMPLE
from tests.support.runs import Run, read_report_artifact, run_backfill, run_local
from tests.support.servers import PROGRAMS, answers, find_free_port, make_environment, run_server

pytestmark = pytest.mark.timeout(600)
PATIENCE = 200_000
"""Milliseconds: MLflow's pages load megabytes of JavaScript, on cores that are busy with tests."""


@pytest.fixture(scope="module")
def chromium() -> str:
    return find_chromium()


def open_page(browser: Browser, address: str, heading: str) -> Page:
    # A page that is left open, or moves, is drawn all the while, which takes half a core.
    for context in browser.contexts:
        context.close()
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
    # The pages ask for fonts and news elsewhere, and wait for them.
    page.route(lambda url: not url.startswith("http://127.0.0.1:"), lambda route: route.abort())
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_text(heading).first.wait_for()
    return page


def keep(page: Page, name: str, tmp_path: Path, height: int = 1000) -> bytes:
    """A screenshot of a page's top, for the documentation if it is asked for."""
    picture = Path(os.environ.get(SCREENSHOTS_VARIABLE, tmp_path)) / name
    page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": 1440, "height": height})
    return picture.read_bytes()


def wait_for_picture(page: Page, selector: str) -> None:
    """Until a picture is not only named but decoded."""
    page.wait_for_function("at => document.querySelector(at)?.naturalWidth > 500", arg=selector)


@pytest.fixture(scope="module")
def site(prefect_server: str) -> str:
    return prefect_server.removesuffix("/api")


@pytest.fixture(scope="module")
def months(request: pytest.FixtureRequest) -> tuple[Path, Month]:
    """Where the months are and which is the first: real ones only if pictures are asked for."""
    if SCREENSHOTS_VARIABLE in os.environ:
        return request.getfixturevalue("real_data"), Month(2023, 1)
    return SAMPLE, Month(2025, 1)


@pytest.fixture(scope="module")
def run(
    prefect_server: str, months: tuple[Path, Month], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    data, first = months
    with connected_to(prefect_server):
        return run_local(
            tmp_path_factory.mktemp("run"), "--year", str(first.year), "--month", str(first.month),
            "--features", "course", "--data-dir", str(data), "--offline",
        )  # fmt: skip


@pytest.fixture(scope="module")
def report_page(prefect_server: str, site: str, run: Run) -> str:
    """Where the summary of a run sends the user to see its report."""
    with connected_to(prefect_server):
        artifact = read_report_artifact(run.flow_run.id)
    address = f"{site}/artifacts/artifact/{artifact.id}"
    assert address in run.output
    return address


@pytest.fixture(scope="module")
def backfill(
    prefect_server: str, months: tuple[Path, Month], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    data, first = months
    with connected_to(prefect_server):
        done = run_backfill(
            tmp_path_factory.mktemp("backfill"), "--from", str(first), "--to", str(first.shift(2)),
            "--features", "course", "--data-dir", str(data), "--offline",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def deployment_page(prefect_server: str, site: str) -> str:
    with connected_to(prefect_server), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="zoompool", type="process"), overwrite=True)
        subprocess.run(
            [PROGRAMS / "prefect", "--no-prompt", "deploy", "--name", "taxi_local_data"],
            cwd=REPOSITORY, env=make_environment(PREFECT_API_URL=prefect_server), check=True,
        )  # fmt: skip
        deployment = client.read_deployment_by_name("main-flow/taxi_local_data")
    return f"{site}/deployments/deployment/{deployment.id}"


@pytest.fixture(scope="module")
def browser(
    chromium: str, report_page: str, deployment_page: str, backfill: Run
) -> Iterator[Browser]:
    """Started when Prefect has nothing left to do in this process, whose event loop it takes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser, report_page: str) -> Page:
    return open_page(browser, report_page, "zone-pair median")


def read_rows(page: Page, heading: str) -> list[list[str]]:
    table = page.get_by_role("table").filter(has_text=heading)
    assert table.count() == 1
    return [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]


def test_page_shows_the_report(page: Page, run: Run) -> None:
    report = run.report
    train, validation = report["train"], report["validation"]
    rows = read_rows(page, "RMSE, minutes")
    assert [row[:2] for row in rows] == [
        ["linear regression, course features", f"{validation['rmse']:.4f}"],
        ["zone-pair median", f"{report['baselines']['zone_pair_median']['rmse']:.4f}"],
        ["training mean", f"{report['baselines']['mean']['rmse']:.4f}"],
    ]
    assert all(row[2].endswith("% lower") for row in rows[1:])
    rows = read_rows(page, "dropped: ")
    assert rows[0] == ["read", f"{train['rows_read']:,}", f"{validation['rows_read']:,}"]
    assert rows[-1] == ["kept", f"{train['rows_kept']:,}", f"{validation['rows_kept']:,}"]
    rows = read_rows(page, "limit a month")
    assert ["zone not 1 to 265", "0", "0", "0.1 %"] in rows
    assert page.locator("pre, code").filter(has_text="RMSE").count() == 0
    assert page.get_by_text("| --- |").count() == 0
    assert page.locator("pre table, code table").count() == 0
    wait_for_picture(page, "img[alt^='Actual against predicted']")


def test_page_links_to_the_mlflow_run(page: Page) -> None:
    link = page.locator("a[href*='/#/experiments/']")
    assert link.count() == 1
    assert "/runs/" in (link.get_attribute("href") or "")


def test_page_can_be_shown_in_the_documentation(page: Page, tmp_path: Path) -> None:
    assert keep(page, "prefect-report.png", tmp_path).startswith(b"\x89PNG")


def test_deployment_page_shows_schedule_pool_and_tags(
    browser: Browser, deployment_page: str, tmp_path: Path
) -> None:
    page = open_page(browser, deployment_page, "taxi_local_data")
    page.get_by_text("zoompool").first.wait_for()
    body = page.locator("body")
    for shown in (
        r"main-flow",
        r"nyc-taxi-duration",
        r"Concurrency Limit\s*1",
        r"Schedules\s*monthly",
    ):
        expect(body).to_contain_text(re.compile(shown), timeout=PATIENCE)
    # Paused until the user turns it on.
    expect(page.get_by_role("switch")).to_have_attribute("aria-checked", "false", timeout=PATIENCE)
    keep(page, "prefect-deployment.png", tmp_path)


def count_green(picture: bytes) -> int:
    pixels = imread(BytesIO(picture))[..., :3]
    is_green = (pixels[..., 1] > 0.5) & (pixels[..., 0] < 0.3) & (pixels[..., 2] < 0.5)
    return int(np.count_nonzero(is_green))


def test_run_page_draws_the_tasks(
    browser: Browser, site: str, run: Run, months: tuple[Path, Month], tmp_path: Path
) -> None:
    page = open_page(browser, f"{site}/runs/flow-run/{run.flow_run.id}", run.flow_run.name)
    page.get_by_text("Completed").first.wait_for()
    graph = page.locator("canvas").first
    graph.wait_for()
    # The graph has no text to look for: its tasks are boxes in the green of Completed.
    deadline = time.monotonic() + PATIENCE / 1000
    while count_green(graph.screenshot()) < 500:
        assert time.monotonic() < deadline, "no task is drawn"
        page.wait_for_timeout(500)
    keep(page, "prefect-run.png", tmp_path, height=520)
    page.locator("li", has_text="Task Runs").click()
    first = months[1]
    for name in (f"download-{first}", f"clean-{first}", "build-features", "train-regression"):
        page.get_by_text(name).first.wait_for()
    page.locator("li", has_text="Logs").click()
    kept, read = (run.report["validation"][name] for name in ("rows_kept", "rows_read"))
    page.get_by_text(f"{first.next}: kept {kept:,} of {read:,} trips").first.wait_for()


def test_backfill_page_shows_table_and_plot(
    browser: Browser, site: str, backfill: Run, run: Run, months: tuple[Path, Month], tmp_path: Path
) -> None:
    (address,) = re.findall(rf"{site}/artifacts/artifact/\S+", backfill.output)
    first, validation = months[1], run.report["validation"]
    page = open_page(browser, address, f"Backfill: green, {first} to {first.shift(2)}")
    row, other = read_rows(page, "validated on")
    assert row[:4] == [
        str(first.next), str(first), f"{validation['rows_kept']:,}", f"{validation['rmse']:.4f}",
    ]  # fmt: skip
    assert other[:2] == [str(first.shift(2)), str(first.next)]
    wait_for_picture(page, "img[alt='RMSE by month']")
    keep(page, "prefect-backfill.png", tmp_path)


def test_mlflow_shows_the_backfill_with_its_plots(
    browser: Browser, backfill: Run, run: Run, months: tuple[Path, Month], tmp_path: Path
) -> None:
    store, first = backfill.directory / "mlflow.db", months[1]
    (where,) = re.findall(r"/#/experiments/\d+/runs/\w+", backfill.output)
    port = find_free_port()
    server = f"http://127.0.0.1:{port}"
    command = [
        PROGRAMS / "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    log = tmp_path / "log"
    with run_server(command, make_environment(), log, lambda: answers(f"{server}/health")):
        title = f"green backfill {first} to {first.shift(2)}"
        page = open_page(browser, f"{server}{where}", title)
        figure = str(run.report["validation"]["rmse"])[:4]
        page.get_by_text(re.compile(rf"^{re.escape(figure)}")).first.wait_for()
        page.goto(f"{server}{where}/model-metrics")
        for metric in ("model_rmse", "mean_rmse", "zone_pair_median_rmse"):
            page.get_by_text(metric).first.wait_for()
        page.locator(".js-plotly-plot").first.wait_for()
        keep(page, "mlflow-backfill.png", tmp_path)
        page.goto(f"{server}{where}/artifacts/rmse_by_month.png")
        wait_for_picture(page, "img[src^='blob:'], img[src*='rmse_by_month']")
