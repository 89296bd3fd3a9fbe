"""How far a job is, drawn with rich in a terminal and in a notebook; imported only when someone watches."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from millstream._texts import counted

if TYPE_CHECKING:
    from millstream.report import Metrics, Report

__all__ = ["Display"]

_PATIENCE_SECONDS = 1.0


class Display:
    """A line with records, records a second, and a bar where the end is known."""

    def __init__(self, *, is_patient: bool) -> None:
        self._shown_after = time.monotonic() + (_PATIENCE_SECONDS if is_patient else 0.0)
        self._progress: Any = None
        self._task: Any = None

    @staticmethod
    def is_watched() -> bool:
        """Return whether someone looks at the output: a terminal, or a notebook."""
        return bool(getattr(sys.stderr, "isatty", lambda: False)()) or "ipykernel" in sys.modules

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last line standing."""
        if self._progress is not None:
            self._progress.stop()

    def _draw(self, metrics: Metrics) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.fields[rows]}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=metrics.rows_total, rows="", note="")
        note = counted(metrics.checkpoints_taken, "checkpoint") if metrics.checkpoints_taken else ""
        if metrics.checkpoints_failed:
            note += f", {metrics.checkpoints_failed} failed"
        if (overdue := metrics.checkpoint_overdue) is not None:
            note += f"{', ' if note else ''}the next one overdue, {overdue.since.total_seconds():.0f} s so far"
        rows = counted(metrics.rows_in, "record")
        self._progress.update(self._task, total=metrics.rows_total, completed=metrics.rows_in, rows=rows, note=note)

    def update(self, metrics: Metrics) -> None:
        """Show figures, once it has taken long enough to be worth it."""
        if time.monotonic() >= self._shown_after:
            self._draw(metrics)

    def finish(self, report: Report) -> None:
        """Show the final figures, if any were shown, or if someone asked for them."""
        if self._progress is not None or time.monotonic() >= self._shown_after:
            self._draw(report)
