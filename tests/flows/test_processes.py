import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from taxi_duration.flows import processes
from taxi_duration.flows.processes import describe_process, is_dead

DESCRIBE = "from taxi_duration.flows.processes import describe_process; print(describe_process())"
IS_DEAD = (
    "; import sys; from taxi_duration.flows.processes import is_dead; print(is_dead(sys.argv[1]))"
)
WAIT = "; import time; print(flush=True); time.sleep(600)"
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]


def test_this_process_is_described_the_same_each_time_and_lives() -> None:
    described = describe_process()
    assert described == describe_process()
    assert described.split(":")[1] == str(os.getpid())
    assert not is_dead(described)


def test_forked_process_is_another() -> None:
    described = describe_process()
    ours, its = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(its, describe_process().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    from_child = os.read(ours, 1000).decode()
    os.close(ours)
    os.close(its)
    assert from_child.split(":")[1] == str(pid) != described.split(":")[1]
    assert is_dead(from_child)


def test_process_is_dead_once_killed_also_while_its_parent_has_not_looked() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DESCRIBE + WAIT], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        described = process.stdout.readline().strip()
        assert not is_dead(described)
        process.send_signal(signal.SIGKILL)
        child = psutil.Process(process.pid)
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert is_dead(described)
    assert is_dead(described)


def test_another_process_that_got_the_same_pid_is_not_taken_for_it() -> None:
    place, pid, start = describe_process().split(":")
    assert is_dead(f"{place}:{pid}:{float(start) - 60:.2f}")


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="needs Linux, and the right to make namespaces")
def test_living_process_of_another_namespace_is_not_dead() -> None:
    with subprocess.Popen(
        [*UNSHARE, sys.executable, "-c", DESCRIBE + IS_DEAD + WAIT, describe_process()],
        stdout=subprocess.PIPE,
        text=True,
    ) as unshare:
        assert unshare.stdout is not None
        described, is_ours_dead = (unshare.stdout.readline().strip() for _ in range(2))
        (process,) = psutil.Process(unshare.pid).children()
        assert described.split(":")[1] == "1"
        assert (is_ours_dead, is_dead(described)) == ("False", False)
        process.kill()


@pytest.mark.parametrize(
    ("then", "now", "is_gone"),
    [
        ("vm/11111111/aaaaaaaa/4026531836", "vm/11111111/bbbbbbbb/4026531836", True),
        ("vm/11111111/aaaaaaaa/4026531836", "vm/22222222/bbbbbbbb/4026531836", False),
        ("vm/11111111/aaaaaaaa/4026531836", "pc/11111111/bbbbbbbb/4026531836", False),
        ("vm/-/aaaaaaaa/4026531836", "vm/-/bbbbbbbb/4026531836", False),
        ("vm/11111111/aaaaaaaa/4026532190", "vm/11111111/bbbbbbbb/4026532190", False),
        ("vm/11111111/aaaaaaaa/4026532190", "vm/11111111/bbbbbbbb/4026531836", False),
        ("vm/11111111/aaaaaaaa/4026532190", "vm/11111111/aaaaaaaa/4026531836", False),
        ("vm", "vm/11111111/bbbbbbbb/4026531836", False),
    ],
    ids=[
        "restarted", "other machine", "renamed", "no machine id", "same container's number",
        "container before", "container now", "place unknown",
    ],
)  # fmt: skip
def test_process_is_dead_once_its_machine_was_restarted(
    then: str, now: str, is_gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_describe_place", lambda: now)
    assert is_dead(f"{then}:{os.getpid()}:1.00") == is_gone


@pytest.mark.parametrize(
    ("machine_id", "machine"),
    [
        ("0123456789abcdef0123456789abcdef\n", "3eb1bd43"),
        ("uninitialized\n", "-"),
        ("", "-"),
        (None, "-"),
    ],
)
@pytest.mark.skipif(not psutil.LINUX, reason="only Linux tells what starts and namespaces are")
def test_machine_is_told_by_a_hash_of_its_id(
    machine_id: str | None, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if machine_id is not None:
        (tmp_path / "machine-id").write_text(machine_id, "ascii")
    monkeypatch.setattr(processes, "MACHINE_ID", tmp_path / "machine-id")
    place = describe_process().split(":")[0]
    assert re.fullmatch(rf".+/{machine}/[0-9a-f]{{8}}/\d+", place)


def test_host_is_all_that_is_told_where_nothing_else_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "BOOT_ID", tmp_path / "absent")
    described = describe_process()
    assert described.split(":")[0] == socket.gethostname()
    assert not is_dead(described)
    assert is_dead(f"{socket.gethostname()}:{os.getpid()}:1.00")


@pytest.mark.parametrize(
    "description",
    [
        "", "::", "host", "host:1", "elsewhere.invalid:1:1.00", "elsewhere.invalid:999999:1.00",
        "{place}:999999", "{place}:-1:1.00", "{place}:999999:", "{place}:999999:nan",
        "{place}:999999999999999999999:1.00", "{place}:999999:1.00\n", "{place}:٣:1.00",
    ],
)  # fmt: skip
def test_what_cannot_be_known_dead_is_not(description: str) -> None:
    place = describe_process().split(":")[0]
    assert not is_dead(description.format(place=place))
