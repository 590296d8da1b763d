"""Real processes that want the same month, are killed in the middle, or may not write."""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from taxi_duration.data.parquet import MonthFile
from taxi_duration.errors import DataError, StorageError
from taxi_duration.files import LOCK_FILE, STAGED_SUFFIX, hash_file
from tests.support.downloads import (
    FILE,
    JANUARY,
    LOCKING,
    SIDECAR,
    Child,
    announce_lock,
    die_before_cleaning_up,
    die_before_sidecar,
    die_between_sidecar_and_file,
    drop_privileges,
    limit_file_size,
    list_names,
    locate,
    start,
)
from tests.support.months import write_month
from tests.support.web import Handler, Tlc, answer_status, serve

KILLED = -signal.SIGKILL


def start_many(stack: ExitStack, count: int, tlc: Tlc, data: Path) -> list[Child]:
    """Processes that want the month, all of them past deciding that they have to ask for it."""
    children = [
        stack.enter_context(start(locate, data, environment=tlc.environment, prepare=announce_lock))
        for _ in range(count)
    ]
    assert [child.hear() for child in children] == [LOCKING] * count
    return children


def serve_when_released(request: Handler) -> None:
    request.tlc.released.wait()
    serve(request)


@pytest.mark.parametrize("count", [2, 6])
def test_processes_that_want_the_same_month_make_one_request(
    count: int, tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.always = serve_when_released
    with ExitStack() as stack:
        children = start_many(stack, count, tlc, data)
        tlc.released.set()
        files = [child.hear() for child in children]
        assert [child.end() for child in children] == [0] * count
    assert files == [MonthFile(JANUARY, data / FILE, hash_file(data / FILE))] * count
    assert (data / FILE).read_bytes() == month
    assert tlc.requests == [FILE]
    assert list_names(data) == [FILE, SIDECAR]


def test_processes_that_have_the_month_ask_once_whether_it_is_still_the_published_one(
    tlc: Tlc, fetched: MonthFile, data: Path
) -> None:
    tlc.always = serve_when_released
    with ExitStack() as stack:
        children = start_many(stack, 3, tlc, data)
        tlc.released.set()
        assert [child.hear() for child in children] == [fetched] * 3
    assert tlc.requests == [FILE]


def send_half_of_much(request: Handler) -> None:
    """Send enough that some of it is on the disk before the rest, which does not come."""
    request.start(200, Content_Length="200000")
    request.wfile.write(bytes(100_000))
    request.tlc.released.wait()


def find_staged(data: Path) -> list[Path]:
    return sorted(data.glob(f".*{STAGED_SUFFIX}/*"))


def wait_for_bytes(child: Child, data: Path) -> None:
    while not any(path.stat().st_size for path in find_staged(data)):
        assert child.process.is_alive()
        time.sleep(0.005)


def test_process_that_is_killed_in_downloading_leaves_nothing_to_the_next(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.answers = [send_half_of_much]
    with start(locate, data, environment=tlc.environment) as child:
        wait_for_bytes(child, data)
        child.kill()
        assert child.end() == KILLED
    assert sorted(path.name for path in find_staged(data)) == [FILE, LOCK_FILE]
    assert not (data / FILE).exists()
    assert not (data / SIDECAR).exists()
    file = locate(data)
    assert (file.path.read_bytes(), file.notices) == (month, ())
    assert tlc.requests == [FILE] * 2
    assert list_names(data) == [FILE, SIDECAR]


def test_process_that_waits_takes_over_from_one_that_is_killed(
    tlc: Tlc, month: bytes, data: Path
) -> None:
    tlc.answers = [send_half_of_much]
    with ExitStack() as stack:
        first = stack.enter_context(start(locate, data, environment=tlc.environment))
        wait_for_bytes(first, data)
        (second,) = start_many(stack, 1, tlc, data)
        assert tlc.requests == [FILE]
        first.kill()
        assert second.hear() == MonthFile(JANUARY, data / FILE, hash_file(data / FILE))
    assert (data / FILE).read_bytes() == month
    assert tlc.requests == [FILE] * 2
    assert list_names(data) == [FILE, SIDECAR]


@pytest.mark.parametrize(
    ("die", "left"),
    [
        (die_before_sidecar, []),
        (die_between_sidecar_and_file, [SIDECAR]),
        (die_before_cleaning_up, [FILE, SIDECAR]),
    ],
)
def test_process_that_is_killed_in_placing_a_month(
    die: Callable[[Connection], None], left: list[str], tlc: Tlc, month: bytes, data: Path
) -> None:
    with start(locate, data, environment=tlc.environment, prepare=die) as child:
        assert child.end() == KILLED
    assert [name for name in list_names(data) if not name.endswith(STAGED_SUFFIX)] == left
    file = locate(data)
    assert file == MonthFile(JANUARY, data / FILE, hash_file(data / FILE))
    assert file.path.read_bytes() == month
    assert list_names(data) == [FILE, SIDECAR]


@pytest.mark.parametrize(
    ("die", "notice"),
    [
        (
            die_before_sidecar,
            "{file} was published anew: sha256 {old} of 12 rows gave way to {new}",
        ),
        (
            die_between_sidecar_and_file,
            "{file} was published anew: sha256 {old} of 12 rows gave way to {new}",
        ),
        (die_before_cleaning_up, None),
    ],
)
def test_process_that_is_killed_in_replacing_a_month(
    die: Callable[[Connection], None],
    notice: str | None,
    tlc: Tlc,
    fetched: MonthFile,
    data: Path,
    tmp_path: Path,
) -> None:
    tlc.files[FILE] = write_month(tmp_path / FILE, minutes=20).read_bytes()
    with start(locate, data, environment=tlc.environment, prepare=die) as child:
        assert child.end() == KILLED
    new = locate(data)
    assert new.path.read_bytes() == tlc.files[FILE]
    if notice is None:
        assert new.notices == ()
    else:
        (said,) = new.notices
        assert said.startswith(notice.format(file=FILE, old=fetched.sha256, new=new.sha256))
    assert list_names(data) == [FILE, SIDECAR]
    assert locate(data, offline=True).sha256 == new.sha256


def test_month_before_the_one_that_never_arrived_is_still_right(
    tlc: Tlc, fetched: MonthFile, data: Path, tmp_path: Path
) -> None:
    tlc.files[FILE] = write_month(tmp_path / FILE, minutes=20).read_bytes()
    with start(
        locate, data, environment=tlc.environment, prepare=die_between_sidecar_and_file
    ) as child:
        assert child.end() == KILLED
    assert locate(data, offline=True).sha256 == fetched.sha256
    tlc.always = answer_status(503)
    file = locate(data)
    assert (file.sha256, hash_file(data / FILE)) == (fetched.sha256, fetched.sha256)
    (notice,) = file.notices
    assert notice.endswith(f"The {FILE} that is here, verified by its sha256, is used instead.")


def expect_full_disk(tlc: Tlc, data: Path) -> None:
    with start(locate, data, environment=tlc.environment, prepare=limit_file_size) as child:
        error = child.hear()
        assert child.end() == 0
    assert type(error) is StorageError
    assert str(error) == (
        f"writing {data / FILE} failed (File too large): free space on its disk, give yourself "
        "permission, or name another directory. Nothing was left half-written."
    )


def test_disk_that_takes_no_more(tlc: Tlc, month: bytes, data: Path) -> None:
    expect_full_disk(tlc, data)
    assert list_names(data) == []
    assert tlc.requests == [FILE]


def test_disk_that_takes_no_replacement(
    tlc: Tlc, fetched: MonthFile, data: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    tlc.files[FILE] = write_month(tmp_path / FILE, minutes=20).read_bytes()
    expect_full_disk(tlc, data)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    assert locate(data, offline=True) == fetched


@pytest.fixture
def read_only(data: Path) -> Iterator[Callable[[], Path]]:
    """Move what is in the data directory to one in which only root may write."""
    parent = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    parent.chmod(0o755)

    def move() -> Path:
        data.mkdir(exist_ok=True)
        moved = shutil.move(data, parent / "data")
        Path(moved).chmod(0o555)
        return Path(moved)

    yield move
    (parent / "data").chmod(0o755)
    shutil.rmtree(parent)


def locate_unprivileged(tlc: Tlc, data: Path, offline: bool = False) -> object:
    with start(
        locate, data, offline, environment=tlc.environment, prepare=drop_privileges
    ) as child:
        return child.hear()


def test_read_only_directory_with_a_fetched_month(
    tlc: Tlc, fetched: MonthFile, read_only: Callable[[], Path]
) -> None:
    directory = read_only()
    expected = MonthFile(JANUARY, directory / FILE, fetched.sha256)
    assert locate_unprivileged(tlc, directory) == expected
    assert locate_unprivileged(tlc, directory, offline=True) == expected
    assert tlc.requests == []


def test_read_only_directory_with_an_altered_month(
    tlc: Tlc, fetched: MonthFile, data: Path, read_only: Callable[[], Path]
) -> None:
    write_month(data / FILE, minutes=20)
    directory = read_only()
    error = locate_unprivileged(tlc, directory)
    assert type(error) is DataError
    assert f"is fetched again. But that may not be (offline is set, or {directory} is" in str(error)
    assert tlc.requests == []


def test_read_only_directory_with_a_users_month(
    tlc: Tlc, month: bytes, data: Path, read_only: Callable[[], Path]
) -> None:
    write_month(data / FILE)
    directory = read_only()
    notice = f"{FILE} has no sidecar: it is used as the file of your own that it seems to be."
    sha256 = hash_file(directory / FILE)
    expected = MonthFile(JANUARY, directory / FILE, sha256, (notice,))
    assert locate_unprivileged(tlc, directory) == expected
    assert list_names(directory) == [FILE]
    assert tlc.requests == []


def test_read_only_directory_without_the_month(
    tlc: Tlc, month: bytes, read_only: Callable[[], Path]
) -> None:
    directory = read_only()
    error = locate_unprivileged(tlc, directory)
    assert type(error) is StorageError
    assert str(error).startswith(f"locking {directory / FILE} failed (Permission denied): free")
    assert [*directory.iterdir()] == []
    assert tlc.requests == []
