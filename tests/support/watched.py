"""Whom automations and hooks tell, and flows that run in processes of their own, as deployed."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prefect.client.orchestration import get_client

from taxi_duration.cli.app import main
from taxi_duration.operations import alerts
from tests.conftest import REPOSITORY
from tests.support.servers import make_environment, wait_until


@dataclass(frozen=True)
class Told:
    """One request: whom it was for, with which login, and what it says."""

    path: str
    login: str | None
    kind: str | None
    content: dict[str, str]


@dataclass
class Receiver:
    """A web server that takes notes of what it is told, and answers with `status`."""

    port: int = 0
    status: int = 200
    told: list[Told] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/hook", login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}{path}"

    def wait_for(self, *subjects: str) -> list[Told]:
        """All that was told, once that is about all of these."""
        wait_until(
            lambda: {*subjects} <= {each.content["subject"] for each in self.told},
            f"to be told of {', '.join(subjects)}",
        )
        return self.told


@contextmanager
def receive() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            login, kind = self.headers["Authorization"], self.headers["Content-Type"]
            if self.path == "/never":
                receiver.released.wait()
            receiver.told.append(Told(self.path, login, kind, json.loads(body)))
            self.send_response(receiver.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        receiver.port = web.server_port
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            web.shutdown()
            thread.join()


def watch(*arguments: str) -> int:
    """`python -m taxi_duration watch ...`, on the server this process is connected to."""
    return main(["watch", *arguments])


def forget_automations() -> None:
    """Leave the server to other tests as it was."""
    with get_client(sync_client=True) as client:
        for name in (alerts.TELLING, alerts.CRASHING):
            for automation in client.read_automations_by_name(name):
                client.delete_automation(automation.id)


@contextmanager
def start_script(
    *arguments: str, directory: Path, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `orchestrate.py` in a process of its own and a directory that is made for it."""
    directory.mkdir(parents=True)
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, REPOSITORY / "orchestrate.py", *arguments],
            cwd=directory,
            env=make_environment(**variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
