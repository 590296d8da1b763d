"""A real Dask scheduler and workers on loopback, each in a process and a directory of its own."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.servers import (
    PROGRAMS,
    accepts_connections,
    find_free_port,
    make_environment,
    run_server,
)


@dataclass(frozen=True)
class DaskWorker:
    """A worker's process, and the directory that relative paths of its tasks are below."""

    process: psutil.Process
    directory: Path


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its workers, which import the package from this checkout."""

    address: str
    directory: Path
    environment: Mapping[str, str]
    workers: tuple[DaskWorker, ...] = ()

    @contextmanager
    def add_worker(self, name: str, **variables: str) -> Iterator[DaskWorker]:
        """Have one more worker, which can take a task when it is lent."""
        directory = self.directory / name
        directory.mkdir()
        log = self.directory / f"{name}.log"
        command = [
            PROGRAMS / "dask", "worker", self.address, "--host", "127.0.0.1", "--no-nanny",
            "--nthreads", "1", "--no-dashboard", "--name", name,
            "--local-directory", directory,
        ]  # fmt: skip
        environment = make_environment(**{**self.environment, **variables})
        with run_server(
            command, environment, log, lambda: "Registered to" in log.read_text(), directory
        ) as process:
            yield DaskWorker(psutil.Process(process.pid), directory)


@contextmanager
def serve_scheduler(
    directory: Path, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a scheduler; lend its address, and its process. It logs to `scheduler.log`."""
    port = find_free_port()
    elsewhere = directory / "scheduler"
    elsewhere.mkdir()
    command = [
        PROGRAMS / "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port),
        "--no-dashboard",
    ]  # fmt: skip
    log = directory / "scheduler.log"
    with run_server(
        command,
        make_environment(**environment),
        log,
        lambda: accepts_connections(port),
        elsewhere,
    ) as process:
        yield f"tcp://127.0.0.1:{port}", process


@contextmanager
def serve_cluster(directory: Path, **environment: str) -> Iterator[Cluster]:
    """Run a scheduler and two workers of one thread each."""
    with ExitStack() as running:
        address, _ = running.enter_context(serve_scheduler(directory, **environment))
        cluster = Cluster(address, directory, environment)
        workers = [running.enter_context(cluster.add_worker(name)) for name in ("one", "two")]
        yield Cluster(address, directory, environment, tuple(workers))
