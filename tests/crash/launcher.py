"""Processes for the crash harnesses: cheap to start, easy to kill, several at a time.

The harness imports the engine once and then forks: for a few workers, each of which takes its share of the runs, and
from each of those for every job that is run. A job is so a process of its own that can be killed at any instant, without
the half second that an interpreter and its imports take. Who forks must not run the engine itself: a fork of a process
with threads would be no fair beginning.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

TIMEOUT = 120.0
"""Seconds after which a job that has not ended is taken to hang."""


class Failed(RuntimeError):
    """A job that was not killed ended in another way than well."""


class Child:
    """A forked process that calls one function and ends."""

    def __init__(self, call: Callable[[], object], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(call, log)
        self.handle = os.pidfd_open(self.pid)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end, at most this long; gives whether it came."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """Kill it as no process can prevent, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> int:
        """Wait for the end; gives the exit code, or the number of the signal below zero."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.handle)
        return os.waitstatus_to_exitcode(status)

    def finish(self, timeout: float = TIMEOUT) -> None:
        """Wait for the end, which must be a good one."""
        if not self.ends_within(timeout):
            threads = self.threads()
            os.kill(self.pid, signal.SIGABRT)
            self.reap()
            raise Failed(f"the job has not ended after {timeout} s ({threads}): {self.said()}")
        code = self.reap()
        if code != 0:
            raise Failed(f"the job failed with {code}: {self.said()}")

    def threads(self) -> str:
        """What its threads wait for: for one that hangs."""
        found = []
        for task in sorted(os.listdir(f"/proc/{self.pid}/task")):
            # A thread may end between the listing and the look.
            with contextlib.suppress(OSError):
                wchan, comm = (Path(f"/proc/{self.pid}/task/{task}/{name}").read_text().strip() for name in ("wchan", "comm"))
                found.append(f"{comm} in {wchan}")
        return ", ".join(found)

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:].strip() if self.log.exists() else ""


def _be_child(call: Callable[[], object], log: Path) -> None:
    """What the forked process does; never returns."""
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        call()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def spread(items: Iterable[Item], work: Callable[[Item], Result], workers: int) -> Iterator[tuple[Item, Result]]:
    """Do the work for all items in so many forked processes; gives the results as they come."""
    context = multiprocessing.get_context("fork")
    todo = list(items)
    pipes: list[Connection] = []
    processes = []
    for share in range(min(workers, len(todo))):
        receive, send = context.Pipe(duplex=False)
        processes.append(context.Process(target=_be_worker, args=(todo[share::workers], work, send), daemon=False))
        processes[-1].start()
        send.close()
        pipes.append(receive)
    done = 0
    try:
        while pipes:
            for pipe in wait(pipes):
                assert isinstance(pipe, Connection)
                try:
                    item, result = pipe.recv()
                except EOFError:
                    pipes.remove(pipe)
                    continue
                done += 1
                yield item, result
    finally:
        # Those that are done have ended; if the harness was interrupted, the others are to end as well.
        for process in processes:
            process.terminate()
    if done != len(todo):
        raise Failed(f"a worker of the harness ended early: {done} of {len(todo)} runs are done")


def _be_worker(items: list[Item], work: Callable[[Item], Result], send: Connection) -> None:
    # Whoever interrupts the harness ends its workers, too, without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for item in items:
        send.send((item, work(item)))
    send.close()
