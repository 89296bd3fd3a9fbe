"""How a run of the crash matrix is carried out: the faults, and who may complain of them.

While a job is disturbed it may die or fail, as long as it says so with an error of the engine; what it may not do is
show a wrong output in the end, or refuse to go on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torture_jobs
from launcher import TIMEOUT, Child, Failed
from torture_inputs import Inputs

import millstream as mill
from millstream import testing

MODES = ("exactly_once", "at_least_once", "dedup", "none")
FAULTS = {
    "left": False,
    "step": False,
    "step fails": False,
    "disk full": False,
    "sink full": False,
    "disk errors": False,
    "machine crash": False,
    "state fails long": False,
    "second job": False,
    "inputs change": False,
    "clock": False,
    "function raises": False,
    "panic": False,
    "task fails": False,
    "kill": True,
    "kill at step": True,
    "panic in a thread": True,
    "function kills": True,
    "function hangs": True,
}
"""The faults, and whether they need a process of their own."""
PARALLELISMS = (1, 2, 3, 8)
LIVES = (0.02, 0.05, 0.1, 0.25)
"""Within how many seconds a process is killed: a job takes about a tenth of one."""
HANG = 1.0
"""Seconds after which a process whose function hangs is killed."""


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix."""

    fault: str
    plan: str
    sink: str
    mode: str

    def __str__(self) -> str:
        return f"{self.fault} / {self.plan} / {self.sink} / {self.mode}"


@dataclass
class Outcome:
    """How a run went."""

    disturbances: int = 0
    wrong: str = ""
    died_at: list[str] = field(default_factory=list)
    """The named steps at which it died."""


class Raised(RuntimeError):
    """What the Python function of a job raises."""


@dataclass
class Run:
    """One run in the making."""

    cell: Cell
    dice: random.Random
    work: Path
    inputs: Path
    is_told: bool
    variant: int = 0
    disk: testing.Disk | None = None
    changing: Inputs | None = None
    calls: int = 0
    raise_at: frozenset[int] = frozenset()
    raised: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)

    def tell(self, text: str) -> None:
        """Say what is done, when a run is replayed."""
        if self.is_told:
            print(text, flush=True)

    def hook(self) -> None:
        """Called by the job's Python function."""
        self.calls += 1
        if self.calls in self.raise_at:
            self.raised += 1
            raise Raised("as asked")

    def by_hand(self, steps: int | None = None, clock_jumps: bool = False) -> bool:
        """Run the job by hand, its order drawn anew; gives whether it came to its end."""
        dice = self.dice
        drawn: dict[str, Any] = {
            "seed": dice.randrange(2**32),
            "parallelism": dice.choice(PARALLELISMS),
            "frame_rows": dice.choice([3, 7, 64, 8192]),
            "chaining": dice.random() < 0.8,
        }
        self.tell(f"  by hand: {drawn}, steps={steps}, disk={self.disk is not None}, clock_jumps={clock_jumps}")
        sinks = self.declare()
        checkpoint = mill.Checkpoint(self.work / "state", every="1ms", mode=self.cell.mode)
        try:
            report = testing.simulate(
                *sinks, checkpoint=checkpoint, steps=steps, disk=self.disk, clock_jumps=clock_jumps, **drawn
            )
        except mill.ConnectorError as error:
            if self.changing is None or not self.changing.put_back(str(error)):
                raise
            self.tell(f"  -> refused: {error}")
            return self.by_hand(steps, clock_jumps)
        self.tell(f"  -> {'left or dead' if report is None else report.status}")
        return report is not None

    def count_steps(self) -> None:
        """Run the job by hand to its end, and leave word of the steps it reached."""
        testing.arm("*", effect="count")
        if not self.by_hand():
            raise RuntimeError("the undisturbed job did not end")
        (self.work / "steps").write_text(json.dumps(testing.disarm()))

    def declare(self) -> list[mill.Output]:
        """Declare the job."""
        cell = self.cell
        return torture_jobs.declare(cell.plan, cell.sink, self.variant, self.work, self.inputs, self.hook)


def carry_out(root: Path, seed: int, is_told: bool, item: tuple[int, Cell]) -> Outcome:
    """One run of the matrix."""
    number, cell = item
    dice = random.Random(f"{seed} {number}")
    work = root / f"run-{number}"
    run = Run(cell, dice, work, root / "inputs", is_told, variant=dice.randrange(6))
    run.tell(f"run {number}: {cell}")
    try:
        wanted, run.steps = undisturbed(root, run)
        if cell.fault == "inputs change":
            run.changing = Inputs(run.inputs, work / "inputs", dice)
            run.inputs = work / "inputs"
        if FAULTS[cell.fault]:
            in_processes(run)
        else:
            by_hand(run)
        shown = torture_jobs.shown(work)
        run.outcome.wrong = run.changing.wrong(cell.mode, shown) if run.changing else torture_jobs.wrong(cell.plan, cell.mode, wanted, shown)
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        run.outcome.wrong = f"{text} at {traceback.extract_tb(error.__traceback__)[-1].name}"
    finally:
        testing.disarm()
        if not is_told:
            shutil.rmtree(work, ignore_errors=True)
    return run.outcome


_CALM: dict[tuple[str, str, int], tuple[list[torture_jobs.Row], dict[str, int]]] = {}


def undisturbed(root: Path, run: Run) -> tuple[list[torture_jobs.Row], dict[str, int]]:
    """What the job shows if nothing disturbs it, and how often it reaches each step; it is run once in a worker."""
    key = (run.cell.plan, run.cell.sink, run.variant)
    if key not in _CALM:
        work = root / f"calm-{os.getpid()}-{'-'.join(map(str, key))}"
        cell = Cell("none", run.cell.plan, run.cell.sink, "exactly_once")
        calm = Run(cell, random.Random(1), work, run.inputs, False, variant=run.variant)
        # In a process of its own, because this one may go on to fork.
        Child(calm.count_steps, work / "log").finish()
        rows = torture_jobs.shown(work)
        if not rows:
            raise RuntimeError("the undisturbed job showed nothing")
        _CALM[key] = rows, json.loads((work / "steps").read_text())
        shutil.rmtree(work, ignore_errors=True)
    return _CALM[key]


def by_hand(run: Run) -> None:
    """Disturb a job by hand a few times, then let it end."""
    if run.cell.fault in ("disk full", "disk errors", "machine crash"):
        run.disk = testing.Disk()
    for _ in range(run.dice.randint(1, 3)):
        try:
            is_done = DISTURB[run.cell.fault](run)
        except mill.MillstreamError as error:
            run.tell(f"  -> {type(error).__name__}: {error}")
            _check_complaint(run, error)
            is_done = False
        run.outcome.disturbances += max(not is_done, run.raised)
        run.raised = 0
        testing.disarm()
    run.raise_at = frozenset()
    if run.disk is not None:
        run.disk = run.disk.after_kill()
    if not run.by_hand():
        raise RuntimeError("the job did not end, though nothing disturbed it")
    if run.dice.random() < 0.1:
        # Once more: there is nothing left to do.
        run.by_hand()


def _check_complaint(run: Run, error: mill.MillstreamError) -> None:
    """A job may fail of the fault, and of nothing else."""
    if run.cell.fault in ("panic", "task fails") and "panicked (simulated)" in str(error):
        return
    if "internal" in str(error).lower():
        raise error
    if run.cell.fault in ("left", "step", "clock", "machine crash", "second job", "inputs change"):
        raise error
    if run.cell.fault == "function raises" and "as asked" not in str(error):
        raise error
    if run.cell.fault == "task fails" and "task.call" not in str(error):
        raise error


def _left(run: Run) -> bool:
    return run.by_hand(steps=run.dice.choice([3, 30, 100, 300, 1000]))


def _clock(run: Run) -> bool:
    return run.by_hand(steps=run.dice.choice([30, 100, 300, 1000]), clock_jumps=True)


def _step(run: Run) -> bool:
    step = _arm(run, "die")
    is_done = run.by_hand()
    if not is_done:
        run.outcome.died_at.append(step)
    return is_done


def _step_fails(run: Run) -> bool:
    _arm(run, "fail", times=run.dice.choice([1, 1, 2, 5]))
    return run.by_hand(steps=run.dice.choice([None, 1000]))


def _panic(run: Run) -> bool:
    _arm(run, "panic", times=run.dice.choice([1, 1, 2, 5]))
    return run.by_hand()


def _sink_full(run: Run) -> bool:
    steps = {"file": ["file.create", "file.write", "file.sync"], "sqlite": ["sqlite.apply", "sqlite.commit", "sqlite.begin"]}
    names = steps.get(run.cell.sink, ["sink.pre_commit", "sink.commit"])
    step, first = run.dice.choice(names), run.dice.choice([1, 2, 3, 5, 8])
    run.tell(f"  full at {step} from {first} on")
    testing.arm(step, first=first, times=run.dice.choice([1, 3, 1000]), effect="full")
    return run.by_hand()


def _disk_full(run: Run) -> bool:
    assert run.disk is not None
    space = run.dice.choice([0, 2_000, 10_000, 40_000, 100_000])
    run.tell(f"  space for {space} bytes")
    run.disk = run.disk.after_kill()
    run.disk.set_space(space)
    is_done = run.by_hand(steps=run.dice.choice([300, 1000]))
    run.disk.set_space(None)
    return is_done


def _disk_errors(run: Run) -> bool:
    assert run.disk is not None
    run.disk = run.disk.after_kill()
    for _ in range(run.dice.choice([1, 1, 2, 5])):
        operation = run.dice.randrange(run.dice.choice([15, 60, 150]))
        run.tell(f"  operation {operation} fails")
        run.disk.fail_at(operation)
    return run.by_hand(steps=run.dice.choice([300, 1000]))


def _machine_crash(run: Run) -> bool:
    assert run.disk is not None
    operation = run.dice.randrange(run.dice.choice([15, 60, 150]))
    run.tell(f"  crash at operation {operation}")
    run.disk.crash_at(operation)
    is_done = run.by_hand()
    run.disk = run.disk.after_crash(run.dice.randrange(2**32))
    return is_done


def _state_fails_long(run: Run) -> bool:
    first, times = run.dice.choice([1, 2, 5]), run.dice.choice([20, 300, 3000])
    run.tell(f"  checkpoints fail from {first} on, {times} times")
    testing.arm("checkpoint.publish", first=first, times=times, effect="fail")
    if run.cell.mode == "dedup":
        # Barriers of checkpoints that failed are repeated by a task that goes back.
        run.calls, run.raise_at = 0, frozenset(run.dice.randrange(1, torture_jobs.ROWS) for _ in range(3))
    return run.by_hand(steps=run.dice.choice([1000, 5000, None]))


def _second_job(run: Run) -> bool:
    is_done = run.by_hand(steps=run.dice.choice([30, 100, 300, 1000]))
    for number, path in enumerate(sorted((run.work / "out").glob("*.db"))):
        torture_jobs.write_into(path, run.work / f"second-{run.dice.randrange(3)}-{number}", run.dice.randrange(2**32))
    return is_done


def _inputs_change(run: Run) -> bool:
    assert run.changing is not None
    is_done = run.by_hand(steps=run.dice.choice([10, 30, 100, 300, 1000]))
    run.changing.grow()
    if run.dice.random() < 0.5:
        run.tell(f"  {run.changing.rewrite()} is rewritten")
        is_done = run.by_hand(steps=run.dice.choice([30, 300]))
    return is_done


def _function_raises(run: Run) -> bool:
    # A task that goes back alone fails again, perhaps.
    times = run.dice.choice([1, 1, 3, 10]) if run.cell.mode == "dedup" else 1
    run.calls, run.raise_at = 0, frozenset(run.dice.randrange(1, torture_jobs.ROWS) for _ in range(times))
    return run.by_hand()


def _task_fails(run: Run) -> bool:
    first, times = run.dice.randrange(1, run.dice.choice([30, 300, 1000])), run.dice.choice([1, 1, 2, 5])
    effect = run.dice.choice(["fail", "panic"])
    run.tell(f"  the call of an operator: {effect}, from {first} on, {times} times")
    testing.arm("task.call", first=first, times=times, effect=effect)
    is_done = run.by_hand()
    run.raised = max(min(testing.disarm().get("task.call", 0) - first + 1, times), 0)
    return is_done


DISTURB = {
    "left": _left,
    "clock": _clock,
    "step": _step,
    "step fails": _step_fails,
    "disk full": _disk_full,
    "sink full": _sink_full,
    "disk errors": _disk_errors,
    "machine crash": _machine_crash,
    "state fails long": _state_fails_long,
    "second job": _second_job,
    "inputs change": _inputs_change,
    "function raises": _function_raises,
    "panic": _panic,
    "task fails": _task_fails,
}

THREADS = ("thread.worker", "thread.coordinator", "thread.writer", "thread.reader", "thread.supervisor")
"""The steps that each thread of the engine passes once a round."""
PANICKED = 3
"""The exit code of a process whose job failed of the panic, or started again after it."""

RARE = (
    *("checkpoint.compact", "file.remove", "manifest.remove", "mark.remove", "segment.remove", "sink.abort"),
    "sqlite.remove",
)
"""Steps that an undisturbed run may not reach."""


def _drawn_step(run: Run, dice: random.Random) -> tuple[str, int]:
    """A named step, or any, and the how-manieth time it is reached: somewhere in the run, rather early than late."""
    if dice.random() < 0.3:
        return "*", dice.randint(1, dice.randint(1, sum(run.steps.values())))
    # Those that only a recovery or a failure reaches among them.
    step = dice.choice(sorted({*run.steps, *RARE}))
    return step, dice.randint(1, dice.randint(1, run.steps.get(step, 1)))


def _arm(run: Run, effect: Any, times: int = 1) -> str:
    """Arm a fault at a step that is drawn; gives its name."""
    step, first = _drawn_step(run, run.dice)
    run.tell(f"  {effect} at {step}, from {first} on, {times} times")
    testing.arm(step, first=first, times=times, effect=effect)
    return step


def in_processes(run: Run) -> None:
    """Disturb a job in processes of its own a few times, then let it end."""
    fault, dice = run.cell.fault, run.dice
    for _ in range(dice.randint(1, 3)):
        parallelism, seed = dice.choice(PARALLELISMS), dice.randrange(2**32)
        child = Child(partial(_in_process, run, fault, parallelism, seed), run.work / "log")
        delay = HANG if fault == "function hangs" else TIMEOUT
        if fault == "kill":
            delay = dice.uniform(0, dice.choice(LIVES))
        if child.ends_within(delay):
            code = child.reap()
            if code == -signal.SIGKILL:
                run.outcome.disturbances += 1
                run.outcome.died_at += [_drawn_step(run, random.Random(seed))[0]] if fault == "kill at step" else []
            elif code == PANICKED and fault == "panic in a thread":
                run.outcome.disturbances += 1
            elif code != 0:
                raise Failed(f"the job failed with {code}: {child.said()}")
        else:
            is_hung = fault not in ("kill", "function hangs")
            threads = child.threads() if is_hung else ""
            child.kill()
            run.outcome.disturbances += 1
            if is_hung:
                raise Failed(f"the job hung ({threads}): {child.said()}")
    Child(partial(_in_process, run, "", dice.choice(PARALLELISMS), 0), run.work / "log").finish()


def _in_process(run: Run, fault: str, parallelism: int, seed: int) -> None:
    dice = random.Random(seed)
    if fault == "kill at step":
        run.dice = dice
        _arm(run, "kill")
    elif fault in ("function kills", "function hangs"):
        at = dice.randrange(1, torture_jobs.ROWS)

        def hook() -> None:
            run.calls += 1
            if run.calls == at and fault == "function kills":
                os.kill(os.getpid(), signal.SIGKILL)
            while run.calls == at:
                time.sleep(1)

        run.hook = hook  # type: ignore[method-assign]
    elif fault == "panic in a thread":
        # Some of the steps that only a background thread takes among them.
        step = dice.choice((*THREADS, *THREADS, *sorted(run.steps)))
        first, times = dice.randint(1, dice.choice([2, 5, 20])), dice.choice([1, 1, 3])
        run.tell(f"  panic at {step}, from {first} on, {times} times")
        testing.arm(step, first=first, times=times, effect="panic")
    checkpoint = mill.Checkpoint(run.work / "state", every="2ms", mode=run.cell.mode)
    # Half of the jobs start again in the same process.
    restart = mill.Restart.fixed_delay(3, "1ms") if fault == "panic in a thread" and dice.random() < 0.5 else None
    if run.cell.mode == "dedup":
        restart = mill.Restart.fixed_delay(20, "1ms")
    try:
        report = mill.run(*run.declare(), checkpoint=checkpoint, parallelism=parallelism, restart=restart)
        if any("panicked (simulated)" in note for note in report.notes):
            os._exit(PANICKED)
    except mill.MillstreamError as error:
        if fault != "panic in a thread" or "panicked (simulated)" not in str(error):
            raise
        os._exit(PANICKED)
