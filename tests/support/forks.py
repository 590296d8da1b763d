"""Children that die at an exact point, forked by a script that has imported everything already."""

import os
import signal
import traceback
from collections.abc import Callable
from unittest import mock


def run_forked(act: Callable[[], object]) -> int:
    """Run a function in a child of its own.

    Returns:
        The child's exit code; minus the signal's number if one killed it.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except SystemExit as leave:
            code = int(str(leave.code))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(target: object, name: str, *, call: int = 1) -> None:
    """Have the process die, as of SIGKILL, when it makes the so-manieth call of a function."""
    real, calls = getattr(target, name), []

    def die(*arguments: object, **named: object) -> object:
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    mock.patch.object(target, name, die).start()
