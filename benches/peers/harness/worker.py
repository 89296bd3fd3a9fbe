"""A peer's process: asked over pipes, killed when it hangs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from environment import Environment

__all__ = ["Failed", "Worker"]

_START_SECONDS_MAX = 180.0


class Failed(Exception):
    """The process said no, ended, or was killed after the limit."""


class Worker:
    """Starts the process when it is asked the first time, and again after it has failed."""

    def __init__(self, name: str, found: Environment, threads: int, log: Path) -> None:
        self.name = name
        self.hello: dict[str, Any] = {}
        self._environment = found
        self._threads = threads
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def start(self) -> None:
        """Start the process, and hear what it is."""
        if self._child is not None:
            return
        limits = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "ARROW_NUM_THREADS", "RAYON_NUM_THREADS", "PATHWAY_THREADS", "TIMELY_THREADS")
        variables = {**os.environ, **self._environment.variables, **dict.fromkeys(limits, str(self._threads))}
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [str(self._environment.python), str(Path(__file__).with_name("serve.py")), self.name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=variables, start_new_session=True,
            )
        self._pending = b""
        self.hello = self._reply(_START_SECONDS_MAX)
        self._signal(signal.SIGSTOP)

    def ask(self, request: dict[str, Any], seconds_max: float) -> dict[str, Any]:
        """Run one job. Before and after it the process stands still: some peers' threads are busy with waiting."""
        self.start()
        assert self._child and self._child.stdin
        self._signal(signal.SIGCONT)
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            self._ended()
        reply = self._reply(seconds_max)
        self._signal(signal.SIGSTOP)
        return reply

    def close(self) -> None:
        """End the process and what it has started."""
        if self._child is None:
            return
        self._signal(signal.SIGCONT)
        child, self._child = self._child, None
        assert child.stdin and child.stdout
        child.stdin.close()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        child.stdout.close()

    def _reply(self, seconds_max: float) -> dict[str, Any]:
        assert self._child and self._child.stdout
        limit = time.monotonic() + seconds_max
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._child.stdout], [], [], max(0.0, limit - time.monotonic()))
            if not ready:
                self._kill()
                raise Failed(f"killed after {seconds_max:.0f} s")
            got = os.read(self._child.stdout.fileno(), 1 << 16)
            if not got:
                self._ended()
            self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _signal(self, number: signal.Signals) -> None:
        """Tell the process and what it has started."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def _kill(self) -> None:
        if self._child:
            os.killpg(self._child.pid, signal.SIGKILL)
        self.close()

    def _ended(self) -> None:
        code = self._child.wait() if self._child else 0
        self.close()
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["without a word"]
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        print(f"{self.name}: {last[0]}", file=sys.stderr)
        raise Failed(f"the process ended: {reason}")


