"""What a peer is asked for, and how it says that it cannot.

A peer's file imports nothing else of the harness. It has `ROWS`, the most rows it gets a job; `versions()`; and
`prepare(task)`, which loads the records, and gives a function: that function alone is timed, and what it gives goes to
`answer(result)` where the file has one, which makes an Arrow table of it for the comparison.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cannot", "Task"]


class Cannot(Exception):
    """The peer has no such job; the message says why in a few words."""


@dataclass(frozen=True)
class Task:
    """One job over some rows."""

    job: str
    rows: int
    threads: int
    folder: Path
    """Where the records lie."""
    scratch: Path
    """Where the peer may write; see `fresh`."""
    is_checked: bool = False
    """Whether the result is wanted, not the time."""
    checkpoint_seconds: float | None = None
    """How often state is saved; only for the job `checkpoint`, and there not for the run without."""

    def table(self, name: str, columns: list[str]) -> Any:
        """Give the first rows of `bids` or `drawn` as an Arrow table; repeat them if there are not as many."""
        import pyarrow as pa
        import pyarrow.parquet

        whole = pyarrow.parquet.read_table(self.folder / f"{name}.parquet", columns=columns)
        times = -(-self.rows // whole.num_rows)
        return pa.concat_tables([whole] * times).slice(0, self.rows)

    def file(self, name: str) -> Path:
        """Give the file with the first rows: `words.txt`, `bids.csv` or `bids.parquet`."""
        stem, _, suffix = name.partition(".")
        short = self.folder / f"{stem}-{self.rows}.{suffix}"
        return short if short.exists() else self.folder / name

    def fresh(self, name: str) -> Path:
        """Give an empty folder."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path
