"""One deployed run of a cab type at a time, whichever flow or deployment it is of.

A deployment's own limit keeps its runs apart; this keeps apart those of the local, the S3 and the
backfill deployment, and a run that was given another cab type than its deployment has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists
from prefect.runtime import deployment

from taxi_duration.data.schema import Cab

LEASE_SECONDS = 60
"""A run's turn ends so long after its process died; while it lives, Prefect renews it."""

PATIENCE_SECONDS = 3600
"""Prefect keeps leases in the server's memory and slots in its database: a server that is started
anew while a run has its turn never gives that slot back (Prefect 3.8.8)."""


@contextmanager
def take_turn(cab: Cab) -> Iterator[None]:
    """Wait until no other deployed run of this cab type is under way; runs by hand wait for none.

    After `PATIENCE_SECONDS` the run goes on, with a warning: files and stores have their own locks.
    The limit is on the server's Concurrency page, where it may be raised.
    """
    if not deployment.id:
        yield
        return
    name = f"nyc-taxi-duration-{cab.name}"
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    with ExitStack() as turn:
        try:
            turn.enter_context(
                concurrency(
                    name,
                    timeout_seconds=PATIENCE_SECONDS,
                    lease_duration=LEASE_SECONDS,
                    raise_on_lease_renewal_failure=False,
                )
            )
        except TimeoutError:
            get_run_logger().warning(
                "no turn within %d s: going on. If no other %s run is under way, delete the "
                "concurrency limit %s, of which a slot was lost; the next run makes it again.",
                PATIENCE_SECONDS,
                cab.name,
                name,
            )
        yield
