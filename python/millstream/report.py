"""What is told of a job: figures, state, and the report at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["JobStatus", "Metrics", "Report", "StepMetrics", "metrics_of", "report_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WATERMARK_MAX = 2**62


@dataclass(frozen=True)
class StepMetrics:
    """The figures of one step.

    Attributes
    ----------
    name
        The step.
    rows_in, rows_out
        Records taken and given.
    rows_late
        Records that came too late for their window.
    rows_skipped, rows_routed
        Records that failed and were left out, or went to ``.errors``.
    watermark
        How far event time has come; None before it has begun and after the end.
    checkpoint_bytes
        How much of its state the last checkpoint wrote.
    """

    name: str
    rows_in: int
    rows_out: int
    rows_late: int
    rows_skipped: int
    rows_routed: int
    watermark: datetime | None
    checkpoint_bytes: int


@dataclass(frozen=True)
class Metrics:
    """The figures of a run so far.

    Attributes
    ----------
    rows_in
        Records that the sources have given.
    rows_total
        How many they will give, where all of them know.
    rows_late, rows_skipped, rows_routed
        Records that came too late, were left out, or went to ``.errors``, over all steps.
    checkpoints_taken, checkpoints_failed
        How many checkpoints there were.
    checkpoint_bytes, checkpoint_duration
        What the last one wrote and how long it took.
    steps
        The figures of each step, in the order of the plan.
    """

    rows_in: int = 0
    rows_total: int | None = None
    rows_late: int = 0
    rows_skipped: int = 0
    rows_routed: int = 0
    checkpoints_taken: int = 0
    checkpoints_failed: int = 0
    checkpoint_bytes: int = 0
    checkpoint_duration: timedelta = timedelta(0)
    steps: list[StepMetrics] = field(default_factory=list)


@dataclass(frozen=True)
class Report(Metrics):
    """What a run that has ended has done; what :func:`run` and :meth:`Job.wait` give.

    Attributes
    ----------
    status
        ``"finished"`` (the input has ended), ``"stopped"`` or ``"cancelled"``.
    duration
        From start to end.
    restored
        The checkpoint it went on from, if any.
    checkpoint
        The last checkpoint, if any.
    notes
        What you should know: checkpoints that failed or were passed over, restarts.

    Examples
    --------
    >>> report = mill.run(mill.from_iter([1, 2]).for_each(lambda row: None))
    >>> report.status, report.rows_in
    ('finished', 2)
    """

    status: str = "finished"
    duration: timedelta = timedelta(0)
    restored: int | None = None
    checkpoint: int | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Tell it in a few lines."""
        seconds = self.duration.total_seconds()
        lines = [f"{self.status} after {seconds:,.2f} s: {self.rows_in:,} records read"]
        for count, what in ((self.rows_late, "late"), (self.rows_skipped, "skipped"), (self.rows_routed, "routed")):
            if count:
                lines[0] += f", {count:,} {what}"
        if self.restored is not None:
            lines.append(f"went on from checkpoint {self.restored}")
        if self.checkpoints_taken or self.checkpoints_failed:
            failed = f", {self.checkpoints_failed} failed" if self.checkpoints_failed else ""
            lines.append(f"{self.checkpoints_taken} checkpoints taken{failed}")
        width = max((len(step.name) for step in self.steps), default=0)
        lines.extend(f"  {step.name:<{width}}  {step.rows_in:>14,} in  {step.rows_out:>14,} out" for step in self.steps)
        lines.extend(f"note: {note}" for note in self.notes)
        return "\n".join(lines)


@dataclass(frozen=True)
class JobStatus:
    """How a job stands.

    Attributes
    ----------
    state
        ``"starting"``, ``"running"``, ``"restarting"``, ``"finished"``, ``"cancelled"`` or ``"failed"``; ``"elsewhere"`` in a
        process that was forked from the job's.
    restarts
        How often it was started again after a failure.
    notes
        What you should know so far.
    """

    state: str
    restarts: int
    notes: list[str]

    def __str__(self) -> str:
        """Give the state."""
        return self.state


def _metrics(figures: dict[str, Any]) -> dict[str, Any]:
    steps = []
    for step in figures["steps"]:
        watermark = step["watermark_us"]
        is_time = watermark is not None and abs(watermark) < _WATERMARK_MAX
        steps.append(
            StepMetrics(
                step["name"],
                step["rows_in"],
                step["rows_out"],
                step["rows_late"],
                step["rows_skipped"],
                step["rows_routed"],
                _time(watermark) if is_time else None,
                step["checkpoint_bytes"],
            )
        )
    return {
        "rows_in": figures["rows_in"],
        "rows_total": figures["rows_total"],
        "rows_late": sum(step.rows_late for step in steps),
        "rows_skipped": sum(step.rows_skipped for step in steps),
        "rows_routed": sum(step.rows_routed for step in steps),
        "checkpoints_taken": figures["checkpoints_taken"],
        "checkpoints_failed": figures["checkpoints_failed"],
        "checkpoint_bytes": figures["checkpoint_bytes"],
        "checkpoint_duration": timedelta(microseconds=figures["checkpoint_us"]),
        "steps": steps,
    }


def _time(watermark_us: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=watermark_us)
    except OverflowError:
        return None


def metrics_of(figures: dict[str, Any]) -> Metrics:
    """Give the metrics of a run from the engine's figures."""
    return Metrics(**_metrics(figures))


def report_of(figures: dict[str, Any]) -> Report:
    """Give the report of a run from the engine's figures."""
    return Report(
        **_metrics(figures),
        status=figures["status"],
        duration=timedelta(microseconds=figures["duration_us"]),
        restored=figures["restored"],
        checkpoint=figures["checkpoint"],
        notes=figures["notes"],
    )
