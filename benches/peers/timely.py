"""timely dataflow: a program in Rust (`timely/`), with two workers that exchange records by key.

It is a library for dataflows: tables of keys and windows are written by hand there, and nothing is saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from program import Program
from task import Cannot, Task

ROWS: dict[str, int] = {}
_program = Program()
_WITHOUT = {
    "checkpoint": "it has no checkpoints",
    "parquet": "it reads no files",
    "csv": "it reads no files",
    "lambda": "no functions in Python",
    "batch": "no functions in Python",
}


def versions() -> dict[str, str]:
    """Say what this is."""
    locked = (Path(__file__).parent / "timely" / "Cargo.lock").read_text(encoding="utf-8")
    found = re.search(r'name = "timely"\nversion = "([^"]+)"', locked)
    return {"timely": found[1] if found else "?"}


def extras() -> dict[str, Any]:
    """Give the seconds as the program measured them."""
    seconds, _program.seconds = _program.seconds, 0.0
    return {"seconds": seconds} if seconds else {}


def prepare(task: Task) -> Callable[[], Any]:
    """Say what to run."""
    if task.job in _WITHOUT:
        raise Cannot(_WITHOUT[task.job])
    return _program.job(task, task.file("words.txt") if task.job == "words" else None)
