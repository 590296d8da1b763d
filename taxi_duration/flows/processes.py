"""Which process this is, in a word others can keep, and whether one so described still lives."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

import psutil

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")
FIRST_NAMESPACE = 0xEFFFFFFC
"""The inode of the pid namespace that Linux starts with, outside all containers."""

DESCRIPTION = re.compile(r"(.+):(\d{1,9}):\d+\.\d\d", re.ASCII)
PLACE = re.compile(r"(?P<machine>.+/[0-9a-f]{8})/(?P<boot>[0-9a-f]{8})/(?P<namespace>\d+)")


def describe_process() -> str:
    """The running process as `place:pid:start`, a name that no later process gets.

    The place is the host, on Linux as `host/machine/boot/namespace`: containers may share a name,
    and number their processes apart. The start is in seconds, on Linux since the machine's, which
    setting the clock does not move.
    """
    return _describe(psutil.Process(os.getpid()))


def is_dead(description: str) -> bool:
    """Whether a process, as `describe_process` described it, ran in this place and is gone.

    False for one of another host or container, which cannot be seen from here, and for any other
    text. True for one of this machine before it was restarted, unless it was in a container, since
    several machines' containers may have one image's machine id.
    """
    parts = DESCRIPTION.fullmatch(description)
    if parts is None:
        return False
    here = _describe_place()
    if parts[1] != here:
        return _was_restarted(parts[1], here)
    try:
        process = psutil.Process(int(parts[2]))
        return process.status() == psutil.STATUS_ZOMBIE or _describe(process) != description
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _was_restarted(then: str, now: str) -> bool:
    before, after = PLACE.fullmatch(then), PLACE.fullmatch(now)
    return (
        before is not None
        and after is not None
        and before["machine"] == after["machine"]
        and before["boot"] != after["boot"]
        and before["namespace"] == after["namespace"] == str(FIRST_NAMESPACE)
    )


def _describe(process: psutil.Process) -> str:
    start = process.create_time() - (psutil.boot_time() if psutil.LINUX else 0)
    return f"{_describe_place()}:{process.pid}:{start:.2f}"


def _describe_place() -> str:
    host = socket.gethostname()
    try:
        boot, namespace = BOOT_ID.read_text("ascii").strip()[:8], NAMESPACE.stat().st_ino
    except OSError:
        return host
    return f"{host}/{_describe_machine()}/{boot}/{namespace}"


def _describe_machine() -> str:
    try:
        machine = MACHINE_ID.read_text("ascii").strip()
    except OSError:
        machine = ""
    if not re.fullmatch("[0-9a-f]{32}", machine):
        return "-"
    # Hashed, since the id itself is not meant to be shown.
    return hashlib.sha256(machine.encode()).hexdigest()[:8]
