"""The HTTP endpoint of a job: its health, its figures, and a page that shows them.

::

    GET /         a page that shows the job, from the package itself: it fetches nothing from elsewhere
    GET /health   200 and the state as JSON while the job runs, 503 otherwise
    GET /metrics  the figures of the job and of the process in Prometheus' text format
    GET /job      the figures as JSON, for the page
    GET /graph    the plan as SVG

It only reads. It has no access control, so it listens on the loopback interface unless told otherwise, and there it answers only requests
that name that interface, so that no page of another site can read it through a browser.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import socket
import threading
import time
import weakref
from dataclasses import asdict
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream._process_figures import process_figures
from millstream.errors import PlanError
from millstream.report import RUNNING

if TYPE_CHECKING:
    from millstream._graph import Graph
    from millstream.job import Job

__all__ = ["Endpoint", "address"]

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):)?(?P<port>\d{1,5})")
_PORT_MAX = 65535
_POLL_SECONDS = 0.05
"""How often the server looks whether it is to end."""
_LOG = logging.getLogger("millstream.http")
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6" fill="none" stroke="#4c8dd6" stroke-width="3"/>'
    '<path d="M8 0v16M0 8h16" stroke="#4c8dd6" stroke-width="1.5"/></svg>'
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def address(given: object) -> tuple[str, int]:
    """Return the host and port of ``"127.0.0.1:8080"``, ``":8080"`` or ``8080``."""
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    found = _ADDRESS.fullmatch(text.removeprefix(":")) if isinstance(text, str) else None
    if found is None or int(found["port"]) > _PORT_MAX:
        raise PlanError(f'http is a port or an address such as "127.0.0.1:8080", not {given!r:.100}')
    return (found["host"] or "127.0.0.1").strip("[]"), int(found["port"])


class Endpoint:
    """Serves one job, on threads of its own, until it is closed."""

    def __init__(self, host: str, port: int, graph: Graph) -> None:
        self._graph = graph
        self._job: weakref.ref[Job] | None = None
        try:
            server = _Server if ":" not in host else _ServerV6
            self._server = server((host, port), functools.partial(_Handler, self))
        except OSError as error:
            place = f"{_shown(host)}:{port}"
            raise PlanError(f"http={place!r}: cannot listen there: {error.strerror or error}; port 0 takes one that is free") from error
        self.hosts = {*_LOOPBACK, host} if host in _LOOPBACK else None
        self.port = self._server.server_address[1]
        self.url = f"http://{_shown(host)}:{self.port}"
        self._began = time.monotonic()
        self._is_closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="millstream-http", daemon=True)
        self._thread.start()

    def show(self, job: Job) -> None:
        """Serve this job from here on; the endpoint does not keep it alive."""
        self._job = weakref.ref(job)

    def close(self) -> None:
        """Listen no more. Finalizers call this, so it never waits for a thread that cannot end."""
        if self._is_closed:
            return
        self._is_closed = True
        if os.getpid() != self._process:
            # In a forked child, which has a copy of the socket, and not the thread.
            self._server.server_close()
        elif threading.current_thread() is self._thread:
            # The garbage collector calls finalizers on any thread.
            threading.Thread(target=self._end, name="millstream-http-end", daemon=True).start()
        else:
            self._end()

    def _end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, str]:
        """Return the status, the type and the text of an answer."""
        job = None if self._job is None else self._job()
        state = "starting" if self._job is None else "cancelled" if job is None else job.status.state
        match path:
            case "/":
                return 200, "text/html", (Path(__file__).parent / "_dashboard.html").read_text()
            case "/favicon.ico":
                return 200, "image/svg+xml", _ICON
            case "/health":
                failed = None if job is None else job.status.error
                health = {"status": state} if failed is None else {"status": state, "error": failed}
                return (200 if state in RUNNING else 503), "application/json", json.dumps(health)
            case "/graph":
                return 200, "image/svg+xml", self._graph._repr_svg_()
            case "/metrics":
                running = f"# HELP millstream_up Whether the job runs.\n# TYPE millstream_up gauge\nmillstream_up {int(state in RUNNING)}\n"
                figures = "" if job is None else job.metrics().to_prometheus()
                return 200, "text/plain; version=0.0.4", running + figures + process_figures()
            case "/job":
                return 200, "application/json", json.dumps(self._figures(job, state), default=_plain)
        return 404, "text/plain", "there is /, /health, /metrics, /job and /graph\n"

    def _figures(self, job: Job | None, state: str) -> dict[str, Any]:
        figures: dict[str, Any] = {"state": state, "seconds": time.monotonic() - self._began, "now": time.time()}
        if job is not None:
            status = job.status
            figures |= {
                "restarts": status.restarts,
                "error": status.error,
                "notes": status.notes,
                "waits": status.waits,
                "metrics": asdict(job.metrics()),
            }
        return figures


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Log what went wrong, such as a client that went away, where who debugs sees it, not on stderr."""
        _LOG.debug("a request of %s failed", client_address, exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server_version = "millstream"
    sys_version = ""
    timeout = 10

    def __init__(self, endpoint: Endpoint, *arguments: Any) -> None:
        self._endpoint = endpoint
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer with what is asked for."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
        if self._endpoint.hosts is not None and host not in self._endpoint.hosts:
            status, kind, text = 403, "text/plain", "this endpoint answers requests to the loopback interface\n"
        else:
            status, kind, text = self._endpoint.answer(self.path.split("?")[0])
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind != "image/svg+xml" else kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log requests where who debugs sees them, not on stderr."""
        _LOG.debug(format, *arguments)
