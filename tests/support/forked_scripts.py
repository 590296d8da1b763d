"""Flow files run at once, each in a fork of one process, so that their imports are paid once.

Run as `python -m tests.support.forked_scripts JOBS`: JSON of the name of each, its command line and
its variables. A job runs in the directory of its name, where `printed` gets all that it prints.
Prints JSON of the exit codes by name.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from threading import active_count

import mlflow.sklearn  # noqa: F401
import sklearn.linear_model  # noqa: F401

import orchestrate  # noqa: F401
import orchestrate_s3  # noqa: F401

Job = tuple[list[str], dict[str, str]]


def main(jobs: dict[str, Job]) -> None:
    assert active_count() == 1, "a child would lack the other threads"
    children = {}
    for name, job in jobs.items():
        children[name] = os.fork()
        if children[name] == 0:
            _run(Path(name), *job)
            return
    codes = {name: os.waitpid(child, 0)[1] for name, child in children.items()}
    json.dump({name: os.waitstatus_to_exitcode(code) for name, code in codes.items()}, sys.stdout)


def _run(directory: Path, command: list[str], variables: dict[str, str]) -> None:
    """Be that script, to the exit of Python, at which Prefect hands over its last log lines."""
    directory.mkdir()
    os.chdir(directory)
    with Path("printed").open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    os.environ.update(variables)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
