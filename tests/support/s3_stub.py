"""A server in S3's place that answers as a test says; rclone's behaves too well for faults."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.buckets import BUCKET
from tests.support.web import make_etag

Answer = Callable[["Handler"], None]
"""Answers one request in place of the object, as faults do."""


@dataclass
class S3Stub:
    """What the bucket holds by key, and what was asked of it.

    Requests for a key in `faults` are answered by what is there; others as S3 does.
    """

    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    """The If-None-Match of each GET."""
    faults: dict[tuple[str, str], Answer] = field(default_factory=dict)
    """Method and key -> the answer."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends, so that no answer that waits holds it up; or by a test."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    stub: S3Stub
    protocol_version = "HTTP/1.1"

    @property
    def key(self) -> str:
        return self.path.removeprefix(f"/{BUCKET}/")

    def do_GET(self) -> None:
        self.stub.conditions.append(self.headers.get("If-None-Match"))
        self._answer(get)

    def do_PUT(self) -> None:
        self.content = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(put)

    def _answer(self, usual: Answer) -> None:
        self.stub.requests.append((self.command, self.key))
        self.stub.faults.get((self.command, self.key), usual)(self)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; header names with `_` for `-`, Content-Length unless given."""
        self.send_response(status)
        for name, value in {
            "Content_Length": str(len(body)),
            "Connection": "close",
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def get(request: Handler) -> None:
    """Send the object: 304 while its ETag is the one asked for, 404 without it."""
    body = request.stub.objects.get(request.key)
    if body is None:
        refuse(404, "NoSuchKey")(request)
    elif request.headers.get("If-None-Match") == make_etag(body):
        request.answer(304)
    else:
        get_always(request)


def get_always(request: Handler) -> None:
    """Send the object whatever was the condition."""
    body = request.stub.objects[request.key]
    date = "Mon, 20 Mar 2023 12:00:00 GMT"
    request.answer(200, body, ETag=make_etag(body), Last_Modified=date)


def put(request: Handler) -> None:
    """Take the object."""
    request.stub.objects[request.key] = request.content
    request.answer(200, ETag=make_etag(request.content))


def refuse(status: int, code: str) -> Answer:
    """Answer an error as S3 writes it."""
    body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
    return lambda request: request.answer(status, body, Content_Type="application/xml")


@contextmanager
def serve_stub() -> Iterator[S3Stub]:
    """Run the server, which holds nothing yet."""
    stub = S3Stub()
    handler = type("S3StubHandler", (Handler,), {"stub": stub})

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that hangs up

    with Server(("127.0.0.1", 0), handler) as web:
        stub.port = web.server_port
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            stub.released.set()
            web.shutdown()
            thread.join()
