"""Metrics, status and report of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from millstream._moments import utc_moment
from millstream._texts import counted

__all__ = [
    "RUNNING",
    "Held",
    "JobStatus",
    "Metrics",
    "Overdue",
    "Paused",
    "Report",
    "StepMetrics",
    "metrics_of",
    "report_of",
    "say_failed",
    "say_held",
    "say_note",
    "waits_of",
]

_WATERMARK_MAX = 2**62

RUNNING = ("starting", "running", "restarting")
"""The states of a job that is not over."""


@dataclass(frozen=True)
class Held:
    """The split that has held back the watermark of a step for some seconds.

    Attributes
    ----------
    split
        The split: a file, a partition.
    watermark
        Its watermark; None if it has had no record.
    others
        The watermark of the others: further splits of the step, or inputs that it is merged with. None if no other is
        ahead.
    since
        How long the watermark has not moved.

    Examples
    --------
    >>> from datetime import datetime, timedelta, timezone
    >>> from millstream import Held
    >>> at = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    >>> str(Held("logs/b.json", at, at + timedelta(minutes=2), timedelta(seconds=7)))
    'logs/b.json holds it at 2024-01-01 12:00:00+00:00 for 7 s; others have come to 2024-01-01 12:02:00+00:00'
    """

    split: str
    watermark: datetime | None
    others: datetime | None
    since: timedelta

    def __str__(self) -> str:
        """Describe it in one line."""
        at = "before its first record" if self.watermark is None else f"at {self.watermark}"
        text = f"{self.split} holds it {at} for {self.since.total_seconds():.0f} s"
        return text if self.others is None else f"{text}; others have come to {self.others}"


@dataclass(frozen=True)
class Paused:
    """The splits of a step that pause because they are too far ahead; see :meth:`WatermarkStrategy.with_alignment`.

    Attributes
    ----------
    splits
        How many splits pause.
    split, watermark
        The split that will resume first, and its watermark.
    slowest, slowest_watermark
        The split that they wait for, and its watermark; None if it has had no record.

    Examples
    --------
    >>> from datetime import datetime, timedelta, timezone
    >>> from millstream import Paused
    >>> at = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    >>> str(Paused(2, "logs/b.json", at, "live", at - timedelta(hours=1)))
    '2 splits wait, first logs/b.json at 2024-01-01 12:00:00+00:00, for live at 2024-01-01 11:00:00+00:00'
    """

    splits: int
    split: str
    watermark: datetime | None
    slowest: str
    slowest_watermark: datetime | None

    def __str__(self) -> str:
        """Describe it in one line."""
        who = f"{self.split} at {self.watermark} waits" if self.splits == 1 else (
            f"{self.splits} splits wait, first {self.split} at {self.watermark},"
        )
        for_whom = "which has no watermark yet" if self.slowest_watermark is None else f"at {self.slowest_watermark}"
        return f"{who} for {self.slowest} {for_whom}"


@dataclass(frozen=True)
class Overdue:
    """A checkpoint that has taken more than ten times its interval, and more than a second, so far.

    Attributes
    ----------
    checkpoint
        Its number.
    since
        How long it has been in progress.
    waits_for
        The chains of steps that still process records from before it: the first and the last step of each. Empty while the
        checkpoint is being written.

    Examples
    --------
    >>> from datetime import timedelta
    >>> from millstream import Overdue
    >>> str(Overdue(3, timedelta(seconds=12), ["from_iter … for_each"]))
    'checkpoint 3 has been under way for 12.0 s; from_iter … for_each is still at work on what came before it'
    """

    checkpoint: int
    since: timedelta
    waits_for: list[str]

    def __str__(self) -> str:
        """Describe it in one line."""
        at = "it is still being written"
        if self.waits_for:
            at = f"{', '.join(self.waits_for)} is still at work on what came before it"
        return f"checkpoint {self.checkpoint} has been under way for {self.since.total_seconds():.1f} s; {at}"


@dataclass(frozen=True)
class StepMetrics:
    """The figures of one step.

    Attributes
    ----------
    name
        The name of the step.
    rows_in, rows_out
        How many records it has received and emitted.
    rows_late
        How many records were too late for their window.
    rows_skipped, rows_routed
        How many records failed and were dropped, or were sent to ``.errors``.
    truncations, bytes_lost
        Of a source with ``follow=True``: how often one of its files was truncated, and how many bytes were seen, had not been read by
        then, and are lost.
    watermark
        Its event time; None before the first watermark and after the end.
    checkpoint_bytes
        How many bytes of its state the last checkpoint wrote.
    held
        Of an ``event_time`` step over unbounded input: the split that has held the watermark for more than five seconds.
    paused
        Of an ``event_time`` step with alignment: the splits that pause.
    step
        The name that dead letters have. A step that runs in parts, such as an aggregation before and after records are
        exchanged between tasks, has figures for each part: ``"agg.input"``, ``"agg.partial"`` and ``"agg"`` of the step ``"agg"``.

    Examples
    --------
    >>> report = mill.run(mill.from_iter([1, 2, 3]).filter(col("value") > 1).for_each(lambda row: None))
    >>> [(step.name, step.rows_in, step.rows_out) for step in report.steps if step.name == "filter"]
    [('filter', 3, 2)]
    """

    name: str
    rows_in: int
    rows_out: int
    rows_late: int
    rows_skipped: int
    rows_routed: int
    watermark: datetime | None
    checkpoint_bytes: int
    held: Held | None = None
    paused: Paused | None = None
    step: str = ""
    truncations: int = 0
    bytes_lost: int = 0


@dataclass(frozen=True)
class QueueMetrics:
    """How full the queues between two chains of steps are.

    A queue that stays full shows backpressure: the steps after it cannot keep up, so those before it have to wait.

    Attributes
    ----------
    source, target
        The chains before and after it: the first and the last step of each.
    frames
        How many frames of records are in the fullest of the queues between their tasks.
    capacity
        How many frames a queue can hold.

    Examples
    --------
    >>> from millstream import QueueMetrics
    >>> QueueMetrics("read … parse", "totals", frames=6, capacity=8).fill
    0.75
    """

    source: str
    target: str
    frames: int
    capacity: int

    @property
    def fill(self) -> float:
        """How full the fullest queue is, from 0 to 1.

        Examples
        --------
        >>> from millstream import QueueMetrics
        >>> QueueMetrics("read … parse", "totals", frames=8, capacity=8).fill
        1.0
        """
        return self.frames / self.capacity


@dataclass(frozen=True)
class Metrics:
    """The figures of a job so far. After a failure with ``restart=``, those of steps count from the last start.

    Attributes
    ----------
    rows_in
        How many records the sources have emitted.
    rows_total
        How many records they will emit in all; None unless all sources know.
    rows_late, rows_skipped, rows_routed
        How many records were too late, dropped, or sent to ``.errors``, over all steps.
    truncations, bytes_lost
        How often followed files were truncated, and how many bytes were lost by that, over all sources.
    checkpoints_taken, checkpoints_failed
        How many checkpoints were taken, and how many failed.
    checkpoint_bytes, checkpoint_duration
        How many bytes the last checkpoint wrote, and how long it took.
    checkpoint_overdue
        The checkpoint in progress, if it has taken more than ten intervals.
    steps
        The figures of each step, in the order of the plan.
    queues
        How full the queues between steps are, for each place at which records pass to other tasks.

    Examples
    --------
    >>> job = mill.start(mill.from_iter([1, 2]).for_each(lambda row: None))
    >>> report = job.wait()
    >>> job.metrics().rows_in, job.metrics().checkpoints_failed
    (2, 0)
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
    checkpoint_overdue: Overdue | None = None
    steps: list[StepMetrics] = field(default_factory=list)
    queues: list[QueueMetrics] = field(default_factory=list)
    truncations: int = 0
    bytes_lost: int = 0

    @property
    def errors(self) -> dict[str, int]:
        """How many records failed in each step in which any failed, and were skipped or routed; by the name that dead letters have.

        Examples
        --------
        >>> numbers = mill.from_iter(["1", "x"]).select(n=col("value").cast(int)).name("parse")
        >>> mill.run(numbers.for_each(lambda row: None), on_error="skip").errors
        {'parse': 1}
        """
        counts: dict[str, int] = {}
        for step in self.steps:
            if step.rows_skipped or step.rows_routed:
                counts[step.step] = counts.get(step.step, 0) + step.rows_skipped + step.rows_routed
        return counts

    def to_prometheus(self) -> str:
        """Return the figures in the text format that Prometheus reads.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([1, 2]).filter(col("value") > 1).for_each(lambda row: None))
        >>> print(report.to_prometheus().splitlines()[2])
        millstream_records_read_total 2
        >>> [line for line in report.to_prometheus().splitlines() if 'step="filter"' in line][:2]
        ['millstream_step_records_in_total{step="filter"} 2', 'millstream_step_records_out_total{step="filter"} 1']
        """
        from millstream._prometheus import exposition

        return exposition(self)

    def _repr_html_(self) -> str:
        """Show the figures of each step in a notebook."""
        from millstream._html import of_metrics

        return of_metrics(self, f"{counted(self.rows_in, 'record')} read, {counted(self.checkpoints_taken, 'checkpoint')}")


@dataclass(frozen=True)
class Report(Metrics):
    """What a job that has ended has done; returned by :func:`run` and :meth:`Job.wait`.

    It has all attributes of :class:`Metrics`, too.

    Attributes
    ----------
    status
        ``"finished"`` (the input has ended), ``"stopped"`` or ``"cancelled"``.
    duration
        The time from start to end.
    restored
        The checkpoint that it continued from, if any.
    checkpoint
        The last checkpoint, if any.
    notes
        Things you should know: checkpoints that failed or were skipped, restarts, changes of the plan, followed files that were truncated.

    Examples
    --------
    >>> numbers = mill.from_iter(["1", "x"]).select(n=col("value").cast(int)).name("parse")
    >>> report = mill.run(numbers.for_each(lambda row: None), on_error="skip")
    >>> report.status, report.rows_in
    ('finished', 2)
    >>> [line for line in str(report).splitlines() if line.startswith("errors")]
    ['errors: 1 in parse']
    """

    status: str = "finished"
    duration: timedelta = timedelta(0)
    restored: int | None = None
    checkpoint: int | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Describe it in a few lines."""
        seconds = self.duration.total_seconds()
        lines = [f"{self.status} after {seconds:,.2f} s: {counted(self.rows_in, 'record')} read"]
        for count, what in ((self.rows_late, "late"), (self.rows_skipped, "skipped"), (self.rows_routed, "routed")):
            if count:
                lines[0] += f", {count:,} {what}"
        if self.bytes_lost:
            lines[0] += f", {counted(self.bytes_lost, 'byte')} lost by truncation"
        if self.restored is not None:
            lines.append(f"continued from checkpoint {self.restored}")
        if self.checkpoints_taken or self.checkpoints_failed:
            failed = f", {self.checkpoints_failed} failed" if self.checkpoints_failed else ""
            lines.append(f"{counted(self.checkpoints_taken, 'checkpoint')} taken{failed}")
        width = max((len(step.name) for step in self.steps), default=0)
        for step in self.steps:
            counts = ((step.rows_late, "late"), (step.rows_skipped, "skipped"), (step.rows_routed, "routed"))
            others = "".join(f"  {count:>10,} {what}" for count, what in counts if count)
            lines.append(f"  {step.name:<{width}}  {step.rows_in:>14,} in  {step.rows_out:>14,} out{others}")
        if self.errors:
            lines.append("errors: " + ", ".join(f"{count:,} in {step}" for step, count in self.errors.items()))
        lines.extend(f"note: {note}" for note in self.notes)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        from millstream._html import of_report

        return of_report(self)


@dataclass(frozen=True)
class JobStatus:
    """The current state of a job.

    Attributes
    ----------
    state
        ``"starting"``, ``"running"``, ``"restarting"``, ``"finished"``, ``"stopped"``, ``"cancelled"`` or ``"failed"``;
        ``"elsewhere"`` in a process that was forked from the job's.
    restarts
        How many times it was restarted after a failure; in mode ``"dedup"``, or one of its tasks was.
    notes
        What you should know so far.
    waits
        What the job waits for: a sentence for each ``event_time`` step whose watermark has not moved for some seconds, with
        the split that holds it, one for each step whose splits pause because they are too far ahead, and one for a
        checkpoint that has taken more than ten intervals. The same figures are in :attr:`StepMetrics.held`,
        :attr:`StepMetrics.paused` and :attr:`Metrics.checkpoint_overdue`.
    error
        Why the job has failed, once it has; None otherwise. :meth:`Job.wait` raises the error itself.

    Examples
    --------
    >>> job = mill.start(mill.from_iter([1]).for_each(lambda row: None))
    >>> report = job.wait()
    >>> print(job.status)
    finished
    >>> failing = mill.start(mill.from_iter([0]).map(lambda row: 1 // row.value, schema={"x": int}).for_each(print))
    >>> failing.ends(10.0)
    True
    >>> print(failing.status)
    failed: step "map": map(<lambda>) raised ZeroDivisionError: integer division or modulo by zero; record: {"value":0}
    """

    state: str
    restarts: int
    notes: list[str]
    waits: list[str] = field(default_factory=list)
    error: str | None = None

    def __str__(self) -> str:
        """Return the state, and why the job has failed or what it waits for."""
        state = self.state if self.error is None else f"{self.state}: {self.error}"
        return "; ".join([state, *self.waits])


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
                None if step["held"] is None else _held(*step["held"]),
                None if step["paused"] is None else _paused(*step["paused"]),
                step["step"],
                step["truncations"],
                step["bytes_lost"],
            )
        )
    return {
        "rows_in": figures["rows_in"],
        "rows_total": figures["rows_total"],
        "rows_late": sum(step.rows_late for step in steps),
        "rows_skipped": sum(step.rows_skipped for step in steps),
        "rows_routed": sum(step.rows_routed for step in steps),
        "truncations": sum(step.truncations for step in steps),
        "bytes_lost": sum(step.bytes_lost for step in steps),
        "checkpoints_taken": figures["checkpoints_taken"],
        "checkpoints_failed": figures["checkpoints_failed"],
        "checkpoint_bytes": figures["checkpoint_bytes"],
        "checkpoint_duration": timedelta(microseconds=figures["checkpoint_us"]),
        "checkpoint_overdue": None if figures["checkpoint_overdue"] is None else _overdue(*figures["checkpoint_overdue"]),
        "steps": steps,
        "queues": [QueueMetrics(*queue) for queue in figures["queues"]],
    }


def _time(watermark_us: int) -> datetime | None:
    try:
        return utc_moment(watermark_us)
    except OverflowError:
        return None


def _held(split: str, watermark_us: int | None, others_us: int | None, since_us: int) -> Held:
    times = [None if at is None else _time(at) for at in (watermark_us, others_us)]
    return Held(split, times[0], times[1], timedelta(microseconds=since_us))


def _paused(splits: int, split: str, watermark_us: int, slowest: str, slowest_us: int | None) -> Paused:
    return Paused(splits, split, _time(watermark_us), slowest, None if slowest_us is None else _time(slowest_us))


def _overdue(checkpoint: int, since_us: int, waits_for: list[str]) -> Overdue:
    return Overdue(checkpoint, timedelta(microseconds=since_us), waits_for)


def _sentence(step: str, held: Held) -> str:
    return f"the watermark of {step} waits: {held}"


def waits_of(metrics: Metrics) -> list[str]:
    """Return a sentence for each held watermark, for each step whose splits pause, and for an overdue checkpoint."""
    waits = [_sentence(step.name, step.held) for step in metrics.steps if step.held is not None]
    waits += [f"reading for {step.name} pauses: {step.paused}" for step in metrics.steps if step.paused is not None]
    return waits if metrics.checkpoint_overdue is None else [*waits, str(metrics.checkpoint_overdue)]


def say_held(step: str, held: tuple[str, int | None, int | None, int]) -> None:
    """Log that a split has held back the watermark of a step while others have come further."""
    import logging

    logging.getLogger("millstream").warning(_sentence(step, _held(*held)))


def say_note(text: str) -> None:
    """Log a note of a job, or what its start waits for."""
    import logging

    logging.getLogger("millstream").warning("%s", text)


def say_failed(text: str) -> None:
    """Log that a job in the background has failed."""
    import logging

    logging.getLogger("millstream").error("the job has failed: %s", text)


def metrics_of(figures: dict[str, Any]) -> Metrics:
    """Return the metrics of a run from the engine's figures."""
    return Metrics(**_metrics(figures))


def report_of(figures: dict[str, Any]) -> Report:
    """Return the report of a run from the engine's figures."""
    return Report(
        **_metrics(figures),
        status=figures["status"],
        duration=timedelta(microseconds=figures["duration_us"]),
        restored=figures["restored"],
        checkpoint=figures["checkpoint"],
        notes=figures["notes"],
    )
