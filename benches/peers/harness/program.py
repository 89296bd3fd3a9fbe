"""Talks to a peer that is a program of its own, with a line a job (see `benches/loop/src/serve.rs`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from task import Task

__all__ = ["PROGRAM", "Program"]

PROGRAM = "MILL_PEER_PROGRAM"
"""The variable with the path of the program."""


class Program:
    """A child process that takes jobs until it is closed."""

    def __init__(self, *arguments: str) -> None:
        self._command = [os.environ[PROGRAM], *arguments]
        self._child: subprocess.Popen[str] | None = None
        self.seconds = 0.0

    def job(self, task: Task, text: Path | None = None) -> Callable[[], Any]:
        """Give what runs a job; its result is a table if it is to be checked."""
        result = task.fresh("result") / "column" if task.is_checked else ""
        fields = [task.job, task.rows, task.folder, text or "", result]
        return lambda: self._run("\t".join(str(field) for field in fields), Path(result).parent if result else None)

    def _run(self, line: str, folder: Path | None) -> Any:
        if self._child is None:
            self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(line + "\n")
        reply = self._child.stdout.readline().strip()
        if not reply or reply.startswith("error"):
            raise RuntimeError(reply.removeprefix("error ") or "the program ended")
        self.seconds = float(reply)
        return _table(folder) if folder else None


def _table(folder: Path) -> Any:
    import numpy as np

    import pyarrow as pa

    columns: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        _, name, kind = path.name.split(".")
        if kind == "txt":
            columns[name] = path.read_text(encoding="utf-8").splitlines()
        else:
            columns[name] = np.fromfile(path, np.int64 if kind == "i64" else np.float64)
    return pa.table(columns)
