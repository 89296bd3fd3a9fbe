"""A real Redis server for tests, on a free loopback port, with its data in a temporary folder, and a client that owes the sink nothing.

    python tests/servers/redis_server.py PORT      runs a server until Ctrl-C, to try things by hand
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START_SECONDS_MAX = 60

CONF = """\
bind 127.0.0.1
port {port}
dir {folder}
appendonly {appendonly}
appendfsync always
save ""
"""


def missing() -> str | None:
    """Say what is missing to run a server, or give None."""
    return None if shutil.which("redis-server") else "no Redis: install the package redis-server"


class Server:
    """A server that keeps what it has confirmed, unless told otherwise."""

    def __init__(self, port: int | None = None, *, is_durable: bool = True) -> None:
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="millstream-redis-"))
        self._is_durable = is_durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Server:
        """Start it, with the data that it has."""
        conf = self.folder / "redis.conf"
        conf.write_text(CONF.format(port=self.port, folder=self.folder, appendonly="yes" if self._is_durable else "no"))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", str(conf)], stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                if self.ask("PING") == b"PONG":
                    return self
            except (OSError, RuntimeError):
                pass
            assert self._process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.02)

    def ask(self, *words: str | bytes | int) -> Any:
        """Run a command; give its answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            given = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(given) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in given))
            with connection.makefile("rb") as answer:
                return _answer(answer)

    def hash(self, key: str | bytes) -> dict[str, str]:
        """Give the fields of a hash."""
        found = [each.decode() for each in self.ask("HGETALL", key)]
        return dict(zip(found[::2], found[1::2], strict=True))

    def entries(self, name: str) -> list[dict[str, str]]:
        """Give the entries of a stream."""
        fields = [[each.decode() for each in entry[1]] for entry in self.ask("XRANGE", name, "-", "+")]
        return [dict(zip(each[::2], each[1::2], strict=True)) for each in fields]

    def suspend(self) -> None:
        """Let it answer nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answer(stream: Any) -> Any:
    line = stream.readline()
    if not line:
        raise OSError("no answer")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    return None if rest == b"-1" else [_answer(stream) for _ in range(int(rest))]


if __name__ == "__main__":
    server = Server(int(sys.argv[1]) if len(sys.argv) > 1 else None).start()
    print(server.url)
    try:
        signal.pause()
    finally:
        server.stop()
