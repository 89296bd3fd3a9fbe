"""What notebooks show: figures and jobs as HTML, and jobs that go on telling how they stand."""

from __future__ import annotations

import html
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from millstream._texts import counted
from millstream.report import RUNNING

if TYPE_CHECKING:
    from millstream.job import Job
    from millstream.report import Metrics, Report

__all__ = ["of_job", "of_metrics", "of_report", "show_live", "table"]

_UPDATE_SECONDS = 1.0


def table(names: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table; texts are escaped."""

    def cells(tag: str, values: Iterable[object]) -> str:
        return "".join(f"<{tag}>{html.escape(_text(value))}</{tag}>" for value in values)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    below = f"<small>{html.escape(note)}</small>" if note else ""
    return f"<table><thead><tr>{cells('th', names)}</tr></thead><tbody>{body}</tbody></table>{below}"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def of_metrics(metrics: Metrics, note: str = "") -> str:
    """Return the figures of each step, without columns that say nothing."""
    columns: list[tuple[str, list[Any]]] = [
        ("step", [step.name for step in metrics.steps]),
        ("in", [step.rows_in for step in metrics.steps]),
        ("out", [step.rows_out for step in metrics.steps]),
    ]
    for name in ("late", "skipped", "routed"):
        found = [getattr(step, f"rows_{name}") for step in metrics.steps]
        if any(found):
            columns.append((name, found))
    for name, title in (("truncations", "truncations"), ("bytes_lost", "bytes lost")):
        found = [getattr(step, name) for step in metrics.steps]
        if any(found):
            columns.append((title, found))
    watermarks = [step.watermark for step in metrics.steps]
    if any(watermark is not None for watermark in watermarks):
        columns.append(("watermark", [None if at is None else f"{at:%Y-%m-%d %H:%M:%S}" for at in watermarks]))
    state = [step.checkpoint_bytes for step in metrics.steps]
    if any(state):
        columns.append(("bytes in the last checkpoint", state))
    return table([name for name, _ in columns], zip(*(found for _, found in columns), strict=True), note)


def of_report(report: Report) -> str:
    """Return what a job has done."""
    head, *others = str(report).splitlines()
    told = [line for line in others if not line.startswith(" ")]
    lines = "".join(f"<br>{html.escape(line)}" for line in told)
    return f"<b>{html.escape(head)}</b>{lines}{of_metrics(report)}"


def of_job(job: Job, per_second: float | None = None) -> str:
    """Return the state and the figures of a job."""
    figures, status = job.metrics(), job.status
    speed = "" if per_second is None else f", {per_second:,.0f} a second"
    failed = f", {figures.checkpoints_failed:,} failed" if figures.checkpoints_failed else ""
    head = f"<b>Job</b> {html.escape(status.state)}: {counted(figures.rows_in, 'record')} read{speed}, {counted(figures.checkpoints_taken, 'checkpoint')}{failed}"
    told = "".join(f"<br>{html.escape(line)}" for line in ([] if status.error is None else [status.error]) + status.waits)
    return head + told + (of_metrics(figures) if figures.steps else "")


def show_live(job: Job) -> None:
    """Show a job in IPython; in a notebook it is shown anew each second, until it is over or nobody holds it any more."""
    from IPython import get_ipython
    from IPython.display import display

    def shown(per_second: float | None, of: Job) -> dict[str, str]:
        return {"text/plain": repr(of), "text/html": of_job(of, per_second)}

    handle: Any = display(shown(None, job), raw=True, display_id=True)  # type: ignore[no-untyped-call]
    # A terminal cannot replace what it has written.
    if handle is None or not hasattr(get_ipython(), "kernel"):
        return
    held = weakref.ref(job)
    del job

    def update() -> None:
        before, since = 0, time.monotonic()
        while True:
            time.sleep(_UPDATE_SECONDS)
            current = held()
            if current is None:
                return
            records, now = current.metrics().rows_in, time.monotonic()
            is_over = current.status.state not in RUNNING
            handle.update(shown(None if is_over else (records - before) / (now - since), current), raw=True)
            if is_over:
                return
            before, since = records, now
            del current

    threading.Thread(target=update, name="millstream-display", daemon=True).start()
