"""Figures of a job in Prometheus' text format, version 0.0.4.

Names follow the conventions of Prometheus: the unit at the end, ``_total`` for what only grows while the job runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.report import Metrics, StepMetrics

__all__ = ["exposition", "head", "label"]


def exposition(metrics: Metrics) -> str:
    """Return the figures as text."""
    return "".join(f"{line}\n" for line in _lines(metrics))


def _lines(metrics: Metrics) -> Iterator[str]:
    yield from _metric("records_read_total", "Records read by all sources.", metrics.rows_in)
    yield from _metric("checkpoints_completed_total", "Checkpoints taken.", metrics.checkpoints_taken)
    yield from _metric("checkpoints_failed_total", "Checkpoints that failed.", metrics.checkpoints_failed)
    yield from _metric("checkpoint_size_bytes", "Bytes written by the last checkpoint.", metrics.checkpoint_bytes)
    seconds = metrics.checkpoint_duration.total_seconds()
    yield from _metric("checkpoint_duration_seconds", "How long the last checkpoint took.", seconds)
    steps = metrics.steps
    yield from _of_steps("step_records_in_total", "Records received.", ((step, step.rows_in) for step in steps))
    yield from _of_steps("step_records_out_total", "Records emitted.", ((step, step.rows_out) for step in steps))
    yield from _of_steps("step_records_late_total", "Records too late for their window.", ((step, step.rows_late) for step in steps))
    yield from _of_steps("step_records_skipped_total", "Records that failed and were dropped.", ((step, step.rows_skipped) for step in steps))
    yield from _of_steps("step_records_routed_total", "Records that failed and went to .errors.", ((step, step.rows_routed) for step in steps))
    yield from _of_steps("step_truncations_total", "Times that a followed file was truncated.", ((step, step.truncations) for step in steps))
    yield from _of_steps("step_lost_bytes_total", "Bytes truncated before they were read.", ((step, step.bytes_lost) for step in steps))
    yield from _of_steps("step_checkpoint_size_bytes", "Bytes of state in the last checkpoint.", ((step, step.checkpoint_bytes) for step in steps))
    yield from _head("queue_fill_ratio", "How full the queues between two chains of steps are.")
    for queue in metrics.queues:
        yield f'millstream_queue_fill_ratio{{source="{label(queue.source)}",target="{label(queue.target)}"}} {queue.fill}'
    times = ((step, step.watermark.timestamp()) for step in steps if step.watermark is not None)
    yield from _of_steps("step_watermark_timestamp_seconds", "Event time of the step, in seconds from 1970.", times)


def _metric(name: str, meaning: str, value: float) -> Iterator[str]:
    yield from _head(name, meaning)
    yield f"millstream_{name} {value}"


def _of_steps(name: str, meaning: str, values: Iterable[tuple[StepMetrics, float]]) -> Iterator[str]:
    yield from _head(name, meaning)
    for step, value in values:
        yield f'millstream_{name}{{step="{label(step.name)}"}} {value}'


def label(text: str) -> str:
    """Return the value of a label as it is written.

    Examples
    --------
    >>> from millstream._prometheus import label
    >>> print(label('a "b"'))
    a \\"b\\"
    """
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, meaning: str) -> Iterator[str]:
    return head(f"millstream_{name}", meaning, "counter" if name.endswith("_total") else "gauge")


def head(name: str, meaning: str, kind: str) -> Iterator[str]:
    """Return the lines that come before the values of a figure.

    Examples
    --------
    >>> from millstream._prometheus import head
    >>> list(head("up", "Whether the job runs.", "gauge"))
    ['# HELP up Whether the job runs.', '# TYPE up gauge']
    """
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
