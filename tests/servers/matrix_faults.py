"""How a run of the crash matrix with servers is carried out: the faults, and who may complain of them.

While a job is disturbed it may die, and where a server or a disk fails it may fail, as long as it says so with an error of the
engine. What it may not do is show a wrong result in the end, leave something over, or refuse to go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "crash"))

import s3
from launcher import TIMEOUT, Child, Failed
from matrix_jobs import PLANS, Plan, head_of
from matrix_servers import Servers, apart, of_this_worker, wait_until

import millstream as mill
from millstream import testing

PARALLELISMS = (1, 2, 3)
INTERVALS = ("5ms", "20ms", "50ms", "200ms")
ENDLESS_SECONDS = 0.7
"""How long an endless job is taken to run."""
SECONDS_MAX = 1.2
"""How long a job is taken to run at most."""
FAILED = 3
"""The exit code of a process whose job failed with an error of the engine."""
STOPPED = 128 + signal.SIGTERM
LEASE_SECONDS = 15.0

RARE = {
    "kafka": ("kafka.remove", "kafka.begin", "kafka.noted"),
    "postgres": ("postgres.end_prepared", "postgres.commit_prepared", "postgres.committed_prepared", "postgres.remove"),
    "s3": ("object.abort", "object.note", "object.complete", "remote.delete", "remote.fetch", "remote.lease"),
}
"""Steps that an undisturbed run may not reach."""


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix."""

    kind: str
    plan: str
    fault: str

    def __str__(self) -> str:
        return f"{self.kind} / {self.plan} / {self.fault}"


@dataclass
class Outcome:
    """How a run went."""

    hits: int = 0
    timeouts: int = 0
    """Transactions that a server has ended while the job hung."""
    failures: int = 0
    """Jobs that failed with an error of the engine, as they may."""
    wrong: str = ""
    story: list[str] = field(default_factory=list)
    died_at: list[str] = field(default_factory=list)
    seconds: float = 0
    held: float = 0
    """How many seconds readers of committed messages waited after the end."""


@dataclass
class Run:
    """One run in the making."""

    cell: Cell
    dice: random.Random
    servers: Servers
    work: Path
    name: str
    variant: int
    is_told: bool = False
    mode: Any = "exactly_once"
    state: Any = None
    target: str = ""
    full: Path | None = None
    """Where this run works on the small filesystem, if that is its fault."""
    is_cut: bool = False
    has_short_timeouts: bool = False
    counts: dict[int, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    seconds: float = ENDLESS_SECONDS
    starts: int = 0
    pids: list[int] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def plan(self) -> Plan:
        return PLANS[self.cell.plan]

    def tell(self, text: str) -> None:
        """Note what is done."""
        self.outcome.story.append(text)
        if self.is_told:
            print(text, flush=True)

    def address(self, kind: str) -> str:
        """Where the job finds a server."""
        return self.servers.address(kind, self.is_cut)

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self, setup: Callable[[], object] = lambda: None, *, restarts: int = 0, every: str = "", cache: str = "cache") -> Child:
        """Start the job, under a parallelism and an interval that are drawn anew."""
        parallelism, every = self.dice.choice(PARALLELISMS), every or self.dice.choice(INTERVALS)
        self.starts += 1
        self.tell(f"  start {self.starts}: parallelism {parallelism}, a checkpoint every {every}" + (f", {restarts} restarts" if restarts else ""))
        child = Child(partial(self._be_job, setup, parallelism, every, restarts, cache), self.work / f"log-{self.starts}")
        self.pids.append(child.pid)
        return child

    def _be_job(self, setup: Callable[[], object], parallelism: int, every: str, restarts: int, cache: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["MILLSTREAM_CACHE"] = str((self.full or self.work) / cache)
        if "s3" in self.plan.kinds(self.variant):
            mill.storage({**s3.OPTIONS, "aws_endpoint": self.address("s3")})
        # In the mode dedup, a task that fails is restarted alone.
        restarts = restarts or (10 if self.mode == "dedup" else 0)
        restart = mill.Restart.fixed_delay(restarts, "50ms") if restarts else None
        code = 0
        try:
            setup()
            checkpoint = mill.Checkpoint(self.state, every=every, mode=self.mode)
            report = mill.run(self.plan.declare(self), checkpoint=checkpoint, parallelism=parallelism, restart=restart)
            print(report.status, report.notes)
        except SystemExit as exit:
            code = int(exit.code or 0)
        except mill.MillstreamError:
            traceback.print_exc()
            code = FAILED
        counted = testing.disarm()
        if counted:
            (self.work / "steps").write_text(json.dumps(counted))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def goes_on(self, child: Child, seconds: float) -> bool:
        """Let the job go on for so long; return whether it still does."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.plan.is_endless:
                self.plan.nudge(self)
                left = min(left, 0.02)
            if child.ends_within(left):
                return False
        return True

    def instant(self) -> float:
        """Draw when to disturb a job: in its first moments, anywhere, or around its end."""
        where = self.dice.random()
        if where < 0.15:
            return self.dice.uniform(0, 0.1)
        if where < 0.3:
            return self.seconds * self.dice.uniform(0.85, 1.05)
        return self.dice.uniform(0, self.seconds)

    def hit(self) -> None:
        self.outcome.hits += 1

    def kill(self, child: Child) -> None:
        """Kill the job, if it still runs."""
        if child.ends_within(0):
            self.conclude(child, may_fail=True)
            return
        child.kill()
        self.hit()
        self.tell("  -> killed")

    def conclude(self, child: Child, *, may_fail: bool, may_die: bool = False, seconds: float = TIMEOUT) -> None:
        """Wait for the end of a job, which is asked to stop if it has none."""
        if self.plan.is_endless and self.goes_on(child, self.dice.uniform(0.1, 0.5)):
            os.kill(child.pid, signal.SIGTERM)
        if not child.ends_within(seconds):
            threads = child.threads()
            os.kill(child.pid, signal.SIGABRT)
            child.reap()
            raise Failed(f"the job has not ended after {seconds} s ({threads}): {child.said()}")
        code = child.reap()
        said = child.said()
        self.tell(f"  -> {code}" + (f": {said.splitlines()[-1][:300]}" if code == FAILED and said else ""))
        is_bug = "panicked" in said or "internal error" in said.lower() or "this is a bug" in said.lower()
        # Before the engine waits for SIGTERM, it ends the process.
        if code in (0, STOPPED) or (code == -signal.SIGTERM and self.plan.is_endless) or (code == -signal.SIGKILL and may_die):
            pass
        elif code == FAILED and may_fail and not is_bug:
            self.outcome.failures += 1
        else:
            raise Failed(f"the job ended with {code}: {said}")

    def finish(self) -> None:
        """Run the job undisturbed to its end."""
        child = self.start(restarts=50 if self.has_short_timeouts else 0)
        if not self.plan.is_endless:
            self.conclude(child, may_fail=False)
            return
        # There are changes that only this run can have followed.
        self.goes_on(child, 0.4)
        took = wait_until(lambda: self.plan.is_done(self) or child.ends_within(0), 30, 0.05)
        self.tell(f"  done after {took:.1f} s")
        if child.ends_within(0):
            raise Failed(f"the job ended with {child.reap()}: {child.said()}")
        os.kill(child.pid, signal.SIGTERM)
        if not child.ends_within(TIMEOUT):
            child.kill()
            raise Failed(f"the job does not stop: {child.said()}")
        code = child.reap()
        if code != STOPPED:
            raise Failed(f"the job ended with {code}: {child.said()}")


def carry_out(root: Path, kept: Path | None, seed: int, mode: str, is_told: bool, item: tuple[int, Cell]) -> Outcome:
    """One run of the matrix."""
    number, cell = item
    dice = random.Random(f"{seed} {number}")
    servers = of_this_worker(root)
    began = time.monotonic()
    # On one machine, two hosts cannot write into one directory.
    variant = dice.randrange(cell.fault == "lease", PLANS[cell.plan].variants)
    run = Run(cell, dice, servers, root / f"run-{number}", f"r{number}", variant, is_told, mode)
    run.tell(f"run {number}: {cell}, variant {run.variant}")
    try:
        run.work.mkdir()
        _prepare(run)
        run.seconds, run.steps = undisturbed(root, run)
        run.tell(f"  prepared within {time.monotonic() - began:.2f} s; undisturbed it takes {run.seconds:.2f} s")
        began = time.monotonic()
        # A lease runs out in 15 s, and a broker takes seconds to start.
        for _ in range(1 if cell.fault in ("lease", "server killed") else dice.choice([1, 1, 2, 3])):
            FAULTS[cell.fault](run)
        run.finish()
        if dice.random() < 0.05 and not run.plan.is_endless:
            # Once more: there is nothing left to do.
            run.finish()
        ended = time.monotonic()
        run.outcome.wrong = _judge(run)
        run.tell(f"  run in {ended - began:.2f} s, judged in {time.monotonic() - ended:.2f} s")
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        run.outcome.wrong = f"{text} at {traceback.extract_tb(error.__traceback__)[-1].name}"
        servers.go_on()
        for pid in run.pids:
            # Those that were waited for are nobody's children any more.
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
    run.outcome.seconds = time.monotonic() - began
    if run.outcome.wrong and kept is not None:
        shutil.copytree(run.work, kept / f"run-{seed}-{number}", dirs_exist_ok=True)
    if run.full is not None:
        shutil.rmtree(run.full, ignore_errors=True)
    shutil.rmtree(run.work, ignore_errors=True)
    with contextlib.suppress(Exception):
        apart(lambda: run.plan.clean(run))
    return run.outcome


def _prepare(run: Run) -> None:
    # To a job that has ended, another address is another plan.
    has_s3 = "s3" in run.plan.kinds(run.variant)
    run.is_cut = run.cell.fault in ("connections", "timeouts") or (run.cell.fault == "server killed" and has_s3)
    run.has_short_timeouts = run.cell.fault == "timeouts"
    if run.cell.fault == "disk full":
        run.full = run.servers.small / run.name
        run.full.mkdir()
    run.state = str((run.full or run.work) / "state")
    for kind in run.plan.kinds(run.variant):
        getattr(run.servers, kind)
    run.plan.prepare(run)


def _judge(run: Run) -> str:
    def judge() -> tuple[str, float]:
        wrong = run.plan.wrong(run) or run.plan.left(run)
        held = run.work / "held"
        return wrong, float(held.read_text()) if held.exists() else 0.0

    wrong, run.outcome.held = apart(judge)
    return wrong


_CALM: dict[tuple[str, int], tuple[float, dict[str, int]]] = {}


def undisturbed(root: Path, run: Run) -> tuple[float, dict[str, int]]:
    """How long the job takes if nothing disturbs it, and how often it reaches each step; it is run once in a worker."""
    key = (run.cell.plan, run.variant)
    if key not in _CALM:
        name = f"calm{run.name}"
        calm = Run(Cell("", run.cell.plan, "none"), random.Random(1), run.servers, root / name, name, run.variant, mode=run.mode)
        calm.work.mkdir()
        _prepare(calm)
        began = time.monotonic()
        child = calm.start(partial(testing.arm, "*", effect="count"), every="20ms")
        if calm.plan.is_endless:
            calm.goes_on(child, ENDLESS_SECONDS)
            wait_until(lambda: calm.plan.is_done(calm), 60)
        calm.conclude(child, may_fail=False)
        # The first job of a server takes longer.
        seconds = ENDLESS_SECONDS if calm.plan.is_endless else min(time.monotonic() - began, SECONDS_MAX)
        if calm.plan.is_endless:
            calm.finish()
        wrong = _judge(calm)
        if wrong:
            raise RuntimeError(f"the undisturbed job is wrong: {wrong}")
        _CALM[key] = seconds, json.loads((calm.work / "steps").read_text())
        apart(lambda: calm.plan.clean(calm))
        shutil.rmtree(calm.work, ignore_errors=True)
    return _CALM[key]


# -- faults --------------------------------------------------------------------------------------------------------------


def _kill(run: Run) -> None:
    child = run.start()
    run.goes_on(child, run.instant())
    run.kill(child)


def _step(run: Run) -> tuple[str, int]:
    """A named step, or any, and the how-manieth time it is reached."""
    dice = run.dice
    if dice.random() < 0.2:
        return "*", dice.randint(1, dice.randint(1, sum(run.steps.values())))
    rare = [step for kind in run.plan.kinds(run.variant) for step in RARE[kind]]
    names = sorted({name for name in (*run.steps, *rare, "sink.recover", "sink.abort") if not name.startswith("thread.")})
    # Those of the ends are what this matrix is for.
    own = [name for name in names if name.partition(".")[0] in ("kafka", "postgres", "object", "remote", "sink", "checkpoint")]
    step = dice.choice(own if dice.random() < 0.7 else names)
    return step, dice.randint(1, dice.randint(1, run.steps.get(step, 1)))


def _kill_at_step(run: Run) -> None:
    step, first = _step(run)
    run.tell(f"  killed at {step}, the {first}. time")
    child = run.start(partial(testing.arm, step, first=first, effect="kill"))
    if run.plan.is_endless:
        run.goes_on(child, run.seconds + 0.5)
    elif not child.ends_within(TIMEOUT):
        raise Failed(f"the job has not ended ({child.threads()}): {child.said()}")
    if child.ends_within(0):
        code = child.reap()
        if code == -signal.SIGKILL:
            run.hit()
            run.outcome.died_at.append(step)
        elif code != 0:
            raise Failed(f"the job ended with {code}: {child.said()}")
        run.tell(f"  -> {code}")
    else:
        run.conclude(child, may_fail=False, may_die=True)


def _step_fails(run: Run) -> None:
    (step, first), times = _step(run), run.dice.choice([1, 1, 2, 5])
    run.tell(f"  {step} fails, from the {first}. time on, {times} times")
    child = run.start(partial(testing.arm, step, first=first, times=times, effect="fail"), restarts=run.dice.choice([0, 10]))
    run.hit()
    run.conclude(child, may_fail=True)


def _stopped(run: Run) -> None:
    """It is asked to stop, and continues under another parallelism."""
    child = run.start()
    if run.goes_on(child, run.instant()):
        os.kill(child.pid, signal.SIGTERM)
        run.hit()
    if not child.ends_within(TIMEOUT):
        child.kill()
        raise Failed(f"the job does not stop: {child.said()}")
    code = child.reap()
    run.tell(f"  -> {code}")
    # Before the engine waits for the signal it ends the process.
    if code not in (0, STOPPED, -signal.SIGTERM):
        raise Failed(f"the job ended with {code}: {child.said()}")


def _server_killed(run: Run) -> None:
    kind = run.dice.choice(run.plan.kinds(run.variant))
    child = run.start(restarts=run.dice.choice([0, 50]))
    is_alive = run.goes_on(child, run.instant())
    run.tell(f"  {kind} is killed")
    run.servers.kill(kind)
    try:
        if is_alive:
            run.hit()
        dies_too = run.dice.random() < 0.3
        time.sleep(run.dice.choice([0, 0.1, 0.5, 1.0]))
        if dies_too:
            run.kill(child)
    finally:
        run.servers.start(kind)
    if not dies_too:
        run.conclude(child, may_fail=True)


def _server_stopped(run: Run) -> None:
    """It hangs for a while; if the job is killed meanwhile, its requests are carried out when the next one has begun."""
    kind = run.dice.choice(run.plan.kinds(run.variant))
    child = run.start(restarts=run.dice.choice([0, 50]))
    is_alive = run.goes_on(child, run.instant())
    seconds = run.dice.uniform(*run.dice.choice([(0.2, 1), (1, 3)]))
    run.tell(f"  {kind} is stopped for {seconds:.1f} s")
    run.servers.pause(kind)
    try:
        if is_alive:
            run.hit()
        dies_too = run.dice.random() < 0.4
        if dies_too:
            time.sleep(seconds / 2)
            run.kill(child)
            child = run.start(restarts=50)
            time.sleep(seconds / 2)
        else:
            time.sleep(seconds)
    finally:
        run.servers.go_on()
    run.conclude(child, may_fail=True)


def _connections(run: Run) -> None:
    """Connections are cut at random bytes."""
    kind = run.dice.choice(run.plan.kinds(run.variant))
    least, most, times = run.dice.choice([30, 300, 3000]), run.dice.choice([5_000, 50_000]), run.dice.choice([1, 3, 10])
    run.tell(f"  {times} connections to {kind} are cut after {least} to {most} bytes")
    child = run.start(restarts=run.dice.choice([0, 50]))
    run.goes_on(child, run.dice.choice([0, 0, run.instant()]))
    run.servers.cutter.cut(kind, run.dice.randrange(2**32), least, most, times)
    try:
        if run.dice.random() < 0.25:
            run.goes_on(child, run.instant())
            run.kill(child)
        else:
            run.conclude(child, may_fail=True)
    finally:
        cuts = run.servers.cutter.calm(kind)
        run.outcome.hits += cuts
        run.tell(f"  {cuts} connections were cut")


def _timeouts(run: Run) -> None:
    """The job, or a connection, hangs for longer than servers wait for a transaction."""
    if run.dice.random() < 0.5:
        kind = run.dice.choice(run.plan.kinds(run.variant))
        seconds, times = run.dice.uniform(1.5, 2.5), run.dice.choice([1, 2, 3])
        run.tell(f"  {times} connections to {kind} hang for {seconds:.1f} s")
        child = run.start(restarts=run.dice.choice([0, 50]), every="5ms")
        run.goes_on(child, run.dice.choice([0, run.instant()]))
        run.servers.cutter.cut(kind, run.dice.randrange(2**32), 300, 20_000, times, seconds)
        run.goes_on(child, 1.0)
        run.outcome.hits += run.servers.cutter.calm(kind)
        run.conclude(child, may_fail=True)
        return
    # So that a transaction is open most of the time.
    child = run.start(restarts=run.dice.choice([0, 50]), every="5ms")
    if not run.goes_on(child, run.instant()):
        run.conclude(child, may_fail=True)
        return
    is_open = False
    for _ in range(8):
        os.kill(child.pid, signal.SIGSTOP)
        is_open = apart(lambda: run.plan.is_open(run))
        if is_open or child.ends_within(0):
            break
        os.kill(child.pid, signal.SIGCONT)
        run.goes_on(child, run.dice.uniform(0.003, 0.03))
    seconds = run.dice.uniform(1.8, 2.6)
    run.tell(f"  the job is stopped for {seconds:.1f} s" + (", in a transaction" if is_open else ""))
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(seconds)
    run.hit()
    if is_open:
        apart(lambda: run.plan.time_out(run))
    if is_open and not apart(lambda: run.plan.is_open(run)):
        run.outcome.timeouts += 1
        run.tell("  the server has ended the transaction")
    os.kill(child.pid, signal.SIGCONT)
    if run.dice.random() < 0.25:
        run.goes_on(child, run.dice.uniform(0, 0.3))
        run.kill(child)
    else:
        run.conclude(child, may_fail=True)


def _disk_full(run: Run) -> None:
    assert run.full is not None
    child = run.start(restarts=run.dice.choice([0, 50]))
    is_alive = run.goes_on(child, run.instant())
    ballast = run.full.parent / "ballast"
    fill(ballast)
    run.tell("  the disk is full")
    try:
        if is_alive:
            run.hit()
        dies_too = run.dice.random() < 0.3
        run.goes_on(child, run.dice.uniform(0.05, 0.5))
        if dies_too:
            run.kill(child)
            if run.dice.random() < 0.5:
                child, dies_too = run.start(), False
                run.goes_on(child, 0.5)
    finally:
        ballast.unlink()
    if not dies_too:
        run.conclude(child, may_fail=True)


def fill(ballast: Path) -> None:
    """Take all the space there is."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)


CLONE_NEWUTS = 0x04000000


def be_another_host(name: str) -> None:
    """Have a name of a machine of one's own, so that what is on "this machine" is not known."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUTS) != 0 or libc.sethostname(name.encode(), len(name)) != 0:
        raise OSError(ctypes.get_errno(), "no name of a machine of one's own")


def _lease(run: Run) -> None:
    """The holder of the lease hangs past it, and another machine takes over; when it goes on, it publishes nothing."""
    first = run.start(partial(be_another_host, "first"), cache="first")

    def is_held() -> bool:
        return bool(run.servers.s3.keys(f"{run.name}/state/MILLSTREAM")) and not is_taken()

    def is_taken() -> bool:
        lease = apart(lambda: head_of(run))["lease"]
        return lease is None or lease["holder"]["host"] != "first"

    wait_until(lambda: first.ends_within(0) or is_held(), 30)
    run.goes_on(first, run.dice.uniform(0, 0.4))
    os.kill(first.pid, signal.SIGSTOP)
    try:
        if first.ends_within(0) or not is_held():
            run.tell("  the first one has no lease")
            second, is_race = None, False
        else:
            second = run.start(partial(be_another_host, "second"), cache="second")
            is_race = run.dice.random() < 0.25
            if is_race:
                # Whoever is first may go on, and the other one says so.
                time.sleep(LEASE_SECONDS + run.dice.uniform(-0.3, 1.5))
            elif wait_until(is_taken, LEASE_SECONDS + 30, 0.1) == float("inf"):
                raise Failed(f"the lease was not taken over: {second.said()}")
            else:
                run.goes_on(second, run.dice.choice([0.0, 0.2, 60.0]))
            run.hit()
        before = apart(lambda: head_of(run)) if second is not None and second.ends_within(0) else None
    finally:
        os.kill(first.pid, signal.SIGCONT)
    run.tell(f"  the first one goes on, {'at the same time' if is_race else 'after the second one' if before else 'while the second one works'}")
    run.conclude(first, may_fail=True)
    if second is None:
        return
    run.conclude(second, may_fail=is_race)
    if before is not None and before != apart(lambda: head_of(run)):
        raise Failed(f"a job that had lost its lease has changed the head, which was {before}: {first.said()}")
    # One that starts again by itself says so and waits for the lease.
    has_said = run.outcome.failures > 0 or "no longer has the lease" in first.said()
    if not is_race and not has_said:
        raise Failed(f"a job that had lost its lease did not say so: {first.said()}")


FAULTS: dict[str, Callable[[Run], None]] = {
    "kill": _kill,
    "kill at step": _kill_at_step,
    "step fails": _step_fails,
    "stopped": _stopped,
    "server killed": _server_killed,
    "server stopped": _server_stopped,
    "connections": _connections,
    "timeouts": _timeouts,
    "disk full": _disk_full,
    "lease": _lease,
}
