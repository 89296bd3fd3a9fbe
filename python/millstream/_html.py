"""What notebooks show: figures and jobs as HTML, and jobs whose output is kept up to date."""

from __future__ import annotations

import html
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from millstream._texts import counted
from millstream.report import RUNNING

if TYPE_CHECKING:
    from millstream.job import Job
    from millstream.report import Metrics, Report, StepMetrics

__all__ = ["of_job", "of_jobs", "of_metrics", "of_report", "show_live", "table"]

_UPDATE_SECONDS = 1.0
_LOOK_SECONDS_MIN = 0.2
"""Between two looks that are closer, too little happens to tell a speed from."""
_looks: weakref.WeakKeyDictionary[Job, _Look] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Look:
    """What a job had done when it was looked at, and how fast it was before."""

    at: float
    metrics: Metrics
    rows: float
    """Records read a second."""
    steps: list[float]
    """Records a second of each step."""


def _look(job: Job, metrics: Metrics) -> _Look:
    """Return how fast a job has been since it was last looked at, or since its start."""
    now, before = time.monotonic(), _looks.get(job)
    began = job._started if before is None else before.at
    if before is not None and (now - began < _LOOK_SECONDS_MIN or len(before.steps) != len(metrics.steps)):
        return before
    seconds = max(now - began, 1e-3)
    former = [0] * len(metrics.steps) if before is None else [_taken(step) for step in before.metrics.steps]
    # Figures of a job that was restarted begin anew.
    steps = [max(0, _taken(step) - count) / seconds for step, count in zip(metrics.steps, former, strict=True)]
    rows = max(0, metrics.rows_in - (0 if before is None else before.metrics.rows_in)) / seconds
    look = _looks[job] = _Look(now, metrics, rows, steps)
    return look


def _taken(step: StepMetrics) -> int:
    """Return what a step has processed: a source receives nothing."""
    return step.rows_in or step.rows_out


def table(names: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table; texts are escaped, and on the left of their columns."""
    body = list(rows)
    is_text = [any(isinstance(row[place], str) for row in body) for place in range(len(names))]

    def cells(tag: str, values: Iterable[object]) -> str:
        begun = (f'<{tag} style="text-align:left">' if is_left else f"<{tag}>" for is_left in is_text)
        return "".join(f"{begin}{html.escape(_text(value))}</{tag}>" for begin, value in zip(begun, values, strict=True))

    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in body)
    below = f"<small>{html.escape(note)}</small>" if note else ""
    return f"<table><thead><tr>{cells('th', names)}</tr></thead><tbody>{lines}</tbody></table>{below}"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def of_metrics(metrics: Metrics, note: str = "", *, speeds: Sequence[float] | None = None, now: datetime | None = None) -> str:
    """Return the figures of each step, without columns that say nothing.

    Parameters
    ----------
    metrics
        The figures.
    note
        What is written below.
    speeds
        The records a second of each step, if they are known.
    now
        The time, for a job that runs: the lag of a watermark is how far it is behind.
    """
    columns: list[tuple[str, list[Any]]] = [
        ("step", [step.name for step in metrics.steps]),
        ("in", [step.rows_in for step in metrics.steps]),
        ("out", [step.rows_out for step in metrics.steps]),
    ]
    if speeds is not None:
        columns.append(("records/s", [round(speed) for speed in speeds]))
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
        if now is not None:
            columns.append(("lag", [None if at is None else _span((now - at).total_seconds()) for at in watermarks]))
    state = [step.checkpoint_bytes for step in metrics.steps]
    if any(state):
        columns.append(("bytes in the last checkpoint", state))
    return table([name for name, _ in columns], zip(*(found for _, found in columns), strict=True), note)


def _span(seconds: float) -> str:
    size = abs(seconds)
    if size < 90:
        return f"{seconds:.1f} s"
    if size < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if size < 48 * 3600 else f"{seconds / 86_400:,.0f} days"


def _lag(metrics: Metrics, now: datetime) -> str | None:
    """Return how far the slowest watermark of a job is behind."""
    watermarks = [step.watermark for step in metrics.steps if step.watermark is not None]
    return _span((now - min(watermarks)).total_seconds()) if watermarks else None


def of_report(report: Report) -> str:
    """Return what a job has done."""
    head, *others = str(report).splitlines()
    told = [line for line in others if not line.startswith(" ")]
    lines = "".join(f"<br>{html.escape(line)}" for line in told)
    return f"<b>{html.escape(head)}</b>{lines}{of_metrics(report)}"


def of_job(job: Job) -> str:
    """Return the state and the figures of a job."""
    figures, status = job.metrics(), job.status
    now = datetime.now(timezone.utc)
    look = _look(job, figures) if status.state in RUNNING else None
    said = [f"{counted(figures.rows_in, 'record')} read"]
    if look is not None:
        said.append(f"{look.rows:,.0f} a second")
        if (lag := _lag(figures, now)) is not None:
            said.append(f"lag {lag}")
    said.append(counted(figures.checkpoints_taken, "checkpoint"))
    if figures.checkpoints_failed:
        said.append(f"{figures.checkpoints_failed:,} failed")
    head = f"<b>Job</b> {html.escape(status.state)}: {', '.join(said)}"
    if job._directory is not None:
        head += f"<br>state directory <code>{html.escape(job._directory)}</code>"
    if job.url is not None and look is not None:
        head += f'<br><a href="{html.escape(job.url)}" target="_blank">{html.escape(job.url)}</a>'
    told = "".join(f"<br>{html.escape(line)}" for line in ([] if status.error is None else [status.error]) + status.waits)
    if look is None:
        return head + told + (of_metrics(figures) if figures.steps else "")
    return head + told + (of_metrics(figures, speeds=look.steps, now=now) if figures.steps else "")


def of_jobs(jobs: Sequence[Job]) -> str:
    """Return a row for each job."""
    names = ("steps", "state", "started", "records read", "records/s", "lag", "checkpoints", "state directory", "page")
    rows = []
    for job in jobs:
        figures, state = job.metrics(), job.status.state
        now = datetime.now(timezone.utc)
        look = _look(job, figures) if state in RUNNING else None
        ends = [figures.steps[place].name for place in (0, -1)] if figures.steps else []
        speed = None if look is None else round(look.rows)
        since = f"{_span(time.monotonic() - job._started)} ago"
        rows.append(
            (" … ".join(ends), state, since, figures.rows_in, speed, _lag(figures, now), figures.checkpoints_taken, job._directory, job.url)
        )
    # Without columns in which no job has anything.
    shown = [place for place in range(len(names)) if not rows or any(row[place] is not None for row in rows)]
    return table([names[place] for place in shown], ([row[place] for place in shown] for row in rows))


def show_live(job: Job) -> None:
    """Show a job in IPython; in a notebook it is shown anew each second, until it is over or nobody holds it any more."""
    from IPython import get_ipython
    from IPython.display import display

    def shown(of: Job) -> dict[str, str]:
        return {"text/plain": repr(of), "text/html": of_job(of)}

    handle: Any = display(shown(job), raw=True, display_id=True)  # type: ignore[no-untyped-call]
    # A terminal cannot replace what it has written.
    if handle is None or not hasattr(get_ipython(), "kernel"):
        return
    held = weakref.ref(job)
    del job

    def update() -> None:
        is_over = False
        while not is_over:
            time.sleep(_UPDATE_SECONDS)
            current = held()
            if current is None:
                return
            is_over = current.status.state not in RUNNING
            handle.update(shown(current), raw=True)
            del current

    threading.Thread(target=update, name="millstream-display", daemon=True).start()
