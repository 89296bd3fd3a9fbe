"""HTTP servers that tests write themselves: on a free loopback port, a thread a connection."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Answers", "Loopback"]


class Answers(BaseHTTPRequestHandler):
    """Answers requests over connections that stay; one that is cut off is no error. Says nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        """Answer, unless nobody is there."""
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


class Loopback:
    """A server that answers until it is stopped."""

    def __init__(self, answers: type[Answers]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), answers)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        """Stop it; what is behind it stays."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
