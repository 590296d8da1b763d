"""A real browser, headless."""

import os
import shutil

import pytest

SCREENSHOTS_VARIABLE = "TAXI_DURATION_SCREENSHOTS"
"""Names the directory that screenshots for the documentation are put in, if any are wanted."""

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str:
    """The system's; without it the test fails in CI, and is skipped elsewhere."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        message = "no chromium on the path: install the system's chromium to see the page"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
