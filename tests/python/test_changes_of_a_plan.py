"""A job lives through changes of its plan: what happens at each, against plain Python.

Each change is made to a job that was stopped in the middle of its input, with state. Then it is resumed with the changed plan:
either its results are what plain Python makes of the two plans, with what the report must say of it, or it is refused with an
error that names the step and what to write. The table is that of docs/guide/checkpoints.md.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col

ROWS = 240
START = datetime(2026, 1, 1)

AGGREGATES: dict[str, tuple[Callable[[], Any], Callable[[list[int]], Any]]] = {
    "n": (mill.count, len),
    "total": (lambda: col("x").sum(), lambda xs: sum(xs) if xs else None),
    "top": (lambda: col("x").max(), lambda xs: max(xs, default=None)),
    "least": (lambda: col("x").min(), lambda xs: min(xs, default=None)),
    "mean": (lambda: col("x").mean(), lambda xs: sum(xs) / len(xs) if xs else None),
    "last": (lambda: col("x").last(), lambda xs: xs[-1] if xs else None),
    "kinds": (lambda: (col("x") % 7).n_unique(), lambda xs: len({x % 7 for x in xs})),
    "texts": (lambda: col("x").cast(str).max(), lambda xs: max(map(str, xs), default=None)),
    "half": (lambda: col("x").median(), lambda xs: None),
}


@dataclass(frozen=True)
class Plan:
    """A job: filter, perhaps the first of each value, counted by key."""

    modulo: int = 3
    keeps: Callable[[Any], Any] | None = None
    is_added: bool = False
    first_of: int | None = None
    first_name: str = "firsts"
    columns: tuple[str, ...] = ("n", "total")
    changed: dict[str, Any] = field(default_factory=dict)
    name: str | None = "totals"
    was: str | None = None
    window: mill.Window | None = None
    lateness: str = "0s"
    bound: str = "0s"
    udf: Callable[[int], int] | None = None
    out: str = "out"
    has_second: bool = False
    parallelism: int = 2

    def stream(self, source: mill.Stream) -> mill.Stream:
        stream = source
        if self.keeps is not None:
            stream = stream.filter(self.keeps(col("x")))
        if self.is_added:
            stream = stream.with_columns(y=col("x") + 1)
        if self.udf is not None:
            stream = stream.with_columns(x=mill.udf(returns=int)(self.udf)(col("x")))
        if self.first_of is not None:
            stream = stream.key_by(d=col("x") % self.first_of).deduplicate().name(self.first_name)
        if self.window is not None:
            stream = stream.event_time("at", watermark=self.bound)
        keyed = stream.key_by(k=col("x") % self.modulo)
        aggregates = {column: self.changed.get(column, AGGREGATES[column][0]()) for column in self.columns}
        if self.window is not None:
            result: mill.Stream = keyed.window(self.window, allowed_lateness=self.lateness).agg(**aggregates)
        else:
            result = keyed.agg(**aggregates)
        return result if self.name is None else result.name(self.name, was=self.was)

    def sinks(self, source: mill.Stream, folder: Path) -> list[mill.Output]:
        sinks = [self.stream(source).write_json(folder / self.out)]
        if self.has_second:
            sinks.append(source.select("x").write_json(folder / "second").name("second"))
        return sinks


class Records:
    """Numbers, slowly enough to be stopped in between; notes where they were read from."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.start = 0

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        self.start = start
        for x in range(start, ROWS):
            # Slower once there is enough: a machine that is busy still stops it in the middle.
            time.sleep(self.pause if x < start + 40 else 20 * self.pause)
            yield {"x": x, "at": START + timedelta(seconds=x)}

    def stream(self) -> mill.Stream:
        return mill.from_iter(self.rows, schema={"x": int, "at": datetime})


def stop_in_the_middle(plan: Plan, folder: Path) -> None:
    job = mill.start(*plan.sinks(Records(0.001).stream(), folder), checkpoint=folder / "state", parallelism=plan.parallelism)
    until = time.monotonic() + 60
    while (metrics := job.metrics()) is None or sum(step.rows_out for step in metrics.steps if step.name.startswith("from_iter")) < 30:
        assert time.monotonic() < until, "the job does not read"
        time.sleep(0.002)
    job.stop()
    assert job.wait("60s").status == "stopped"


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("[!.]*")) for line in path.read_text().splitlines()]


def passed(before: Plan, now: Plan, at: int, is_fresh: bool) -> list[tuple[int, int]]:
    """Return the records that reach the aggregate: place and number."""
    seen: set[int] = set()
    out = []
    for x in range(ROWS):
        plan = before if x < at else now
        if x == at and (before.first_of != now.first_of or is_fresh):
            seen = set()
        if plan.keeps is not None and not plan.keeps(x):
            continue
        value = x if plan.udf is None else plan.udf(x)
        if plan.first_of is not None:
            if value % plan.first_of in seen:
                continue
            seen.add(value % plan.first_of)
        out.append((x, value))
    return out


def expected(before: Plan, now: Plan, at: int, fresh: bool, first_fresh: bool = False) -> dict[int, dict[str, Any]]:
    records = passed(before, now, at, first_fresh)
    keys = {value % now.modulo for x, value in records if x >= at or not fresh}

    def of(key: int, column: str) -> Any:
        is_kept = not fresh and column in before.columns
        return AGGREGATES[column][1]([v for x, v in records if v % now.modulo == key and (x >= at or is_kept)])

    return {key: {column: of(key, column) for column in now.columns} for key in keys}


@dataclass(frozen=True)
class Change:
    """A change, and what happens."""

    title: str
    before: Plan
    now: Plan
    #: What the notes of the report must hold; none are expected if there is nothing here.
    told: tuple[str, ...] = ()
    #: What the error must hold, instead of going on.
    refused: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    #: Whether the aggregate, or the step before it, starts empty.
    fresh: bool = False
    first_fresh: bool = False


def doubled(x: int) -> int:
    return 2 * x


def tripled(x: int) -> int:
    return 3 * x


def doubled_otherwise(x: int) -> int:
    return 2 * x + 100


doubled_otherwise.__name__ = doubled_otherwise.__qualname__ = "doubled"

BASE = Plan()
FIRSTS = Plan(first_of=150)


def over_ten(x: Any) -> Any:
    return x >= 10


def odd(x: Any) -> Any:
    return x % 2 == 1


KEYED = [
    Change("nothing", BASE, BASE),
    Change("parallelism", BASE, replace(BASE, parallelism=3)),
    Change("a filter is edited", replace(BASE, keeps=over_ten), replace(BASE, keeps=odd), ("filter: predicate was", )),
    Change("a filter is new", BASE, replace(BASE, keeps=odd), ("new step: filter",)),
    Change("a filter is gone", replace(BASE, keeps=odd), BASE, ("no longer there: filter",)),
    Change("a column is computed besides", BASE, replace(BASE, is_added=True), ("new step: with_columns",)),
    Change("the code of a function", replace(BASE, udf=doubled), replace(BASE, udf=doubled_otherwise)),
    Change("another function", replace(BASE, udf=doubled), replace(BASE, udf=tripled), ("with_columns: ", "tripled")),
    Change("the key", BASE, replace(BASE, modulo=4), refused=("changed: totals ", "% 3", "% 4", 'drop=["totals"] with allow_new=["totals"]')),
    Change(
        "the key, with drop and allow_new", BASE, replace(BASE, modulo=4), ("totals: the state of its former form is dropped",),
        options={"drop": ["totals"], "allow_new": ["totals"]}, fresh=True,
    ),
    Change("an aggregate is new", BASE, replace(BASE, columns=("n", "total", "top")), refused=("aggregate top=max(int64)", 'allow_new=["totals.top"]')),
    Change(
        "an aggregate is new, with allow_new", BASE, replace(BASE, columns=("top", "n", "mean", "total", "last", "texts")),
        ("totals: aggregate top=max(int64)", "starts empty"),
        options={"allow_new": ["totals.top", "totals.mean", "totals.last", "totals.texts"]},
    ),
    Change("aggregates are new, with allow_new=True", BASE, replace(BASE, columns=("n", "total", "least")), ("least=min",), options={"allow_new": True}),
    Change("an aggregate is gone", BASE, replace(BASE, columns=("n",)), refused=("aggregate total=sum(int64)", 'drop=["totals.total"]')),
    Change(
        "an aggregate is gone, with drop", replace(BASE, columns=("least", "texts", "n", "last", "total")), replace(BASE, columns=("last", "total", "least")),
        ("aggregate n=count() is dropped",), options={"drop": ["totals.n", "totals.texts"]},
    ),
    Change("the order of aggregates", BASE, replace(BASE, columns=("total", "n")), ("totals: its aggregates are in another order",)),
    Change(
        "an aggregate of the same name", BASE, replace(BASE, changed={"total": col("x").max()}),
        refused=("aggregate total was total=sum(int64)", "is total=max(int64)", "another name"),
    ),
    Change(
        "an aggregate instead of another", BASE, replace(BASE, columns=("n", "top")), ("is dropped", "starts empty"),
        options={"drop": ["totals.total"], "allow_new": ["totals.top"]},
    ),
    Change(
        "an aggregate beside n_unique", replace(BASE, columns=("n", "kinds")), replace(BASE, columns=("n", "kinds", "top")),
        refused=("totals", "n_unique() keeps a table of its own"), options={"allow_new": True},
    ),
    Change("a step with state is new", BASE, FIRSTS, refused=("not in the checkpoint: firsts", "start empty", 'allow_new=["firsts"]')),
    Change("a step with state is new, with allow_new", BASE, FIRSTS, ("firsts: is new and starts empty",), options={"allow_new": ["firsts"]}),
    Change("a step with state is gone", FIRSTS, BASE, refused=("no longer in the plan: firsts", 'drop=["firsts"]')),
    Change("a step with state is gone, with drop", FIRSTS, BASE, ("firsts: it is gone, and its state is dropped",), options={"drop": ["firsts"]}),
    Change(
        "all at once", FIRSTS, Plan(first_of=90, first_name="once", modulo=5, name="sums"),
        refused=("no longer in the plan: firsts", "no longer in the plan: totals", "not in the checkpoint: once", "not in the checkpoint: sums"),
    ),
    Change("a name", BASE, replace(BASE, name="sums"), refused=("no longer in the plan: totals", '.name("sums", was="totals")')),
    Change("a name, with was", BASE, replace(BASE, name="sums", was="totals"), ("sums: its name was \"totals\"",)),
    Change("a name, with was, and an aggregate", BASE, replace(BASE, name="sums", was="totals", columns=("n", "top", "total")),
           ('its name was "totals"; aggregate top=max',), options={"allow_new": ["sums.top"]}),
    Change("a step gets a name", replace(BASE, name=None), replace(BASE, was="agg"), ('totals: its name was "agg"',)),
    Change("a wrong former name", BASE, replace(BASE, name="sums", was="totls"), refused=('no step "totls"', 'did you mean "totals"')),
    Change("a wrong name in allow_new", BASE, FIRSTS, refused=('allow_new=["first"]', 'did you mean "firsts"'), options={"allow_new": ["first"]}),
    Change("a wrong name in drop", FIRSTS, BASE, refused=('drop=["frists"]', 'did you mean "firsts"'), options={"drop": ["frists"]}),
    Change("drop of what is there", BASE, BASE, refused=('drop=["totals"]: the plan has it as the checkpoint has it',), options={"drop": ["totals"]}),
    Change("a sink is new", BASE, replace(BASE, has_second=True), ("new step: second",)),
    Change("a sink is gone", replace(BASE, has_second=True), BASE, ("no longer there: second",)),
    Change("the path of a sink", BASE, replace(BASE, out="other"), refused=("out",)),
]


def resume(plan: Plan, folder: Path, records: Records, **options: Any) -> mill.Report:
    checkpoint = mill.Checkpoint(folder / "state", **options)
    return mill.run(*plan.sinks(records.stream(), folder), checkpoint=checkpoint, parallelism=plan.parallelism)


@pytest.mark.parametrize("change", KEYED, ids=lambda change: re.sub(r"\W+", "-", change.title))
def test_a_changed_plan_is_right_or_refused(change: Change, tmp_path: Path) -> None:
    stop_in_the_middle(change.before, tmp_path)
    records = Records(0)
    held = {path: path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()}
    diff = mill.state_diff(*change.now.sinks(records.stream(), tmp_path), checkpoint=mill.Checkpoint(tmp_path / "state", **change.options))
    assert held == {path: path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()}
    if change.refused:
        with pytest.raises(mill.MillstreamError) as raised:
            resume(change.now, tmp_path, records, **change.options)
        for words in change.refused:
            assert words in str(raised.value)
            # What is at the target of a sink is looked at by the sink.
            assert words in str(diff) or change.title == "the path of a sink"
        # Nothing is lost: the former plan goes on.
        resume(change.before, tmp_path, records)
        assert results(tmp_path / "out")
        return
    assert not diff.is_refused, str(diff)
    report = resume(change.now, tmp_path, records, **change.options)
    at = records.start
    assert 0 < at < ROWS
    notes = [note for note in report.notes if "plan has changed" in note]
    assert bool(notes) == bool(change.told), notes
    assert ({step.change for step in diff.steps} != {"kept"}) == bool(change.told), str(diff)
    for words in change.told:
        assert words in " | ".join(notes)
        # Each line of the table begins with the step, which needs no second mention.
        assert words in str(diff) or words.split(": ", 1)[-1] in str(diff)
    found = {row.pop("k"): row for row in results(tmp_path / "out")}
    assert found == expected(change.before, change.now, at, change.fresh, change.first_fresh)
    if change.title == "a sink is new":
        assert [row["x"] for row in results(tmp_path / "second")] == list(range(at, ROWS))
    if change.title == "a sink is gone":
        assert [row["x"] for row in results(tmp_path / "second")] == list(range(at))
    # The same script again, with the same options: there is nothing more to say.
    again = resume(replace(change.now, parallelism=2), tmp_path, records, **change.options)
    assert len(again.notes) == 1 and "nothing to do" in again.notes[0]


WINDOWED = Plan(window=mill.tumbling("40s"))

WINDOWS = [
    Change("the bound of watermarks", WINDOWED, replace(WINDOWED, bound="7s"), ("event_time",)),
    Change("allowed lateness", WINDOWED, replace(WINDOWED, lateness="9s"), ("totals: ", "lateness")),
    Change("the size of a window", WINDOWED, replace(WINDOWED, window=mill.tumbling("50s")), refused=("changed: totals", "40s", "50s")),
    Change("the kind of a window", WINDOWED, replace(WINDOWED, window=mill.session("40s")), refused=("changed: totals", "session")),
    Change(
        "an aggregate of windows is new", WINDOWED, replace(WINDOWED, columns=("top", "n", "total")), ("aggregate top=max",),
        options={"allow_new": ["totals.top"]},
    ),
    Change(
        "an aggregate of windows is gone", WINDOWED, replace(WINDOWED, columns=("total",)), ("aggregate n=count",), options={"drop": ["totals.n"]},
    ),
    Change(
        "an aggregate of sliding windows is new", Plan(window=mill.sliding("40s", slide="20s")),
        Plan(window=mill.sliding("40s", slide="20s"), columns=("n", "least", "total")), ("aggregate least=min",), options={"allow_new": True},
    ),
    Change(
        "an aggregate that panes do not share", Plan(window=mill.sliding("40s", slide="20s")),
        Plan(window=mill.sliding("40s", slide="20s"), columns=("n", "texts", "half", "total")),
        refused=("totals", "cannot be combined out of panes"), options={"allow_new": True},
    ),
    Change(
        "an aggregate of sessions is new", Plan(window=mill.session("500s")), Plan(window=mill.session("500s"), columns=("least", "n", "total")),
        ("aggregate least=min",), options={"allow_new": ["totals.least"]},
    ),
    Change(
        "windows that would keep their records", Plan(window=mill.session("500s")), Plan(window=mill.session("500s"), columns=("half", "n", "total")),
        refused=("totals", "keep their records"), options={"allow_new": True},
    ),
]


@pytest.mark.parametrize("change", WINDOWS, ids=lambda change: re.sub(r"\W+", "-", change.title))
def test_changed_windows_are_right_or_refused(change: Change, tmp_path: Path) -> None:
    stop_in_the_middle(change.before, tmp_path)
    records = Records(0)
    if change.refused:
        with pytest.raises(mill.CheckpointError) as raised:
            resume(change.now, tmp_path, records, **change.options)
        assert all(words in str(raised.value) for words in change.refused), str(raised.value)
        resume(change.before, tmp_path, records)
        return
    notes = " | ".join(resume(change.now, tmp_path, records, **change.options).notes)
    assert all(words in notes for words in change.told), notes
    at, seen = records.start, set()
    for row in results(tmp_path / "out"):
        first, end = ((datetime.fromisoformat(row[bound]) - START).total_seconds() for bound in ("window_start", "window_end"))
        assert (row["k"], first) not in seen
        seen.add((row["k"], first))
        all_of = [x for x in range(ROWS) if first <= x < end and x % 3 == row["k"]]
        is_early = set(row) - {"k", "window_start", "window_end"} == set(change.before.columns) != set(change.now.columns)
        columns = change.before.columns if is_early else change.now.columns
        # A window that was complete had all its records in the former run.
        assert not is_early or all(x < at for x in all_of)
        of = {column: all_of if column in change.before.columns else [x for x in all_of if x >= at] for column in columns}
        assert {column: row[column] for column in columns} == {column: AGGREGATES[column][1](of[column]) for column in columns}
    window = change.now.window
    # Every window is there: one for each 40 s, two, or one session for each key.
    windows = {mill.TumblingWindow: ROWS // 40, mill.SlidingWindow: ROWS // 20 + 1, mill.SessionWindow: 1}[type(window)]
    assert len(seen) == 3 * windows


class Sums(mill.ProcessFunction):
    """Sums up, in state."""

    total = mill.ValueState(int, default=0)

    def process(self, row: mill.Row, ctx: mill.ProcessContext) -> Iterator[dict[str, Any]]:
        self.total.value += row.x
        yield {"x": row.x, "total": self.total.value, "extra": None}


class SumsWithTtl(Sums):
    total = mill.ValueState(int, default=0, ttl="1d", clock="processing")


class SumsAndCount(Sums):
    count = mill.ValueState(int, default=1000)

    def process(self, row: mill.Row, ctx: mill.ProcessContext) -> Iterator[dict[str, Any]]:
        self.total.value += row.x
        self.count.value += 1
        yield {"x": row.x, "total": self.total.value, "extra": self.count.value}


class SumsAsFloat(Sums):
    total = mill.ValueState(str, default="0", migrate=lambda old: str(old))

    def process(self, row: mill.Row, ctx: mill.ProcessContext) -> Iterator[dict[str, Any]]:
        self.total.value = str(int(self.total.value) + row.x)
        yield {"x": row.x, "total": int(self.total.value), "extra": None}


class SumsAsText(Sums):
    total = mill.ValueState(str, default="0")


class Nothing(Sums):
    total = None  # type: ignore[assignment]
    other = mill.ValueState(int, default=0)


FUNCTIONS: list[tuple[str, type, dict[str, Any], Any, tuple[str, ...], tuple[str, ...]]] = [
    ("another ttl", SumsWithTtl, {}, lambda x, at: None, ('for "1d" of processing time',), ()),
    ("a new state", SumsAndCount, {}, lambda x, at: (x - at) // 3 + 1001 if x >= at else None, ("count",), ()),
    ("another type, with migrate", SumsAsFloat, {}, lambda x, at: None, ("total",), ()),
    ("another type", SumsAsText, {}, None, (), ('state "total"', "migrate=")),
    ("a state is gone", Nothing, {}, None, (), ('state "total" is in it',)),
]


@pytest.mark.parametrize(("title", "function", "options", "extra", "told", "refused"), FUNCTIONS, ids=[one[0].replace(" ", "-") for one in FUNCTIONS])
def test_changed_states_of_a_function(
    title: str, function: type, options: dict[str, Any], extra: Any, told: tuple[str, ...], refused: tuple[str, ...], tmp_path: Path
) -> None:
    schema = {"x": int, "total": int, "extra": int}

    def sinks(kind: type, records: Records) -> mill.Output:
        return records.stream().key_by(k=col("x") % 3).process(kind(), schema=schema).name("sums").write_json(tmp_path / "out")

    job = mill.start(sinks(Sums, Records(0.001)), checkpoint=tmp_path / "state", parallelism=2)
    while (metrics := job.metrics()) is None or sum(step.rows_out for step in metrics.steps if step.name.startswith("from_iter")) < 30:
        time.sleep(0.002)
    job.stop()
    assert job.wait("60s").status == "stopped"
    records = Records(0)
    diff = mill.state_diff(sinks(function, records), checkpoint=tmp_path / "state")
    if refused:
        assert all(words in str(diff) for words in refused), str(diff)
        with pytest.raises(mill.CheckpointError) as raised:
            mill.run(sinks(function, records), checkpoint=tmp_path / "state")
        assert all(words in str(raised.value) for words in ("sums", *refused)), str(raised.value)
        return
    report = mill.run(sinks(function, records), checkpoint=tmp_path / "state", parallelism=2)
    notes, at = " | ".join(report.notes), records.start
    assert all(words in notes and words in str(diff) for words in told), notes
    rows = {row["x"]: row for row in results(tmp_path / "out")}
    assert sorted(rows) == list(range(ROWS))
    # Records of a key come in their order.
    for x, row in rows.items():
        assert row["total"] == sum(range(x % 3, x + 1, 3))
        first = min((y for y in range(at, ROWS) if y % 3 == x % 3), default=0)
        assert row["extra"] == (extra(x, first) if x >= at else None)


SCRIPT = """
import sys
import millstream as mill
from millstream import col

rows = [{{"x": x}} for x in range(30)]
totals = mill.from_iter(rows).key_by(k=col("x") % {modulo}).agg(n=mill.count()).name("totals")
report = mill.run(totals.write_json({out!r} + (sys.argv[1] if len(sys.argv) > 1 else "")), checkpoint={state!r})
print("rows in", report.rows_in)
raise AssertionError("not reached where nothing runs")
"""


def diffed(*arguments: str) -> int:
    from millstream._cli import main

    return main(["state", "diff", *arguments])


def test_the_command_line_compares_what_a_script_declares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def script(modulo: int, name: str = "flow.py", more: str = "") -> str:
        path = tmp_path / name
        path.write_text(more + SCRIPT.format(modulo=modulo, out=str(tmp_path / "out"), state=str(tmp_path / "state")))
        return str(path)

    assert diffed(script(3)) == 2
    assert "state" in capsys.readouterr().err
    plan = mill.from_iter([{"x": x} for x in range(30)]).key_by(k=col("x") % 3).agg(n=mill.count()).name("totals")
    mill.run(plan.write_json(tmp_path / "out"), checkpoint=tmp_path / "state")
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    state = str(tmp_path / "state")
    for arguments in [(script(3),), (state, script(3)), (script(3), "--checkpoint", state), ("--checkpoint", state, script(3))]:
        assert diffed(*arguments) == 0
        shown = capsys.readouterr().out
        assert re.search(r"kept +totals\n", shown) and "the job would continue from it" in shown
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written
    assert diffed(script(4)) == 1
    shown = capsys.readouterr().out
    assert "refused" in shown and "% 3" in shown and "% 4" in shown and "the job had finished" in shown
    # The arguments of the script are its own, though they look like ours: here they lead to another output.
    assert diffed(script(3), "--", "--id") in (0, 1)
    assert "out--id" in capsys.readouterr().out
    assert diffed(state, script(3, more="import millstream as mill\nmill.from_iter([1]).collect()\n")) == 2
    assert "calls collect() before it declares its job" in capsys.readouterr().err
    (tmp_path / "none.py").write_text("x = 1\n")
    assert diffed(str(tmp_path / "none.py")) == 2
    assert "declares no job with a checkpoint" in capsys.readouterr().err
    assert diffed(str(tmp_path / "missing.py")) == 2
    # Its parameters are set as for a run.
    asks = script(3, "asks.py", "import millstream as mill\nmill.parameter('day')\nmill.parameter('rows', 3)\n")
    assert diffed(asks) == 2
    assert "parameter('day') has no default and is not set" in capsys.readouterr().err
    assert diffed("--set", "day=1", state, asks) == 0
    for wrong, said in (("rows=x", "--set rows=x: expected an int"), ("dya=1", "not asked for a parameter 'dya'"), ("day", "--set takes name=value")):
        assert diffed("--set", "day=1", "--set", wrong, asks) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    assert diffed(str(tmp_path / "wrong.py")) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_running_job_is_not_disturbed_by_a_look(tmp_path: Path) -> None:
    sink = Records(0.002).stream().key_by(k=col("x") % 3).agg(n=mill.count()).name("totals").write_json(tmp_path / "out")
    job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms", retain=1))
    looks = 0
    while job.status.state == "running":
        if (tmp_path / "state").exists() and mill.checkpoints(tmp_path / "state"):
            assert not mill.state_diff(sink, checkpoint=tmp_path / "state").is_refused
            looks += 1
    assert job.wait("60s").status == "finished"
    assert looks


def test_a_savepoint_is_compared_too(tmp_path: Path) -> None:
    def plan(modulo: int) -> mill.Output:
        keyed = mill.generate(rate=2_000, x=mill.index()).key_by(k=col("x") % modulo)
        return keyed.agg(n=mill.count(), emit="checkpoint").name("totals").write_sqlite(tmp_path / "t.db", "t", key="k")

    job = mill.start(plan(3), checkpoint=tmp_path / "state")
    job.savepoint(tmp_path / "saved")
    job.stop()
    job.wait()
    assert not mill.state_diff(plan(3), checkpoint=tmp_path / "saved").is_refused
    elsewhere = mill.Checkpoint(tmp_path / "new", restore_from=tmp_path / "saved")
    assert mill.state_diff(plan(4), checkpoint=elsewhere).is_refused
    with pytest.raises(mill.CheckpointError):
        mill.state_diff(plan(3), checkpoint=tmp_path / "nowhere")


@pytest.mark.parametrize("given", [{"allow_new": "totals"}, {"drop": "totals"}, {"drop": [1]}, {"allow_new": 1}])
def test_names_come_in_lists(given: dict[str, Any]) -> None:
    with pytest.raises(mill.PlanError, match="list of names of steps"):
        mill.Checkpoint("state", **given)


def test_drop_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    sink = mill.from_iter([1]).write_json(tmp_path / "out")
    with pytest.raises(mill.CheckpointError, match=r'drop=\["totals"\]: there is no checkpoint yet'):
        mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", drop=["totals"]))


def test_a_former_name_is_another_one_than_the_name() -> None:
    stream = mill.from_iter([1]).key_by("value").agg(n=mill.count())
    with pytest.raises(mill.PlanError, match="the name is the former one"):
        stream.name("a", was="a")


def test_a_job_that_dropped_state_starts_again_with_the_same_options(tmp_path: Path) -> None:
    """A supervisor starts a script again and again: what its options have done once is no reason to refuse it."""
    stop_in_the_middle(FIRSTS, tmp_path)
    options: dict[str, Any] = {"drop": ["firsts"]}
    job = mill.start(
        *BASE.sinks(Records(0.001).stream(), tmp_path), checkpoint=mill.Checkpoint(tmp_path / "state", **options), parallelism=2
    )
    time.sleep(0.05)
    job.stop()
    assert job.wait("60s").status in ("stopped", "finished")
    resume(BASE, tmp_path, Records(0), **options)
    # Once dropped, it is gone: the former plan needs leave to start that step empty.
    with pytest.raises(mill.CheckpointError, match="finished"):
        resume(FIRSTS, tmp_path, Records(0))


def test_aggregates_come_and_go_over_many_keys_and_runs(tmp_path: Path) -> None:
    """Rows fill many chunks; each run continues from what the one before has rewritten, and from changes of it."""
    rows, keys, starts = 24_000, 4_001, []

    def made(start: int) -> Iterator[dict[str, int]]:
        starts.append(start)
        for x in range(start, rows):
            if x % 50 == 0:
                time.sleep(0.001)
            yield {"x": x * 7 % 10_007}

    def run(columns: tuple[str, ...], until: int | None, **options: Any) -> None:
        stream = mill.from_iter(made, schema={"x": int}).key_by(k=col("x") % keys)
        totals = stream.agg(**{column: AGGREGATES[column][0]() for column in columns}).name("totals")
        checkpoint = mill.Checkpoint(tmp_path / "state", every="20ms", **options)
        job = mill.start(totals.write_json(tmp_path / "out"), checkpoint=checkpoint, parallelism=2)
        while until is not None and ((metrics := job.metrics()) is None or metrics.steps[0].rows_out < until):
            time.sleep(0.001)
        if until is not None:
            job.stop()
        assert job.wait("60s").status == ("finished" if until is None else "stopped")

    run(("n", "total", "least", "last", "top"), 4_000)
    # More flags than the first word of a row holds, and other places for all of them.
    run(("top", "mean", "last", "n", "texts", "total", "least"), 4_000, allow_new=["totals.mean", "totals.texts"])
    run(("top", "mean", "last", "n", "texts", "total", "least"), 2_000)
    run(("least", "mean", "last", "texts", "top"), None, drop=["totals.n", "totals.total"])
    assert 0 < starts[1] < starts[2] < starts[3] < rows
    of: dict[int, list[tuple[int, int]]] = {}
    for place in range(rows):
        of.setdefault(place * 7 % 10_007 % keys, []).append((place, place * 7 % 10_007))
    found = {row.pop("k"): row for row in results(tmp_path / "out")}
    assert found.keys() == of.keys()
    for key, row in found.items():
        all_of, late = [x for _, x in of[key]], [x for place, x in of[key] if place >= starts[1]]
        wanted = {column: AGGREGATES[column][1](all_of) for column in ("least", "last", "top")}
        assert row == {**wanted, **{column: AGGREGATES[column][1](late) for column in ("mean", "texts")}}


def stop_after(sinks: list[mill.Output], checkpoint: mill.Checkpoint) -> None:
    """Stop a job after it has read 30 records."""
    job = mill.start(*sinks, checkpoint=checkpoint, parallelism=1)
    until = time.monotonic() + 60
    while (metrics := job.metrics()) is None or sum(step.rows_out for step in metrics.steps if step.name.startswith("from_iter")) < 30:
        assert time.monotonic() < until, "the job does not read"
        time.sleep(0.002)
    job.stop()
    assert job.wait("60s").status == "stopped"


def refusal(sinks: list[mill.Output], checkpoint: mill.Checkpoint) -> str:
    with pytest.raises(mill.CheckpointError) as raised:
        mill.run(*sinks, checkpoint=checkpoint)
    return str(raised.value)


@pytest.mark.parametrize("every", ["30s", "5ms"])
@pytest.mark.parametrize("runs", [("a", "b"), ("a", "b", "b", "b"), ("a", "b", "c"), ("a", "b", "a")], ids="-".join)
def test_a_rename_before_a_sink_doubles_and_loses_nothing(every: str, runs: tuple[str, ...], tmp_path: Path) -> None:
    """A sink without a name has an identity made of the names before it, and SQLite knows what it committed by that."""

    def sinks(pause: float, name: str, was: str | None) -> list[mill.Output]:
        firsts = Records(pause).stream().select("x").key_by(k=col("x") % 1000).deduplicate().name(name, was=was)
        return [firsts.write_sqlite(tmp_path / "t.db", "t")]

    def rows() -> list[int]:
        with closing(sqlite3.connect(tmp_path / "t.db")) as database:
            return [x for (x,) in database.execute("select x from t order by x")]

    was = None
    for place, name in enumerate(runs):
        plan = sinks(0.001, name, was)
        if place:
            assert not mill.state_diff(*plan, checkpoint=tmp_path / "state").is_refused
        stop_after(plan, mill.Checkpoint(tmp_path / "state", every=every))
        assert rows() == list(range(len(rows())))
        was = next((former for former in reversed(runs[: place + 1]) if place + 1 < len(runs) and former != runs[place + 1]), None)
    mill.run(*sinks(0, runs[-1], None), checkpoint=tmp_path / "state")
    assert rows() == list(range(ROWS))


KILLED = """
import os, time
from datetime import datetime
import millstream as mill
from millstream import col

def rows(start):
    for x in range(start, start + 20):
        time.sleep(0.002)
        yield {{"x": x, "at": datetime(2026, 1, 1)}}
    os._exit(9)

stream = mill.from_iter(rows, schema={{"x": int, "at": datetime}}).select("x").key_by(k=col("x") % 1000).deduplicate().name("b", was="a")
mill.run(stream.write_sqlite({table!r}, "t"), checkpoint=mill.Checkpoint({state!r}, every={every!r}), progress=False)
"""


@pytest.mark.parametrize("every", ["30s", "5ms"])
def test_a_rename_and_a_kill_before_or_after_the_next_checkpoint(every: str, tmp_path: Path) -> None:
    def sinks(pause: float, name: str, was: str | None) -> list[mill.Output]:
        firsts = Records(pause).stream().select("x").key_by(k=col("x") % 1000).deduplicate().name(name, was=was)
        return [firsts.write_sqlite(tmp_path / "t.db", "t")]

    stop_after(sinks(0.001, "a", None), mill.Checkpoint(tmp_path / "state", every=every))
    script = KILLED.format(table=str(tmp_path / "t.db"), state=str(tmp_path / "state"), every=every)
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=60).returncode == 9
    stop_after(sinks(0.001, "b", "a"), mill.Checkpoint(tmp_path / "state", every=every))
    mill.run(*sinks(0, "b", "a"), checkpoint=tmp_path / "state")
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        assert [x for (x,) in database.execute("select x from t order by x")] == list(range(ROWS))


def test_two_sinks_of_one_identity_are_refused(tmp_path: Path) -> None:
    def sinks(*names: tuple[str, str | None]) -> list[mill.Output]:
        source = Records(0.001).stream().select("x")
        return [
            source.key_by(k=col("x") % 1000).deduplicate().name(name, was=was).write_sqlite(tmp_path / "t.db", f"t{place}")
            for place, (name, was) in enumerate(names)
        ]

    stop_after(sinks(("a", None)), mill.Checkpoint(tmp_path / "state"))
    stop_after(sinks(("b", "a")), mill.Checkpoint(tmp_path / "state"))
    told = refusal(sinks(("b", "a"), ("a", None)), mill.Checkpoint(tmp_path / "state", allow_new=["a"]))
    assert "could not tell it from" in told


Names = tuple[tuple[str, str | None], ...]


@pytest.mark.parametrize(
    "runs",
    [
        # Swapped, with the same script again, without was=, and swapped back.
        (
            (("even", None), ("odd", None)), (("odd", "even"), ("even", "odd")), (("odd", "even"), ("even", "odd")), (("odd", None), ("even", None)),
            (("even", "odd"), ("odd", "even")),
        ),
        # Handed on, and the new names handed on in the next run.
        ((("even", None), ("odd", None)), (("odd", "even"), ("uneven", "odd")), (("odd", "even"), ("uneven", "odd")), (("first", "odd"), ("third", "uneven"))),
        # What was said from the beginning is no rename.
        ((("odd", "even"), ("even", "odd")), (("odd", "even"), ("even", "odd"))),
        # Renamed there and back.
        ((("even", None), ("odd", None)), (("even", None), ("uneven", "odd")), (("even", None), ("odd", "uneven")), (("even", None), ("uneven", "odd"))),
    ],
)
def test_names_change_hands(runs: tuple[Names, ...], tmp_path: Path) -> None:
    """Each step keeps its state, and each unnamed sink after one goes on with its table, whatever the names."""

    def sinks(names: Names, pause: float = 0.001) -> list[mill.Output]:
        source = Records(pause).stream()
        parts = [source.filter(col("x") % 2 == place).select("x").key_by(k=col("x") % 1000) for place in range(2)]
        firsts = [part.deduplicate().name(name, was=was) for part, (name, was) in zip(parts, names, strict=True)]
        return [first.select("x").write_sqlite(tmp_path / "t.db", f"t{place}") for place, first in enumerate(firsts)]

    for place, names in enumerate(runs):
        if place:
            assert not mill.state_diff(*sinks(names), checkpoint=tmp_path / "state").is_refused
        stop_after(sinks(names), mill.Checkpoint(tmp_path / "state"))
    mill.run(*sinks(runs[-1], 0), checkpoint=tmp_path / "state")
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        for place in range(2):
            assert [x for (x,) in database.execute(f"select x from t{place} order by x")] == list(range(place, ROWS, 2))


def test_a_name_that_nobody_takes_over_is_not_taken(tmp_path: Path) -> None:
    def sinks(*names: tuple[str, str | None]) -> list[mill.Output]:
        source = Records(0.001).stream()
        return [
            source.filter(col("x") % 2 == place).key_by(k=col("x") % 1).agg(n=mill.count()).name(name, was=was).write_json(tmp_path / f"o{place}").name(f"s{place}")
            for place, (name, was) in enumerate(names)
        ]

    stop_after(sinks(("even", None), ("odd", None)), mill.Checkpoint(tmp_path / "state"))
    lost = sinks(("odd", "even"))
    assert mill.state_diff(*lost, checkpoint=tmp_path / "state").is_refused
    assert 'the checkpoint has both "odd" and "even", and no step of the plan continues from "odd"' in refusal(lost, mill.Checkpoint(tmp_path / "state", drop=["odd"]))
    twice = sinks(("even", None), ("third", "even"))
    assert '"even" is another step of this plan' in refusal(twice, mill.Checkpoint(tmp_path / "state"))
    # A name that has done its work may stay.
    stop_after(sinks(("even", None), ("uneven", "odd")), mill.Checkpoint(tmp_path / "state"))
    stop_after(sinks(("even", None), ("uneven", "odd")), mill.Checkpoint(tmp_path / "state"))


def test_windows_that_keep_records_take_up_no_others(tmp_path: Path) -> None:
    def sinks(factor: int, **columns: Any) -> list[mill.Output]:
        timed = Records(0.001).stream().with_columns(k=col("x") * 0, x=col("x") * factor).event_time("at", watermark="0s")
        return [timed.key_by("k").window(mill.session("500s")).agg(**columns).name("t").write_json(tmp_path / "out").name("s")]

    stop_after(sinks(1, half=col("x").median()), mill.Checkpoint(tmp_path / "state"))
    told = refusal(sinks(1000, mid=col("x").median()), mill.Checkpoint(tmp_path / "state", drop=["t.half"], allow_new=["t.mid"]))
    assert "keep the columns that they need" in told


def test_a_source_is_not_renamed_in_mode_none(tmp_path: Path) -> None:
    def sinks(name: str, was: str | None) -> list[mill.Output]:
        return [Records(0.001).stream().name(name, was=was).write_json(tmp_path / "out").name("s")]

    job = mill.start(*sinks("in", None), checkpoint=mill.Checkpoint(tmp_path / "state", mode="none"))
    time.sleep(0.1)
    job.stop()
    job.wait("60s")
    assert "cannot be renamed" in refusal(sinks("in2", "in"), mill.Checkpoint(tmp_path / "state", mode="none"))


def test_a_name_in_drop_drops_once(tmp_path: Path) -> None:
    def sinks(modulo: int) -> list[mill.Output]:
        return [Records(0.001).stream().key_by(k=col("x") % modulo).agg(n=mill.count()).name("totals").write_json(tmp_path / "out").name("s")]

    options: dict[str, Any] = {"drop": ["totals"], "allow_new": ["totals"]}
    stop_after(sinks(3), mill.Checkpoint(tmp_path / "state"))
    stop_after(sinks(4), mill.Checkpoint(tmp_path / "state", **options))
    stop_after(sinks(4), mill.Checkpoint(tmp_path / "state", **options))
    assert "was used up by a former run" in refusal(sinks(5), mill.Checkpoint(tmp_path / "state", **options))
    # Once a run has gone without it, it can drop again.
    stop_after(sinks(4), mill.Checkpoint(tmp_path / "state"))
    stop_after(sinks(5), mill.Checkpoint(tmp_path / "state", **options))


def test_a_step_that_loses_its_state_is_dropped(tmp_path: Path) -> None:
    def sinks(has_state: bool) -> list[mill.Output]:
        stream = Records(0.001).stream()
        clean = stream.key_by(k=col("x") % 1000).deduplicate() if has_state else stream.filter(col("x") >= 0)
        return [clean.name("clean").select("x").write_json(tmp_path / "out").name("s")]

    stop_after(sinks(True), mill.Checkpoint(tmp_path / "state"))
    told = refusal(sinks(False), mill.Checkpoint(tmp_path / "state"))
    assert 'drop=["clean"] drops its state' in told and "allow_new" not in told
    mill.run(*sinks(False), checkpoint=mill.Checkpoint(tmp_path / "state", drop=["clean"]))
    assert sorted(row["x"] for row in results(tmp_path / "out")) == list(range(ROWS))


PENDING = """
import sys, time
import millstream as mill
from millstream import col

def rows(start):
    for x in range(start, 240):
        time.sleep(0.002)
        yield {"x": x}

def plan(folder, is_former, kind):
    source = mill.from_iter(rows, schema={"x": int})
    other = source.write_json(folder + "/other").name("other")
    if is_former:
        out = source.write_json(folder + "/out") if kind == "files" else source.write_sqlite(folder + "/t.db", "t")
        return [out.name("s"), other]
    return [source.filter(col("x") >= 0).name("s").write_json(folder + "/new").name("new"), other]

if __name__ == "__main__":
    folder, is_former, kind, drop = sys.argv[1], sys.argv[2] == "former", sys.argv[3], sys.argv[4:]
    mill.run(*plan(folder, is_former, kind), checkpoint=mill.Checkpoint(folder + "/state", every="50ms", drop=drop), progress=False)
"""


def pending_plan(folder: Path, is_former: bool, kind: str) -> list[mill.Output]:
    made: dict[str, Any] = {"__name__": "pending"}
    exec(PENDING, made)
    plan: list[mill.Output] = made["plan"](str(folder), is_former, kind)
    return plan


def killed_at(step: str, *arguments: str) -> None:
    environment = {**os.environ, "MILLSTREAM_FAIL_POINT": f"{step}:kill"}
    process = subprocess.run([sys.executable, "-c", PENDING, *arguments], check=False, env=environment, capture_output=True, timeout=60)
    assert process.returncode != 0 and b"Error" not in process.stderr, process.stderr


@pytest.mark.parametrize("kind", ["files", "sqlite"])
def test_a_sink_that_is_left_out_commits_what_is_pending_first(kind: str, tmp_path: Path) -> None:
    """A job dies between its checkpoint and what its sinks commit; then another kind of step has the name of a sink."""
    killed_at("checkpoint.published:1", str(tmp_path), "former", kind)

    def written() -> list[int]:
        if kind == "files":
            return sorted(row["x"] for row in results(tmp_path / "out"))
        with closing(sqlite3.connect(tmp_path / "t.db")) as database:
            return [x for (x,) in database.execute("select x from t order by x")]

    assert not written()
    diff = mill.state_diff(*pending_plan(tmp_path, False, kind), checkpoint=tmp_path / "state")
    [step] = [step for step in diff.steps if "committed first" in step.text]
    assert not diff.is_refused and step.step == "s"
    # It is killed before what is pending was committed, after it, and before the next checkpoint is there.
    for step_of_run in ("sink.recover:1", "sink.recover:2", "checkpoint.publish:1"):
        killed_at(step_of_run, str(tmp_path), "now", kind)
    mill.run(*pending_plan(tmp_path, False, kind), checkpoint=tmp_path / "state")
    at = len(written())
    assert 0 < at < 240 and written() == list(range(at))
    assert sorted(row["x"] for row in results(tmp_path / "new")) == list(range(at, 240))
    assert sorted(row["x"] for row in results(tmp_path / "other")) == list(range(240))


def test_output_that_is_pending_is_left_out_where_it_is_dropped(tmp_path: Path) -> None:
    killed_at("checkpoint.published:1", str(tmp_path), "former", "files")
    now = pending_plan(tmp_path, False, "files")
    assert not mill.state_diff(*now, checkpoint=mill.Checkpoint(tmp_path / "state", drop=["s"])).is_refused
    # Not all that the checkpoint names is committed by this run: the next one has to know.
    killed_at("checkpoint.publish:1", str(tmp_path), "now", "files", "s")
    mill.run(*pending_plan(tmp_path, True, "files"), checkpoint=tmp_path / "state")
    for folder in ("out", "other"):
        assert sorted(row["x"] for row in results(tmp_path / folder)) == list(range(ROWS))


def test_a_look_begins_where_the_run_would(tmp_path: Path) -> None:
    def sink(folder: str) -> mill.Output:
        return mill.from_iter([{"x": 1}]).write_json(tmp_path / folder).name("s")

    mill.run(sink("out"), checkpoint=tmp_path / "state")
    state = tmp_path / "state"
    with pytest.raises(mill.PlanError, match="would start over"):
        mill.state_diff(sink("out"), checkpoint=mill.Checkpoint(state, restart=True))
    with pytest.raises(mill.CheckpointError, match="mode none"):
        mill.state_diff(sink("out"), checkpoint=mill.Checkpoint(state, mode="none"))
    (tmp_path / "empty").mkdir()
    for restart in (False, True):
        other = mill.Checkpoint(tmp_path / "empty", restore_from=state, restart=restart)
        assert mill.state_diff(sink("out"), checkpoint=other).path == str(state)
    (tmp_path / "empty" / "file").write_text("no state")
    with pytest.raises(mill.CheckpointError, match="not a millstream state directory"):
        mill.state_diff(sink("out"), checkpoint=mill.Checkpoint(tmp_path / "empty", restore_from=state))
