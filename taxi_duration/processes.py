"""Which process this is, in a word others can keep, and whether one so described still lives."""

from __future__ import annotations

import os
import re
import socket

import psutil


def describe_process() -> str:
    """The running process as `host:pid:start`, a name that no later process gets.

    Its start is in seconds, on Linux since the machine's, which setting the clock does not move.
    """
    return _describe(psutil.Process(os.getpid()))


def is_dead(description: str) -> bool:
    """Whether a process, as `describe_process` described it, ran on this host and is gone.

    False for one of another host, which cannot be seen from here, and for any other text.
    """
    parts = re.fullmatch(r"(.+):(\d{1,9}):\d+\.\d\d", description, re.ASCII)
    if parts is None or parts[1] != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(parts[2]))
        return process.status() == psutil.STATUS_ZOMBIE or _describe(process) != description
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _describe(process: psutil.Process) -> str:
    start = process.create_time() - (psutil.boot_time() if psutil.LINUX else 0)
    return f"{socket.gethostname()}:{process.pid}:{start:.2f}"
