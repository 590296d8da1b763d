"""An S3 server that checks signatures, and what it takes to reach it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import (
    PROGRAMS,
    accepts_connections,
    find_free_port,
    make_environment,
    run_server,
)

KEY = "AKIATAXIDURATION"
SECRET = "the-secret-of-the-taxi-bucket"
BUCKET = "taxi"


@dataclass(frozen=True)
class S3Server:
    """A running server; its buckets are the directories in `root`."""

    endpoint: str
    root: Path

    @property
    def bucket(self) -> Path:
        return self.root / BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """What `create-s3-blocks` asks for."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "TAXI_DURATION_S3_BUCKET": BUCKET,
        }


@contextmanager
def serve_s3(directory: Path) -> Iterator[S3Server]:
    """Serve one empty bucket."""
    port = find_free_port()
    server = S3Server(f"http://127.0.0.1:{port}", directory / "buckets")
    server.bucket.mkdir(parents=True)
    # So that rclone sees what a test puts into the directory; at 0 its clean-up of the cache
    # schedules itself without a pause and starves the server (1.75).
    command = [
        PROGRAMS / "rclone", "serve", "s3", server.root, "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{KEY},{SECRET}", "--config", "/dev/null",
        "--dir-cache-time", "5ms", "--vfs-cache-mode", "off",
    ]  # fmt: skip
    log = directory / "log"
    with run_server(command, make_environment(), log, lambda: accepts_connections(port)):
        yield server
