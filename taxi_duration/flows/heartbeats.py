"""Signs of life of a flow run, frequent enough for the server to tell soon when they stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import tags
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

HEARTBEAT_SECONDS = 30
"""The least Prefect takes; deployments set it as a job variable."""

TAG = "nyc-taxi-duration"
"""Of a flow run: it is one of ours, and its heartbeats come every `HEARTBEAT_SECONDS`. Prefect's
default is 180, and a heartbeat does not tell how long it will be until the next."""


@contextmanager
def have_heartbeats() -> Iterator[None]:
    """Have the flow run started here send heartbeats to a server that stays, as deployed ones do.

    Not if the user set another frequency, which such a server would take for silence.
    """
    if not PREFECT_API_URL.value():
        yield
        return
    with temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_SECONDS}):
        frequency = PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value()
        with tags(*([TAG] if frequency == HEARTBEAT_SECONDS else [])):
            yield
