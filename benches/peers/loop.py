"""A hand-written Rust loop on one thread (`benches/loop`): what the job costs without any engine.

For the Python lambda a record, the loop is CPython's own: a list comprehension that calls it over ready-made numbers.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from program import Program
from task import Cannot, Task

ROWS = {"lambda": 5_000_000}
_program = Program("serve")
_FILES = {"words": "words.txt", "csv": "bids.csv"}
_WITHOUT = {"checkpoint": "a loop has no checkpoints", "parquet": "no reader by hand", "batch": "that is one call of pyarrow"}


def versions() -> dict[str, str]:
    """Say what compiled it."""
    return {"rustc": subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False).stdout.split()[1]}


def extras() -> dict[str, Any]:
    """Give the seconds as the program measured them."""
    seconds, _program.seconds = _program.seconds, 0.0
    return {"seconds": seconds} if seconds else {}


def prepare(task: Task) -> Callable[[], Any]:
    """Say what to run."""
    if task.job in _WITHOUT:
        raise Cannot(_WITHOUT[task.job])
    if task.job == "lambda":
        prices = task.table("bids", ["price"])["price"].to_pylist()
        cheaper = lambda price: price * 0.908
        return lambda: {"price": [cheaper(price) for price in prices]}
    return _program.job(task, task.file(_FILES[task.job]) if task.job in _FILES else None)
