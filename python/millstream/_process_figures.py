"""Figures of the process, and who it is, by OpenTelemetry's names.

Names are those of its semantic conventions, as its specification writes them for Prometheus: dots become underscores, the
unit comes at the end, then ``_total`` for what only grows. ``target_info`` has the attributes of the resource.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from millstream._prometheus import head, label

__all__ = ["process_figures"]

_SELF = Path("/proc/self")


def process_figures() -> str:
    r"""Return the figures of this process in Prometheus' text format.

    Examples
    --------
    >>> from millstream._process_figures import process_figures
    >>> [line for line in process_figures().splitlines() if line.startswith("process_thread_count")][0].split()[0]
    'process_thread_count'
    """
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    labels = ",".join(f'{_name(name)}="{label(value)}"' for name, value in sorted(_resource().items()))
    yield from _figure("target_info", "gauge", "The resource that the figures are of.", f"{{{labels}}} 1")
    times = os.times()
    yield from _figure(
        "process_cpu_time_seconds_total",
        "counter",
        "Processor time of the process (process.cpu.time).",
        f'{{cpu_mode="user"}} {times.user}',
        f'{{cpu_mode="system"}} {times.system}',
    )
    # The name of the process, in parentheses, may have spaces.
    fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
    resident = int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    yield from _figure("process_memory_usage_bytes", "gauge", "Physical memory in use (process.memory.usage).", f" {resident}")
    yield from _figure("process_thread_count", "gauge", "Threads (process.thread.count).", f" {fields[17]}")
    files = len(os.listdir(_SELF / "fd"))
    yield from _figure(
        "process_unix_file_descriptor_count", "gauge", "Open file descriptors (process.unix.file_descriptor.count).", f" {files}"
    )
    uptime = float(Path("/proc/uptime").read_text().split()[0]) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    yield from _figure("process_uptime_seconds", "gauge", "How long the process has been running (process.uptime).", f" {uptime:.2f}")


def _figure(name: str, kind: str, meaning: str, *values: str) -> Iterator[str]:
    yield from head(name, meaning, kind)
    for value in values:
        yield f"{name}{value}"


def _resource() -> dict[str, str]:
    """Return the attributes of the resource: what the environment says, as for every program with OpenTelemetry, and the process."""
    found = {
        "service.name": f"unknown_service:{Path(sys.executable or 'python').name}",
        "process.pid": str(os.getpid()),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": platform.python_version(),
    }
    for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            found[name.strip()] = unquote(value.strip())
    if service := os.environ.get("OTEL_SERVICE_NAME"):
        found["service.name"] = service
    return found


def _name(attribute: str) -> str:
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in attribute)
    return f"_{name}" if name[0].isdigit() else name
