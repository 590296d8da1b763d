import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from taxi_duration.processes import describe_process, is_dead

DESCRIBE = "from taxi_duration.processes import describe_process; print(describe_process())"
WAIT = "; import time; print(flush=True); time.sleep(600)"


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
    host, pid, start = describe_process().split(":")
    assert is_dead(f"{host}:{pid}:{float(start) - 60:.2f}")


@pytest.mark.parametrize(
    "description",
    [
        "", "::", "host", "host:1", "elsewhere.invalid:1:1.00", "elsewhere.invalid:999999:1.00",
        "{host}:999999", "{host}:-1:1.00", "{host}:999999:", "{host}:999999:nan",
        "{host}:999999999999999999999:1.00", "{host}:999999:1.00\n", "{host}:٣:1.00",
    ],
)  # fmt: skip
def test_what_cannot_be_known_dead_is_not(description: str) -> None:
    host = describe_process().split(":")[0]
    assert not is_dead(description.format(host=host))
