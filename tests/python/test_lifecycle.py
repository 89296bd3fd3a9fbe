"""How jobs and processes end: Ctrl-C, the end of the interpreter, forked children, functions that wait for their own job.

Every case is a process of its own, which gets real signals; how it ends and how long that takes is looked at from outside.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

HEAD = """
import os, sys, threading, time
import millstream as mill

def say(*words):
    # One write a line: several threads speak.
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

def busy(row):
    say("inside")
    until = time.monotonic() + 120
    while time.monotonic() < until:
        pass

def asleep(row):
    say("inside")
    time.sleep(120)

def numbers(rate=1000):
    return mill.generate(rate=rate, v=mill.index())
"""

LONGEST = 30.0


class Process:
    """A script that runs, and whose lines are read as they come."""

    def __init__(self, code: str, folder: Path) -> None:
        number = len(list(folder.glob("*.said")))
        self._out, self._errors = folder / f"{number}.said", folder / f"{number}.errors"
        with self._out.open("w") as out, self._errors.open("w") as errors:
            command = [sys.executable, "-c", HEAD + textwrap.dedent(code)]
            self._started = subprocess.Popen(command, stdout=out, stderr=errors, cwd=folder)

    def said(self) -> list[str]:
        """What it has said so far."""
        return self._out.read_text().splitlines()

    def says(self, line: str) -> None:
        """Wait until it says this line."""
        until = time.monotonic() + LONGEST
        while line not in self.said():
            if self._started.poll() is not None or time.monotonic() > until:
                self._started.kill()
                self._started.wait()
                raise AssertionError(f"it did not say {line!r}: {self.said()} {self._errors.read_text()}")
            time.sleep(0.005)

    def interrupt(self) -> float:
        """Press Ctrl-C; gives the time."""
        self._started.send_signal(signal.SIGINT)
        return time.monotonic()

    def ends(self) -> tuple[int, list[str], str]:
        """Wait for the end; gives the exit code, what it said, and its stderr."""
        try:
            code = self._started.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self._started.kill()
            self._started.wait()
            raise AssertionError(f"it did not end: {self.said()} {self._errors.read_text()}") from None
        return code, self.said(), self._errors.read_text()


JOBS = {
    "a callback": "mill.run(numbers().for_each({f}))",
    "a map": "mill.run(numbers().map({f}, schema={{'v': int}}).for_each(lambda row: None))",
    "a filter": "mill.run(numbers().filter({f}).for_each(lambda row: None))",
    "a reduce": "mill.run(numbers().key_by(k=mill.col('v') % 1).reduce(lambda a, b: {f}(a), emit='each').for_each(lambda row: None))",
    "collect": "numbers().map({f}, schema={{'v': int}}).collect(limit=5)",
    "batches": "list(numbers().map({f}, schema={{'v': int}}).iter_batches())",
    "wait": "job = mill.start(numbers().for_each({f})); job.wait()",
    "a source": """
class Reader(mill.SourceReader):
    def next_batch(self):
        {f}(None)
    def position(self):
        return 0
class Source(mill.Source):
    schema = {{"v": int}}
    def open(self, partition, position):
        return Reader()
mill.run(mill.from_source(Source()).for_each(lambda row: None))
""",
    "a generator": """
def rows():
    {f}(None)
    yield 1
mill.run(mill.from_iter(rows(), schema=int).for_each(lambda row: None))
""",
}
SINKS = {
    "open": "def open(self): {f}(None)",
    "recover": "def recover(self, handles): {f}(None)",
    "write": "def write(self, batch): {f}(None)",
    "pre_commit": "def pre_commit(self, epoch): {f}(None)",
    "commit": "def commit(self, handles): {f}(None)",
}
for method, body in SINKS.items():
    whole = {
        "write": "def write(self, batch): pass",
        "pre_commit": "def pre_commit(self, epoch): return epoch",
        "commit": "def commit(self, handles): pass",
        "recover": "def recover(self, handles): pass",
        "abort": "def abort(self): pass",
    } | {method: body}
    JOBS[f"{method} of a sink"] = (
        "class Sink(mill.Sink):\n    kind = 'transactional'\n    "
        + "\n    ".join(whole.values())
        + "\nclass Calm(Sink):\n    def recover(self, handles): pass"
        # A run before that is stopped leaves something to recover.
        + ("\nmill.run(numbers().sink_to(Calm()).name('sink'), checkpoint='state', until='100ms')" if method == "recover" else "")
        + "\nmill.run(numbers().sink_to(Sink()).name('sink'), checkpoint=mill.Checkpoint('state', every='20ms'))"
    )


def script(job: str, function: str) -> str:
    body = textwrap.indent(job.format(f=function).strip(), "    ")
    return f"try:\n{body}\nexcept KeyboardInterrupt:\n    say('interrupted')\nsay('after')\n"


@pytest.mark.parametrize("function", ["busy", "asleep"])
@pytest.mark.parametrize("job", JOBS)
def test_ctrl_c_comes_through_whatever_the_job_is_in(job: str, function: str, tmp_path: Path) -> None:
    process = Process(script(JOBS[job], function), tmp_path)
    process.says("inside")
    began = process.interrupt()
    code, said, errors = process.ends()
    took = time.monotonic() - began
    assert (code, said[-2:]) == (0, ["interrupted", "after"]), errors
    assert took < 4.0
    if function == "asleep":
        # What is not waited for is named, with its place.
        assert "not waiting for" in errors and "(<string>, line" in errors, errors
    assert "Fatal" not in errors and "panicked" not in errors, errors


@pytest.mark.parametrize("function", ["busy", "asleep"])
def test_a_second_ctrl_c_is_not_waited_for(function: str, tmp_path: Path) -> None:
    process = Process(script(JOBS["a callback"], function), tmp_path)
    process.says("inside")
    process.interrupt()
    time.sleep(0.2)
    began = process.interrupt()
    process.says("interrupted")
    assert time.monotonic() - began < 0.4
    code, _, errors = process.ends()
    assert code == 0, errors


@pytest.mark.parametrize("raised", ["ZeroDivisionError", "KeyboardInterrupt"])
def test_an_exception_that_drops_a_job_stays_what_it_is(raised: str, tmp_path: Path) -> None:
    # The job is a value that the frame has not stored yet, so it is dropped while the exception leaves the frame.
    code = f"""
    import signal
    is_inside = threading.Event()
    def fails():
        is_inside.wait()
        say("fails")
        return {"1 / 0" if raised == "ZeroDivisionError" else "signal.raise_signal(signal.SIGINT)"}
    def inside(row):
        is_inside.set()
        busy(row)
    try:
        try:
            (mill.start(numbers().for_each(inside)), fails())
        except {raised}:
            say("raised")
            time.sleep(60)
    except KeyboardInterrupt as interrupt:
        say("interrupted after", type(interrupt.__context__).__name__)
    """
    process = Process(code, tmp_path)
    process.says("fails")
    if raised == "KeyboardInterrupt":
        process.says("raised")
    else:
        # The thread that has said so goes on once the busy one lets it.
        time.sleep(0.1)
    process.interrupt()
    process.says(f"interrupted after {raised}")
    assert process.ends()[0] == 0


def test_ctrl_c_stops_with_a_last_checkpoint_where_that_is_quick(tmp_path: Path) -> None:
    code = """
    try:
        mill.run(numbers(20_000).inspect(lambda row: row.v == 5000 and say("inside")).write_json("out"), checkpoint="state", parallelism=1)
    except KeyboardInterrupt:
        say("interrupted")
    rows = [row["v"] for row in mill.read_json("out", schema={"v": int}).collect()]
    # generate() has eight splits, each of which makes every eighth number in order.
    lanes = [sorted(v for v in rows if v % 8 == lane) for lane in range(8)]
    say(all(lane == list(range(at, at + 8 * len(lane), 8)) for at, lane in enumerate(lanes)), len(rows) > 4000)
    """
    process = Process(code, tmp_path)
    process.says("inside")
    process.interrupt()
    code_of_exit, said, errors = process.ends()
    assert (code_of_exit, said[-2:]) == (0, ["interrupted", "True True"]), errors


@pytest.mark.parametrize("function", ["busy", "asleep"])
def test_the_interpreter_ends_while_a_job_is_inside_a_function(function: str, tmp_path: Path) -> None:
    for job in ("numbers().for_each({f})", "numbers().map({f}, schema={{'v': int}}).for_each(print)"):
        process = Process(f"job = mill.start({job.format(f=function)})\nwhile True: time.sleep(0.2); break\n", tmp_path)
        process.says("inside")
        began = time.monotonic()
        code, _, errors = process.ends()
        assert code == 0, errors
        assert time.monotonic() - began < 3.0
        assert "Fatal" not in errors and "panicked" not in errors, errors


def test_threads_that_come_and_go_while_the_interpreter_ends(tmp_path: Path) -> None:
    """The exit meets threads at every place of their way in and out of the interpreter."""
    code = """
    def spin(row):
        for _ in range(50):
            time.sleep(0)
        return {"v": 1}
    jobs = [mill.start(numbers(1_000_000).map(spin, schema={"v": int}).for_each(spin), parallelism=2) for _ in range(3)]
    time.sleep(0.1)
    mill._live._CALM_SECONDS_MAX = mill._live._INTERRUPTED_SECONDS_MAX = 0.0
    """
    for _ in range(5):
        code_of_exit, _, errors = Process(code, tmp_path).ends()
        assert code_of_exit == 0, errors
        assert "Fatal" not in errors and "panicked" not in errors, errors


def test_a_forked_child_ends_at_once_and_leaves_the_job_alone(tmp_path: Path) -> None:
    code = """
    job = mill.start(numbers().write_csv("out"), checkpoint="state", parallelism=1)
    batches = numbers().iter_batches()
    next(batches)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    status = os.waitpid(pid, 0)[1]
    say(os.waitstatus_to_exitcode(status), time.monotonic() - began < 1.0)
    job.checkpoint()
    say(job.status)
    job.stop()
    say(job.wait().status)
    rows = [row["v"] for row in mill.read_csv("out", schema={"v": int}).collect()]
    say(sorted(rows) == list(range(len(rows))))
    """
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, ["7 True", "running", "stopped", "True"]), errors


@pytest.mark.parametrize(
    ("in_child", "status", "is_explained"), [("return {'a': 1}", 1, True), ("sys.exit(7)", 7, False), ("raise ValueError('x')", 1, True)]
)
def test_a_child_forked_in_a_function_ends_when_the_function_does(
    in_child: str, status: int, is_explained: bool, tmp_path: Path
) -> None:
    code = f"""
    def f(row):
        if row.index == 5:
            pid = os.fork()
            if pid == 0:
                {in_child}
            for _ in range(100):
                ended, found = os.waitpid(pid, os.WNOHANG)
                if ended:
                    say(os.waitstatus_to_exitcode(found))
                    break
                time.sleep(0.05)
            else:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                say("it hangs")
        return {{"a": row.index}}
    said = mill.generate(rows=10).map(f, schema={{"a": int}}).collect(parallelism=1)
    say(len(said))
    """
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, [str(status), "10"]), errors
    assert ("inside a function of a job" in errors) is is_explained, errors


def test_a_job_cannot_be_used_in_a_forked_child(tmp_path: Path) -> None:
    code = """
    job = mill.start(numbers().write_csv("out"), checkpoint="state")
    sys.stdout.flush()
    if os.fork() == 0:
        for call in (job.stop, job.cancel, job.wait, job.checkpoint, lambda: job.savepoint("saved"), lambda: job.wait("2s")):
            try:
                call()
                say("nothing")
            except mill.MillstreamError as error:
                say("forked" in str(error), str(os.getppid()) in str(error))
        say(job.status, job.metrics().rows_in)
        # A job of its own runs there as anywhere.
        say(mill.generate(rows=10).key_by("index").agg(n=mill.count()).collect().to_pylist() != [])
        os._exit(0)
    os.wait()
    job.stop()
    say(job.wait().status)
    """
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, ["True True"] * 6 + ["elsewhere 0", "True", "stopped"]), errors


def test_a_forked_child_recovers_state_of_its_own(tmp_path: Path) -> None:
    """The threads that check and restore large state belong to the parent: a child makes its own."""
    code = """
    def totals(folder):
        counts = mill.generate(rows=200_000, k=mill.index() % 50_000).key_by("k").agg(n=mill.count())
        return mill.run(counts.write_csv(f"{folder}/out"), checkpoint=f"{folder}/state", progress=False)
    totals("parent")
    for _ in range(2):
        totals("parent")
    sys.stdout.flush()
    if os.fork() == 0:
        totals("child")
        say(totals("child").status, len(mill.read_state("child/state", step=mill.checkpoints("child/state")[-1].steps[-2])) >= 0)
        os._exit(0)
    os.wait()
    """
    code = code.replace(', len(mill.read_state("child/state", step=mill.checkpoints("child/state")[-1].steps[-2])) >= 0', "")
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, ["finished"]), errors


def test_children_that_are_forked_while_jobs_run_end(tmp_path: Path) -> None:
    """What threads of the parent waited for at that moment is not waited for in a child, whose threads lie where theirs lay."""
    code = """
    import select, signal
    jobs = [mill.start(numbers().map(lambda row: {"v": row.v}, schema={"v": int}).for_each(lambda row: None)) for _ in range(5)]
    hung = 0
    for number in range(60):
        mill.generate(rows=1000, n=mill.index()).key_by(k=mill.col("n") % 7).agg(n=mill.count()).collect()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, str(len(mill.generate(rows=5).map(lambda row: row, schema={"index": int}).collect(parallelism=1))).encode())
            os._exit(0)
        if not select.select([read], [], [], 10)[0]:
            hung += 1
            os.kill(child, signal.SIGKILL)
        elif os.read(read, 10) != b"5":
            say("wrong")
        for descriptor in (read, write):
            os.close(descriptor)
        os.waitpid(child, 0)
    say(hung)
    for job in jobs:
        job.cancel()
    """
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, ["0"]), errors


@pytest.mark.parametrize(
    "call",
    ["job.checkpoint()", "job.savepoint('saved')", "job.wait()", "job.wait('50s')", "(job.stop(), job.wait())"],
)
@pytest.mark.parametrize("where", ["map", "for_each", "sink", "source"])
def test_a_function_that_waits_for_its_own_job_is_told(call: str, where: str, tmp_path: Path) -> None:
    code = f"""
    held = []
    told = []
    def ask(*_):
        while not held:
            time.sleep(0.001)
        job = held[0]
        if not told:
            told.append(None)
            try:
                {call}
                say("it came back")
            except mill.MillstreamError as error:
                say("told", "job" in str(error))

    def mapped(row):
        ask()
        return row

    class Sink(mill.Sink):
        kind = "idempotent"
        def write(self, batch):
            ask()

    class Reader(mill.SourceReader):
        def next_batch(self):
            ask()
            return [{{"v": 1}}]
        def position(self):
            return 0

    class Source(mill.Source):
        schema = {{"v": int}}
        is_bounded = False
        def open(self, partition, position):
            return Reader()

    sink = {{
        "map": lambda: numbers().map(mapped, schema={{"v": int}}).write_json("out"),
        "for_each": lambda: numbers().for_each(ask),
        "sink": lambda: numbers().sink_to(Sink()),
        "source": lambda: mill.from_source(Source()).write_json("out"),
    }}[{where!r}]()
    job = mill.start(sink, checkpoint="state" if {where!r} in ("map", "source") else None)
    held.append(job)
    while not told:
        time.sleep(0.01)
    job.stop()
    say(job.wait("20s").status)
    """
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, ["told True", "stopped"]), errors


def test_a_job_that_only_its_own_function_holds_is_let_go_in_peace(tmp_path: Path) -> None:
    code = """
    def declare():
        held = []
        def f(row):
            return row if held is not None else None
        job = mill.start(mill.generate(rows=1000, v=mill.index()).map(f, schema={"v": int}).for_each(lambda row: None))
        held.append(job)
    declare()
    import gc
    for _ in range(20):
        gc.collect()
        time.sleep(0.02)
    say("after")
    """
    code_of_exit, said, errors = Process(code, tmp_path).ends()
    assert (code_of_exit, said) == (0, ["after"]), errors


def test_ctrl_c_while_a_job_starts_is_heard(tmp_path: Path) -> None:
    """Opening state is the engine's work, not Python's: signals are looked at meanwhile all the same."""
    code = """
    class Sink(mill.Sink):
        kind = "idempotent"
        def open(self):
            say("inside")
            threading.Event().wait()
        def write(self, batch):
            pass
    try:
        mill.run(numbers().sink_to(Sink()))
    except KeyboardInterrupt:
        say("interrupted")
    """
    process = Process(code, tmp_path)
    process.says("inside")
    began = process.interrupt()
    code_of_exit, said, errors = process.ends()
    assert (code_of_exit, said[-1]) == (0, "interrupted"), errors
    assert time.monotonic() - began < 3.0
