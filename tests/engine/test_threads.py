"""Threads of the engine are started in one place, which gives each a name and a guard against panics."""

from __future__ import annotations

import re
from pathlib import Path

RUST = Path(__file__).parents[2] / "rust"
HELPER = RUST / "mill-runtime" / "src" / "threads.rs"
POOL = RUST / "mill-frame" / "src" / "parallel.rs"
STARTS = re.compile(r"\bthread::spawn\b|\bthread::Builder\b|\bBuilder::new\(\)\.name\(|\bThreadPoolBuilder\b|\bthread::scope\b")
PARALLEL = re.compile(r"\.(into_)?par_(iter|iter_mut|sort\w*|chunks\w*)\(")

SCOPED = {RUST / "mill-connectors" / "src" / "csv" / "cut.rs"}
"""Threads that end within one call, which hands on their panics: nobody else could wait for them."""

BESIDE_CLIENTS = {RUST / "mill-connectors" / "src" / "client_thread.rs"}
"""Threads that take what a client library gives; whoever starts one waits for it, and it calls nothing of the runtime."""


def sources() -> list[Path]:
    """The code of the engine, without its tests."""
    return [path for path in RUST.rglob("src/**/*.rs") if path.name != "tests.rs" and "tests" not in path.parts]


def code(path: Path) -> str:
    """What is not a comment."""
    return "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))


def test_threads_are_started_in_one_place() -> None:
    found = {path for path in sources() if STARTS.search(code(path))}
    assert {HELPER, POOL} <= found, "the places that start threads are not where they were"
    assert found - {HELPER, POOL} - SCOPED - BESIDE_CLIENTS == set()


def test_parallel_work_uses_the_pool_that_a_forked_process_makes_anew() -> None:
    users = [path for path in sources() if PARALLEL.search(code(path))]
    assert users, "nothing works in parallel"
    assert [path for path in users if "on_all_cores(" not in code(path)] == []
