"""What shows how far a download is, and to whom."""

import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.tlc import locate_month
from taxi_duration.flows.tasks import DOWNLOAD_KEY, SCORING_KEY, download_month, show_progress
from taxi_duration.predict.score import NamedModel, score_trips
from tests.support.downloads import GREEN, JANUARY, locate
from tests.support.months import JANUARY as SAMPLE_JANUARY
from tests.support.trained import train_on
from tests.support.web import (
    Tlc,
)


@flow
def download_and_show(data: Path) -> MonthFile:
    def locate_and_report(month: Month, report: Any) -> MonthFile:
        return locate_month(GREEN, month, data, False, report)

    return download_month(locate_and_report, JANUARY)


def read_progress_artifacts() -> list[Artifact]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(sort=ArtifactSort.CREATED_DESC)
    return [artifact for artifact in found if artifact.key == DOWNLOAD_KEY]


@pytest.mark.usefixtures("prefect_api")
def test_artifact_shows_progress_in_a_deployment(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "6e1f7c52-0000-0000-0000-000000000000")
    before = {artifact.id for artifact in read_progress_artifacts()}
    download_and_show(data)
    (artifact,) = (each for each in read_progress_artifacts() if each.id not in before)
    assert (artifact.type, artifact.data) == ("progress", 100)
    assert artifact.description == "download 2023-01"
    assert artifact.flow_run_id is not None


@pytest.mark.usefixtures("prefect_api")
def test_artifact_that_cannot_be_made_does_not_end_the_download(
    tlc: Tlc, month: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "6e1f7c52-0000-0000-0000-000000000000")
    failing = mock.Mock(side_effect=httpx.ConnectError("the API is gone"))
    monkeypatch.setattr("taxi_duration.flows.tasks.create_progress_artifact", failing)
    assert download_and_show(data).path.read_bytes() == month
    assert failing.call_count == 1


@pytest.mark.usefixtures("prefect_api")
def test_no_artifact_elsewhere(tlc: Tlc, month: bytes, data: Path) -> None:
    before = {artifact.id for artifact in read_progress_artifacts()}
    download_and_show(data)
    assert {artifact.id for artifact in read_progress_artifacts()} == before


@contextmanager
def on_terminal() -> Iterator[bytearray]:
    """Have standard error be a terminal, and lend what it has shown once that has ended."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def watch() -> None:
        with suppress(OSError):  # its other end is closed
            while True:
                shown.extend(os.read(ours, 4096))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with (
        os.fdopen(theirs, "w", encoding="utf-8") as screen,
        mock.patch.object(sys, "stderr", screen),
        mock.patch.dict(os.environ, TERM="xterm"),
    ):
        yield shown
    watcher.join()
    os.close(ours)


def test_bar_shows_progress_on_a_terminal(tlc: Tlc, month: bytes, data: Path) -> None:
    with on_terminal() as shown, show_progress("download 2023-01") as report:
        locate_month(GREEN, JANUARY, data, False, report)
    assert "download 2023-01" in shown.decode()
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown.decode()


def test_bar_shows_a_scorings_rows(tmp_path: Path) -> None:
    model = NamedModel(train_on(SAMPLE_JANUARY, "course").model, "green/x", "1")
    with on_terminal() as shown, show_progress("predict", SCORING_KEY) as report:
        score_trips(model, SAMPLE_JANUARY, tmp_path / "out.csv", report=report)
    assert "predict" in shown.decode()
    assert "19600/19600" in shown.decode()


def test_bar_does_not_flash_when_nothing_arrives(fetched: MonthFile, data: Path) -> None:
    with on_terminal() as shown, show_progress("download 2023-01") as report:
        locate_month(GREEN, JANUARY, data, False, report)
    assert report is not None
    assert shown == b""


def test_nothing_is_shown_to_nobody(
    tlc: Tlc, month: bytes, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with show_progress("download 2023-01") as report:
        assert report is None
        locate(data)
    assert capfd.readouterr() == ("", "")
