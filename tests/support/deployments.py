"""What it takes to deploy: a checkout, a machine's own homes, a worker, and runs read back."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun

from tests.conftest import REPOSITORY
from tests.support.servers import (
    PATIENCE_SECONDS,
    PROGRAMS,
    make_prefect_home,
    run_server,
    wait_until,
)


def make_checkout(directory: Path) -> Path:
    """The working tree as it is, committed, in a directory of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        ["init", "--quiet"],
        ["remote", "add", "origin", "https://example.invalid/nyc-taxi-duration.git"],
        ["add", "--all"],
        [*identity, "-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message", "Checkout"],
    ):
        subprocess.run(["git", *command], cwd=directory, check=True)
    return directory


def make_machine(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a machine of its own: nothing but the programs is shared with this one."""
    (home / "tmp").mkdir(parents=True)
    return {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PREFECT_HOME": make_prefect_home(home / "prefect"),
        "TMPDIR": str(home / "tmp"),
        "COLUMNS": "250",
        "TERM": "dumb",
        "DO_NOT_TRACK": "1",
        **{name: value for name, value in os.environ.items() if name.startswith("TAXI_DURATION_")},
        **variables,
    }


@contextmanager
def work(environment: dict[str, str], directory: Path) -> Iterator[None]:
    """A worker started in a directory; it makes the work pool."""
    directory.mkdir(parents=True, exist_ok=True)
    log = Path(environment["HOME"]) / "worker.log"
    command = [PROGRAMS / "prefect", "worker", "start", "-p", "zoompool"]
    environment = {**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}

    def has_started() -> bool:
        return "Worker 'ProcessWorker" in log.read_text("utf-8")

    with run_server(command, environment, log, has_started, directory):
        yield


def start_run(
    deployment: str,
    name: str,
    parameters: dict[str, object],
    environment: dict[str, str],
    *options: str,
) -> subprocess.Popen[str]:
    """`prefect deployment run`, as a person types it, for a run of that name."""
    given = [part for key, value in parameters.items() for part in ("-p", f"{key}={value}")]
    return subprocess.Popen(
        [PROGRAMS / "prefect", "deployment", "run", deployment, "--flow-run-name", name,
         *given, *options],
        cwd=environment["HOME"], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def end_well(*processes: subprocess.Popen[str]) -> None:
    """Wait for commands that must all succeed; once one does not, the others are killed."""
    try:
        for process in processes:
            shown, _ = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, shown
    finally:
        for process in processes:
            with process:
                process.kill()


def read_run(name: str) -> FlowRun:
    """The only run of that name on the server this process is connected to."""
    with get_client(sync_client=True) as client:
        (flow_run,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        )
    return flow_run


def wait_for_state(name: str, *states: str) -> FlowRun:
    """The run of that name, once it is in one of the states."""

    def read_if_so() -> FlowRun | None:
        flow_run = read_run(name)
        if flow_run.state_name in states:
            return flow_run
        assert not flow_run.state or not flow_run.state.is_final(), flow_run.state
        return None

    return wait_until(read_if_so, f"{name} to be {' or '.join(states)}")
