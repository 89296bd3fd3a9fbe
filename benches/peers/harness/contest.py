"""Runs the jobs: each peer's result is checked, then those that are right are timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import data
from environment import OURS
from jobs import Job, Oracle, difference
from worker import Failed, Worker

__all__ = ["Cell", "Contest"]

ROWS_DEFAULT = 10_000_000
_CHECK_SECONDS_MAX = 120.0
_RUN_SECONDS_MAX = 60.0


@dataclass
class Cell:
    """What came of one peer's job."""

    peer: str
    job: str
    rows: int
    records: int = 0
    """What the rate counts: rows, or words."""
    seconds: list[float] = field(default_factory=list)
    seconds_without: list[float] = field(default_factory=list)
    """The same without checkpoints."""
    checkpoints: int | None = None
    """How many the last run wrote, or of how many files its state was; None if not known."""
    note: str = ""
    """Why there is no figure: `none: ...`, `wrong: ...`, `killed ...`, `failed: ...`."""

    @property
    def rate(self) -> float | None:
        """Give records a second."""
        return self.records / statistics.median(self.seconds) if self.seconds and not self.note else None

    @property
    def share(self) -> float | None:
        """Give the rate with checkpoints as a share of that without."""
        if not self.seconds or not self.seconds_without or self.note:
            return None
        return statistics.median(self.seconds_without) / statistics.median(self.seconds)


class Contest:
    """All jobs of a run, over the records of one folder."""

    def __init__(self, folder: Path, scratch: Path, rows: int, threads: int, runs: int, tell: Callable[[str], None]) -> None:
        self.folder, self.scratch, self.rows, self.threads, self.runs, self.tell = folder, scratch, rows, threads, runs, tell
        self._oracle = Oracle(folder)
        self._lines = data.lines_of(folder / "words.txt")

    def run(self, job: Job, workers: Sequence[Worker], failed: dict[str, str]) -> list[Cell]:
        """Run a job on all; `failed` says of peers that could not be made why."""
        cells, ready = [], []
        for worker in workers:
            if worker.name in failed:
                cells.append(Cell(worker.name, job.name, 0, note=f"none: {failed[worker.name]}"))
                continue
            cell = Cell(worker.name, job.name, self._rows(worker, job))
            cells.append(cell)
            self._check(job, worker, cell)
            if cell.note:
                self.tell(f"{job.name}: {worker.name}: {cell.note}")
            else:
                ready.append((worker, cell))
        for _ in range(self.runs):
            for worker, cell in ready:
                self._time(job, worker, cell)
        return cells

    def _rows(self, worker: Worker, job: Job) -> int:
        """Give how many rows a peer gets: those it says, made fewer or more as ours are."""
        worker.start()
        whole = self._lines if job.name == "words" else self.rows
        limit = worker.hello["rows"].get(job.name, ROWS_DEFAULT)
        if job.name == "checkpoint" and limit > ROWS_DEFAULT:
            return limit // ROWS_DEFAULT * self.rows
        return min(whole, limit)

    def _request(self, job: Job, cell: Cell, **more: Any) -> dict[str, Any]:
        request = {"job": job.name, "rows": cell.rows, "threads": self.threads, "folder": str(self.folder), "scratch": str(self.scratch / cell.peer)}
        return request | {"checkpoint_seconds": 1.0 if job.name == "checkpoint" else None} | more

    def _check(self, job: Job, worker: Worker, cell: Cell) -> None:
        """Run once, and compare."""
        whole = self._lines if job.name == "words" else self.rows
        text = None
        if "." in job.file:
            text = data.shorten(self.folder, job.file, cell.rows) if cell.rows < whole else self.folder / job.file
        path = self.scratch / "result.arrow"
        try:
            reply = worker.ask(self._request(job, cell, is_checked=True, result=str(path)), _CHECK_SECONDS_MAX)
        except Failed as reason:
            cell.note = str(reason)
            return
        if "seconds" not in reply:
            cell.note = f"none: {reply['none']}" if "none" in reply else f"failed: {reply['error']}"
            return
        right = self._oracle.answer(job, cell.rows, text if job.name == "words" else None)
        cell.records = int(right["n"].sum()) if job.name == "words" else cell.rows
        wrong = difference(job, right, path)
        cell.note = f"wrong: {wrong}" if wrong else ""

    def _time(self, job: Job, worker: Worker, cell: Cell) -> None:
        """Run once by the clock; for checkpoints, once without before."""
        if cell.note:
            return
        try:
            if job.name == "checkpoint":
                without = worker.ask(self._request(job, cell, checkpoint_seconds=None), _RUN_SECONDS_MAX)
                cell.seconds_without.append(without["seconds"])
            reply = worker.ask(self._request(job, cell), _RUN_SECONDS_MAX)
            cell.seconds.append(reply["seconds"])
        except Failed as reason:
            cell.note = str(reason)
            return
        except KeyError:
            cell.note = "failed: only when timed"
            return
        cell.checkpoints = reply.get("checkpoints", cell.checkpoints)
        if cell.checkpoints == 0 and cell.seconds[-1] > 2:
            cell.note = f"none: no state was saved in {cell.seconds[-1]:.1f} s"


def ours(cells: Sequence[Cell]) -> Cell | None:
    """Give the engine's own cell."""
    return next((cell for cell in cells if cell.peer == OURS), None)
