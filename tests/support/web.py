"""A web server in the TLC's place: real TLS on loopback, months, ETags, and faults on demand."""

import gzip
import hashlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

Answer = Callable[["Handler"], None]
"""Answers one request in place of the file, as faults do."""

PAGE = b"<!doctype html><title>Moved</title><p>Sign in to download."


@dataclass
class Tlc:
    """What the server holds, what it was asked, and how it answers the next requests.

    `answers` are used up one a request; after them the files are served.
    """

    authority: Path
    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    """Answers whatever `answers` does not."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends, so that no answer that waits holds it up; or by a test."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/trip-data"

    @property
    def environment(self) -> dict[str, str]:
        """What an operator sets to have this server asked, and believed."""
        return {
            "TAXI_DURATION_TLC_URL": self.url,
            "TAXI_DURATION_TLC_HOSTS": "127.0.0.1",
            "SSL_CERT_FILE": str(self.authority),
        }


class Handler(BaseHTTPRequestHandler):
    tlc: Tlc
    protocol_version = "HTTP/1.1"

    @property
    def name(self) -> str:
        return self.path.removeprefix("/trip-data/")

    @property
    def body(self) -> bytes:
        return self.tlc.files[self.name]

    def do_GET(self) -> None:
        self.tlc.requests.append(self.name)
        self.tlc.headers.append({key.lower(): value for key, value in self.headers.items()})
        self.close_connection = True
        if self.tlc.answers:
            self.tlc.answers.pop(0)(self)
        elif self.tlc.always:
            self.tlc.always(self)
        else:
            serve(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; header names with `_` for `-`, Content-Length unless given."""
        self.start(status, **{"Content_Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def start(self, status: int, **headers: str) -> None:
        """Send a status and headers, and no body yet."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def make_etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def serve(request: Handler) -> None:
    """Serve the file, as the TLC does: 304 while its ETag is the one asked for, 404 without it."""
    if request.name not in request.tlc.files:
        request.answer(404)
        return
    body = request.body
    etag = make_etag(body)
    if request.headers.get("If-None-Match") == etag:
        request.start(304, ETag=etag)
        return
    request.answer(200, body, ETag=etag, Last_Modified="Mon, 20 Mar 2023 12:00:00 GMT")


def answer_status(status: int, **headers: str) -> Answer:
    return lambda request: request.answer(status, **headers)


def send_part(count: int) -> Answer:
    """Promise the whole file, send so many bytes of it, and hang up."""

    def answer(request: Handler) -> None:
        request.start(200, Content_Length=str(len(request.body)))
        request.wfile.write(request.body[:count])

    return answer


def send_unannounced(body: bytes) -> Answer:
    """Send bytes without saying how many there are, and hang up."""

    def answer(request: Handler) -> None:
        request.start(200)
        request.wfile.write(body)

    return answer


def send_chunked(body: bytes, *, is_whole: bool) -> Answer:
    """Send bytes as one chunk, and no end of chunks unless the body is whole."""

    def answer(request: Handler) -> None:
        request.start(200, Transfer_Encoding="chunked")
        request.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        if is_whole:
            request.wfile.write(b"0\r\n\r\n")

    return answer


def reset_after(count: int) -> Answer:
    """As `send_part`, but end the connection by a reset."""

    def answer(request: Handler) -> None:
        send_part(count)(request)
        # A socket that does not linger is reset by closing it; shutting it down would be polite.
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(request.connection.detach())

    return answer


def hang(request: Handler) -> None:
    """Answer nothing until released."""
    request.tlc.released.wait()


def halt_after(count: int) -> Answer:
    """Promise the whole file, send so many bytes of it, and the rest when released."""

    def answer(request: Handler) -> None:
        body = request.body
        request.start(200, Content_Length=str(len(body)), ETag=make_etag(body))
        request.wfile.write(body[:count])
        request.tlc.released.wait()
        request.wfile.write(body[count:])

    return answer


def trickle(request: Handler) -> None:
    """Send the file a byte at a time, which a timeout for each read never ends."""
    request.start(200, Content_Length=str(len(request.body)))
    for place in range(len(request.body)):
        request.wfile.write(request.body[place : place + 1])
        if request.tlc.released.wait(0.01):
            return


def send_encoded(request: Handler) -> None:
    """Send 50 MB as few bytes, in an encoding that was not asked for."""
    request.answer(200, gzip.compress(bytes(50_000_000), compresslevel=1), Content_Encoding="gzip")


def promise(size: int) -> Answer:
    """Promise so many bytes, and send none of them until released."""

    def answer(request: Handler) -> None:
        request.start(200, Content_Length=str(size))
        request.tlc.released.wait()

    return answer


@contextmanager
def serve_tlc(directory: Path) -> Iterator[Tlc]:
    """Run the server; `directory` takes the certificate of the authority that vouches for it."""
    authority = trustme.CA()
    certificate = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    served = Tlc(certificate)
    handler = type("TlcHandler", (Handler,), {"tlc": served})

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[ssl.SSLSocket, object]:
            connection, address = super().get_request()
            # The handshake is left to the request's own thread.
            return context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            ), address

        def handle_error(self, *_: object) -> None:
            pass  # a client that hangs up is what many tests are about

    with Server(("127.0.0.1", 0), handler) as web:
        served.port = web.server_port
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            served.released.set()
            web.shutdown()
            thread.join()
