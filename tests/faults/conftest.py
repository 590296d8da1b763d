"""A month that the server in the TLC's place holds, and where it is downloaded to."""

from pathlib import Path

import pytest

from taxi_duration.month_file import MonthFile
from tests.faults.downloads import FILE, locate
from tests.months import write_month
from tests.web import Tlc


@pytest.fixture
def month(tmp_path: Path, tlc: Tlc) -> bytes:
    """The bytes of a month that the server holds."""
    content = write_month(tmp_path / "made" / FILE).read_bytes()
    tlc.files[FILE] = content
    return content


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def fetched(tlc: Tlc, month: bytes, data: Path) -> MonthFile:
    """The month, fetched before anything went wrong."""
    file = locate(data)
    tlc.requests.clear()
    tlc.headers.clear()
    return file
