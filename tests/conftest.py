"""What every test stands on: an environment of its own, real months, and servers on loopback."""

import contextlib
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

REPOSITORY = Path(__file__).parents[1]
REAL_MONTHS = (
    "2021-01", "2021-02", "2023-01", "2023-02", "2023-03", "2023-04", "2023-05", "2023-06",
    "2025-01", "2025-02",
)  # fmt: skip
REAL_DATA_VARIABLE = "TAXI_DURATION_REAL_DATA"
NO_REAL_MONTHS = "real months are not in "
OURS = (
    "PREFECT_", "MLFLOW_", "AWS_", "TAXI_DURATION_S3_", "TAXI_DURATION_TLC_",
    "TAXI_DURATION_TRANSFER_", "TAXI_DURATION_CONTRACT_", "TAXI_DURATION_STABILITY_",
    "TAXI_DURATION_ALERT_",
)  # fmt: skip

# Before anything imports Prefect, which reads its settings then: nothing of the user's own is
# used, and nothing outside this machine is asked.
for name in [name for name in os.environ if name.startswith(OURS)]:
    del os.environ[name]
# The processes that tests start compile the package once, as a user's do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="taxi-duration-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"  # a test says which server it uses
os.environ["TAXI_DURATION_TLC_URL"] = "https://127.0.0.1:9/a-test-must-not-reach-the-tlc"
os.environ["TAXI_DURATION_TLC_HOSTS"] = "127.0.0.1"

from mlflow import MlflowClient  # noqa: E402
from prefect.concurrency.services import (  # noqa: E402
    ConcurrencySlotAcquisitionWithLeaseService,
)
from prefect.events.worker import EventsWorker  # noqa: E402
from prefect.logging.handlers import APILogWorker  # noqa: E402
from prefect.settings import (  # noqa: E402
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    temporary_settings,
)

from taxi_duration.data.parquet import MonthFile  # noqa: E402
from tests.support.buckets import S3Server, serve_s3  # noqa: E402
from tests.support.downloads import FILE, locate  # noqa: E402
from tests.support.months import write_month  # noqa: E402
from tests.support.registered import Registered, register_versions, use_store  # noqa: E402
from tests.support.runs import Run, call_taxi_duration, run_local  # noqa: E402
from tests.support.servers import (  # noqa: E402
    SHARED_VARIABLE,
    find_free_port,
    make_environment,
    make_prefect_home,
    serve_prefect,
)
from tests.support.web import Tlc, serve_tlc  # noqa: E402

THIRD_PARTY_WARNINGS = (
    "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning",
    "ignore:Type object <class 'prefect.server:sqlalchemy.exc.SADeprecationWarning",
    "ignore:Operation with range is deprecated:pandas.errors.Pandas4Warning",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
)


# How long an example takes says more about what else the machine does than about our code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

CPU_SECONDS = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CPU_SECONDS] = 0.0
    if not hasattr(config, "workerinput"):  # the processes of xdist inherit it
        os.environ[SHARED_VARIABLE] = tempfile.mkdtemp(prefix="taxi-duration-tests-")
    for warning in THIRD_PARTY_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[SHARED_VARIABLE], ignore_errors=True)


def measure_cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Have a process of xdist hand its CPU time to the one that shows it."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["cpu_seconds"] = measure_cpu()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    node.config.stash[CPU_SECONDS] += output.get("cpu_seconds", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    # Processes of xdist that have ended are children too: this process is counted alone.
    own = sum(os.times()[:2]) if config.stash[CPU_SECONDS] else measure_cpu()
    terminalreporter.write_line(f"CPU time: {config.stash[CPU_SECONDS] + own:.0f} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Give all skips for want of real months one place: the summary shows them on one line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if NO_REAL_MONTHS in reason:
            report.longrepr = (__file__, 1, reason)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that need a server, the longest, so that no process ends on one."""
    servers = {"prefect_server", "reader"}
    long = {item.path for item in items if servers & {*getattr(item, "fixturenames", ())}}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def prefect_home() -> Iterator[Path]:
    home = Path(os.environ["PREFECT_HOME"])
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of real months; read, never written."""
    default = REPOSITORY.parent / "shared" / "data"
    directory = Path(os.environ.get(REAL_DATA_VARIABLE, default))
    if not all((directory / f"green_tripdata_{m}.parquet").is_file() for m in REAL_MONTHS):
        message = (
            f"{NO_REAL_MONTHS}{directory}: put the TLC's green files of {', '.join(REAL_MONTHS)} "
            f"in a directory and name it in {REAL_DATA_VARIABLE}"
        )
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return directory


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API's address of a real Prefect server with a database of its own."""
    home = tmp_path_factory.mktemp("prefect-server")
    environment = make_environment(
        HOME=str(home),
        PREFECT_HOME=make_prefect_home(home),
        # How soon a run that waits for another of its deployment asks again; by default 30 s.
        PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS="1",
    )
    with serve_prefect(environment, home / "log", find_free_port()) as url:
        yield url


@contextmanager
def connected_to(server: str, password: str | None = None) -> Iterator[None]:
    """Have Prefect in this process use a server, and hand over every log line and event to it.

    What would go on asking this server, when the process uses another, is ended.
    """
    settings = {PREFECT_API_URL: server}
    with temporary_settings(settings | ({PREFECT_API_AUTH_STRING: password} if password else {})):
        try:
            yield
        finally:
            for service in (APILogWorker, EventsWorker, ConcurrencySlotAcquisitionWithLeaseService):
                service.drain_all(timeout=60, at_exit=False)


@pytest.fixture
def prefect_api(prefect_server: str) -> Iterator[str]:
    """The test's own process uses the server."""
    with connected_to(prefect_server):
        yield prefect_server


@pytest.fixture(scope="session")
def train_on_real_months(
    prefect_server: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """`train_on_real_months("--year", ...)`: a run of main_flow, made once for all who ask."""

    @functools.cache
    def train(*arguments: str) -> Run:
        directory = tmp_path_factory.mktemp("run")
        with connected_to(prefect_server):
            return run_local(directory, "--data-dir", str(real_data), "--offline", *arguments)

    return train


@pytest.fixture
def tlc(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tlc]:
    """A server in the TLC's place, which this process asks; it holds nothing yet."""
    with serve_tlc(tmp_path_factory.mktemp("tlc")) as server:
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        yield server


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


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """An MLflow store with registered versions; it is copied, never written."""
    return register_versions(tmp_path_factory.mktemp("registered"))


@pytest.fixture
def registry(registered: Registered, tmp_path: Path) -> Iterator[MlflowClient]:
    """A copy of it, which this process uses."""
    with use_store(Path(shutil.copy(registered.database, tmp_path))) as client:
        yield client


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that holds nothing yet."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def months_in_s3(s3_server: S3Server, real_data: Path) -> S3Server:
    """The server, with real months where `main_flow_s3` looks by default."""
    prefix = s3_server.bucket / "trip-data"
    prefix.mkdir()
    for month in ("2023-01", "2023-02", "2023-03"):
        shutil.copy(real_data / f"green_tripdata_{month}.parquet", prefix)
    return s3_server


@pytest.fixture(scope="session")
def s3_block(prefect_server: str, s3_server: S3Server) -> str:
    """The name of the block that the documented command saved."""
    with (
        pytest.MonkeyPatch.context() as patched,
        connected_to(prefect_server),
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        for variable, value in s3_server.environment.items():
            patched.setenv(variable, value)
        assert call_taxi_duration("create-s3-blocks") == 0
    assert printed.getvalue() == "saved S3Bucket block s3-bucket-block for bucket taxi\n"
    return "s3-bucket-block"
