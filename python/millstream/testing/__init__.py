"""Tests of jobs: push records and watermarks, move the clock, kill and restore, and look at the results.

:class:`Job` runs streams on the calling thread, in an order of steps drawn from a seed, until nothing can happen before new
input or a later time. Records are pushed into a :class:`Source`, and a :class:`Clock` is moved by hand.

:func:`simulate` runs a whole job with its own sinks, for tests that need many schedules and faults: of the process and its
files, by named steps (:func:`arm`), and of the machine, by a state directory on a :class:`Disk` in memory.
"""

from __future__ import annotations

from millstream.testing.clock import Clock
from millstream.testing.job import Job, collect
from millstream.testing.simulation import Disk, arm, disarm, simulate
from millstream.testing.source import Source

__all__ = ["Clock", "Disk", "Job", "Source", "arm", "collect", "disarm", "simulate"]
