"""A job of the engine as a process of its own, that tests wait for or kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["SECONDS_MAX", "Job"]

SECONDS_MAX = 120
"""How long a job may take to end."""


class Job:
    """A job as a process. Its output is appended to ``work/log``."""

    def __init__(self, script: Path, work: Path, *arguments: object, fail_point: str | None = None) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._log = work / "log"
        environment = {**os.environ, **({} if fail_point is None else {"MILLSTREAM_FAIL_POINT": fail_point})}
        with self._log.open("ab") as log:
            command = [sys.executable, str(script), *map(str, arguments)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def said(self) -> str:
        """Return the end of its output."""
        return self._log.read_text()[-3000:]

    def finish(self) -> None:
        """Wait for a good end."""
        assert self.process.wait(SECONDS_MAX) == 0, self.said()

    def ends_within(self, seconds: float) -> bool:
        """Return whether it ends in time, well or not."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill it by SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
