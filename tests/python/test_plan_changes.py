"""The table of changes of a plan in docs/guide/checkpoints.md, row by row, against plain Python.

Each row runs a plan until it is stopped in the middle of its input, with state and a checkpoint. Then the changed plan goes on
from there, or is refused. A row says which, with what words, what lets a refused change through, and what the outputs hold in the
end. ``state_diff`` has to say what the run says. The guide's table is made of these rows, so the two cannot differ.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col

ROWS, FIRST = 600, 300
"""How many numbers there are, and how many of them the first run reads before it is stopped; a frame more or less."""
START = datetime(2026, 1, 1)
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "checkpoints.md"


class Run:
    """One of the two runs: the first reads slowly from some record on, so that it can be stopped there."""

    def __init__(self, folder: Path, is_first: bool) -> None:
        self.folder = folder
        self.is_first = is_first
        self.reached = threading.Event()
        self.starts: list[int] = []

    def wait(self) -> None:
        self.reached.set()
        time.sleep(0.0005)

    def numbers(self, schema: dict[str, Any] | None = None) -> mill.Stream:
        """A source of numbers, of their remainders as keys, and of times."""
        place = len(self.starts)
        self.starts.append(-1)
        columns = schema or {"x": int, "k": int, "at": datetime}

        def numbers(start: int) -> Iterator[dict[str, Any]]:
            self.starts[place] = start
            for x in range(start, ROWS):
                if self.is_first and x >= FIRST:
                    self.wait()
                row = {"x": x, "k": x % 3, "at": START + timedelta(seconds=x)}
                yield {name: float(row[name]) if kind is float else row[name] for name, kind in columns.items()}

        return mill.from_iter(numbers, schema=columns)

    def files(self, *names: str, **options: Any) -> mill.Stream:
        """Lines of files, of which the first run reads some and not all."""
        options.setdefault("schema", {"x": int, "k": int})
        return mill.read_json([self.folder / name for name in names], **options).filter(self.passes)

    def passes(self, row: mill.Row) -> bool:
        if self.is_first and row.x >= FIRST:
            self.wait()
        return True

    @property
    def at(self) -> int:
        """From which number on the second run has read."""
        return max(self.starts)


Plan = Callable[[Run], list[mill.Output]]
Rows = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class Change:
    """A row of the table."""

    group: str
    change: str
    before: Plan
    now: Plan
    #: What the outputs hold in the end, if the plan has changed at this number; at the last one it has not.
    wanted: Callable[[int], Rows | dict[str, Rows]]
    #: ``continues``, ``noted`` or ``refused``.
    verdict: str
    #: What the notes, or the error, must hold.
    says: Sequence[str] = ()
    #: The options, or the other plan, that let a refused change through, and how the guide writes that.
    options: dict[str, Any] = field(default_factory=dict)
    named: Plan | None = None
    #: What is done between the runs.
    between: Callable[[Path], object] = lambda folder: None
    #: What the guide says of it besides.
    then: str = ""
    #: Whether only the run sees what is wrong, as it looks at files.
    is_seen_by_run: bool = False
    #: What runs with it: options of ``mill.run`` and of the checkpoint.
    running: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    #: What goes with the other plan, where that differs.
    named_options: dict[str, Any] = field(default_factory=dict)
    named_wanted: Callable[[int], Rows | dict[str, Rows]] | None = None
    #: The columns that are compared, if not all.
    only: Sequence[str] = ()
    #: Of rows that are alike in these, the latest counts: the output says how rows change.
    last: Sequence[str] = ()
    #: The numbers that all files of a folder hold, packed ones among them.
    in_all: dict[str, range] = field(default_factory=dict)
    #: Whether the first run ends by itself.
    is_finished: bool = False
    #: Whether what is done between the runs breaks the former plan too.
    is_broken: bool = False
    parallelism: int = 2

    @property
    def happens(self) -> str:
        """What the guide says in the second column."""
        if self.verdict != "refused":
            return {"continues": "continues", "noted": "continues, noted"}[self.verdict]
        ways = [f"`{name}={json.dumps(value)}`" for name, value in self.options.items()]
        return "refused" + (f"; {' with '.join(ways)}" if ways else "")


def to(stream: mill.Stream, run: Run, name: str = "out") -> list[mill.Output]:
    return [stream.write_json(run.folder / name).name(name)]


def results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All that the sinks have written: files of lines in folders, and tables."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("out*")):
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*.json")) if not any(part.startswith(".") for part in file.parts)]
            found[path.name] = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    for path in sorted(folder.glob("*.db")):
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table' and name not like '\\_%' escape '\\'")]
            for name in tables:
                found[name] = [dict(row) for row in database.execute(f"select * from {name}")]
    return found


def counted(rows: Rows) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=str) for row in rows)


def compared(change: Change, rows: Rows) -> Counter[str]:
    if change.only:
        return counted({column: row[column] for column in change.only} for row in rows)
    if change.last:
        latest = {tuple(row[column] for column in change.last): row for row in rows}
        return counted({column: value for column, value in row.items() if column not in ("op", "pane", "pane_timing")} for row in latest.values())
    return counted(rows)


def check(change: Change, folder: Path, at: int) -> None:
    wanted = change.wanted(at)
    of = wanted if isinstance(wanted, dict) else {"out": wanted}
    found = {name: rows for name, rows in results(folder).items() if rows}
    assert found.keys() == {name for name, rows in of.items() if rows}
    for name, rows in found.items():
        differ = compared(change, rows), compared(change, of[name])
        assert not differ[0] - differ[1] and not differ[1] - differ[0], (name, at, differ[0] - differ[1], differ[1] - differ[0])
    for name, numbers in change.in_all.items():
        assert sorted(mill.read_json(folder / name, schema={"x": int}).collect()["x"]) == list(numbers)


def first_run(change: Change, folder: Path) -> None:
    """Stop the former plan in the middle of its input, or let it come to its end."""
    run = Run(folder, is_first=not change.is_finished)
    job = mill.start(*change.before(run), checkpoint=mill.Checkpoint(folder / "state"), parallelism=change.parallelism)
    if not change.is_finished:
        assert run.reached.wait(60), job.status
        until = time.monotonic() + 60
        while (metrics := job.metrics()) is None or metrics.rows_in < 100:
            assert time.monotonic() < until, "the job does not read"
            time.sleep(0.001)
        job.stop()
    assert job.wait("60s").status == ("finished" if change.is_finished else "stopped")


# -- what plain Python makes of it ------------------------------------------------------------------------------------------


def line(x: int, **columns: Any) -> dict[str, Any]:
    return {"x": x, "k": x % 3, **columns}


def lines(numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [line(x) for x in numbers]


def all_lines(at: int) -> list[dict[str, Any]]:
    return lines(range(ROWS))


FOLDS: dict[str, Callable[[list[int]], Any]] = {
    "n": len,
    "total": lambda xs: sum(xs) if xs else None,
    "top": lambda xs: max(xs, default=None),
    "mean": lambda xs: sum(xs) / len(xs) if xs else None,
    "twice": lambda xs: 2 * sum(xs),
}


def folded(records: Iterable[int], key: Callable[[int], Any] = lambda x: x % 3, **columns: str) -> list[dict[str, Any]]:
    """One row a key: the records' folds, by column."""
    groups: dict[Any, list[int]] = {}
    for x in records:
        groups.setdefault(key(x), []).append(x)
    return [{"k": of, **{column: FOLDS[fold](xs) for column, fold in columns.items()}} for of, xs in groups.items()]


def since(at: int) -> int:
    """Where state begins that starts empty there: at the beginning if nothing has changed."""
    return 0 if at == ROWS else at


def of_window(k: int, first: int, end: int, **columns: Any) -> dict[str, Any]:
    bounds = {name: (START + timedelta(seconds=at)).isoformat() for name, at in (("window_start", first), ("window_end", end))}
    return {"k": k, **bounds, **columns}


# -- plans ------------------------------------------------------------------------------------------------------------------


def plain(run: Run) -> mill.Stream:
    return run.numbers({"x": int, "k": int})


def lone(run: Run) -> list[mill.Output]:
    return to(plain(run), run)


def over(least: int) -> Plan:
    return lambda run: to(plain(run).filter(col("x") >= least), run)


def totals(key: Any = None, name: str = "totals", was: str | None = None, emit: Any = None, **columns: mill.Expr) -> Plan:
    def plan(run: Run) -> list[mill.Output]:
        keyed = plain(run).key_by("k") if key is None else plain(run).key_by(k=key)
        return to(keyed.agg(**(columns or {"n": mill.count(), "total": col("x").sum()}), emit=emit).name(name, was=was), run)

    return plan


N, TOTAL, TOP = mill.count(), col("x").sum(), col("x").max()
FIRST_TOTALS = {"n": "n", "total": "total"}


def two_totals(at: int) -> list[dict[str, Any]]:
    return folded(range(ROWS), **FIRST_TOTALS)


def totals_since(at: int) -> list[dict[str, Any]]:
    return folded(range(since(at), ROWS), **FIRST_TOTALS)


def with_late_column(column: str, fold: str, **others: str) -> Callable[[int], Rows]:
    """Totals with a column that has seen what came since the change."""

    def rows(at: int) -> Rows:
        late = {row["k"]: row[column] for row in folded(range(at, ROWS), **{column: fold})}
        return [{**row, column: late[row["k"]]} for row in folded(range(ROWS), **others)]

    return rows


def double(x: int) -> int:
    return 2 * x


def triple(x: int) -> int:
    return 3 * x


def otherwise(x: int) -> int:
    return 2 * x + 1


otherwise.__name__ = otherwise.__qualname__ = "double"


def called(function: Callable[[int], int], returns: Any = int) -> Plan:
    return lambda run: to(plain(run).select(y=mill.udf(returns=returns)(function)(col("x"))), run)


def halves(at: int, first: Callable[[int], Any], then: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{"y": first(x) if x < at else then(x)} for x in range(ROWS)]


def mapped(kind: Any) -> Plan:
    def made(row: mill.Row) -> dict[str, Any]:
        return {"y": row.x}

    return lambda run: to(plain(run).map(made, schema={"y": kind}), run)


def record(fields: dict[str, Any]) -> Plan:
    def made(row: mill.Row) -> dict[str, Any]:
        return {"y": {name: kind(row.x) for name, kind in fields.items()}}

    return lambda run: to(plain(run).map(made, schema={"y": fields}), run)


def failing(run: Run) -> list[mill.Output]:
    def inverse(row: mill.Row) -> dict[str, Any]:
        return {"y": ROWS // (row.x - 590)}

    return to(plain(run).map(inverse, schema={"y": int}), run)


def window_counts(window: mill.Window, name: str = "counts", trigger: Any = None, late: str = "0s", bound: Any = "0s", hours: int = 0) -> Plan:
    def plan(run: Run) -> list[mill.Output]:
        timed = run.numbers()
        timed = timed.with_columns(at=col("at") + timedelta(hours=hours)) if hours else timed
        keyed = timed.event_time("at", watermark=bound).key_by("k")
        rows = keyed.window(window, allowed_lateness=late, trigger=trigger).agg(n=mill.count()).name(name)
        return to(rows.to_changelog().name("changes") if rows.updating_key else rows, run)

    return plan


def tumblings(wide: int, numbers: Iterable[int], offset: int = 0) -> list[dict[str, Any]]:
    windows = Counter((x % 3, (x - offset) // wide * wide + offset) for x in numbers)
    return [of_window(k, first, first + wide, n=n) for (k, first), n in windows.items()]


def slidings(wide: int, slide: int, numbers: Iterable[int]) -> list[dict[str, Any]]:
    firsts = [(x, x // slide * slide - back) for x in numbers for back in range(0, wide, slide)]
    windows = Counter((x % 3, first) for x, first in firsts)
    return [of_window(k, first, first + wide, n=n) for (k, first), n in windows.items()]


def sessions(gap: int, numbers: Iterable[int]) -> list[dict[str, Any]]:
    # Every key has a number every three seconds: one session.
    keys: dict[int, list[int]] = {}
    for x in numbers:
        keys.setdefault(x % 3, []).append(x)
    return [of_window(k, xs[0], xs[-1] + gap, n=len(xs)) for k, xs in keys.items()]


def over_by(at: int, wide: int = 40) -> list[dict[str, Any]]:
    """The tumbling windows whose ends the numbers before this one have passed."""
    return [row for row in tumblings(wide, range(ROWS)) if datetime.fromisoformat(row["window_end"]) <= START + timedelta(seconds=at - 1)]


def anew(now: Callable[[Iterable[int]], list[dict[str, Any]]]) -> Callable[[int], Rows]:
    """Windows of the former kind that were over, and those of now over what came since."""
    return lambda at: [*over_by(at), *now(range(at, ROWS))]


DAY = mill.tumbling("40s")


def joined(how: Any = "inner", window: mill.Window | None = DAY, ttl: Any = None, more: bool = False, least: int = 0) -> Plan:
    """Numbers joined with their own tens by key: in windows of 40 seconds, or as they are."""

    def plan(run: Run) -> list[mill.Output]:
        numbers = run.numbers()
        one = numbers.select("k", "x", "at", *([(col("x") + 1).alias("more")] if more else []))
        one = one.filter(col("x") >= least) if least else one
        other = numbers.filter(col("x") % 10 == 0).select("k", y="x", at="at")
        one, other = one.event_time("at").name("left time"), other.event_time("at").name("right time")
        rows = one.join(other, on="k", how=how, window=window, ttl=ttl).name("pairs")
        rows = rows.to_changelog().name("changes") if rows.updating_key else rows
        return to(rows.select("x", "y", *(["more"] if more else [])), run)

    return plan


def two_sources(name: str, was: str | None = None) -> Plan:
    def plan(run: Run) -> list[mill.Output]:
        one = run.numbers().name(name, was=was).event_time("at").select("k", "x", "at")
        other = run.numbers().name("tens").event_time("at").filter(col("x") % 10 == 0).select("k", y="x", at="at")
        return to(one.join(other, on="k", window=DAY).name("pairs").select("x", "y"), run)

    return plan


def pairs(wide: int | None, how: str = "inner", least: int = 0) -> list[dict[str, Any]]:
    rows = []
    for x in range(least, ROWS):
        partners = range(least, ROWS) if wide is None else range(max(least, x // wide * wide), min(ROWS, x // wide * wide + wide))
        of = [y for y in partners if y % 10 == 0 and y % 3 == x % 3]
        rows += [{"x": x, "y": y} for y in of]
        if how == "left" and not of:
            rows.append({"x": x, "y": None})
    return rows


def pairs_until(at: int) -> list[dict[str, Any]]:
    """Those of numbers before this one: a pair is there with the later one of the two."""
    return [row for row in pairs(40) if max(row["x"], row["y"]) < at]


def function(does: Callable[[Any, mill.Row], dict[str, Any]], **states: Any) -> type[mill.ProcessFunction]:
    """A process function of one name, with other states and another body each time."""

    def process(self: Any, row: mill.Row, ctx: mill.ProcessContext) -> Iterator[dict[str, Any]]:
        yield does(self, row)

    return type("Summing", (mill.ProcessFunction,), {"process": process, **states})


def processed(function: type[mill.ProcessFunction], total: Any = int) -> Plan:
    return lambda run: to(plain(run).key_by("k").process(function(), schema={"x": int, "total": total}).name("sums"), run)


def adds(self: Any, row: mill.Row) -> dict[str, Any]:
    self.total.value += row.x
    return {"x": row.x, "total": self.total.value}


def adds_text(self: Any, row: mill.Row) -> dict[str, Any]:
    self.total.value = str(int(self.total.value or "0") + row.x)
    return {"x": row.x, "total": int(self.total.value)}


def adds_to_struct(self: Any, row: mill.Row) -> dict[str, Any]:
    self.total.value = {**self.total.value, "sum": self.total.value["sum"] + row.x}
    return {"x": row.x, "total": self.total.value["sum"] + self.total.value.get("extra", 0)}


def counts_too(self: Any, row: mill.Row) -> dict[str, Any]:
    self.count.value += 1
    self.total.value += row.x
    return {"x": row.x, "total": self.total.value + self.count.value}


def running(more: Callable[[int], int] = lambda x: 0) -> list[dict[str, Any]]:
    """Running sums of each key, and something more."""
    sums, rows = [0, 0, 0], []
    for x in range(ROWS):
        sums[x % 3] += x
        rows.append({"x": x, "total": sums[x % 3] + more(x)})
    return rows


def running_anew(at: int) -> list[dict[str, Any]]:
    """The same, where the state begins empty at this number."""
    rows, sums = [], [0, 0, 0]
    for x in range(ROWS):
        sums = [0, 0, 0] if x == at else sums
        sums[x % 3] += x
        rows.append({"x": x, "total": sums[x % 3]})
    return rows


def of_its_key(at: int, x: int) -> int:
    """How many numbers of the key of this one have come since, with it."""
    return len([y for y in range(at, x + 1) if y % 3 == x % 3])


VALUE = mill.ValueState
SUMS = function(adds, total=VALUE(int, default=0))


def firsts(modulo: int, name: str = "firsts") -> Plan:
    return lambda run: to(plain(run).key_by(d=col("x") % modulo).deduplicate().name(name).select("x", "k"), run)


def top(n: int) -> Plan:
    return lambda run: [plain(run).key_by("k").top_n(n, by="x").name("best").write_sqlite(run.folder / "best.db", "best")]


def highest(n: int, numbers: Iterable[int]) -> list[dict[str, Any]]:
    keys: dict[int, list[int]] = {}
    for x in numbers:
        keys.setdefault(x % 3, []).append(x)
    return [{"x": x, "k": k, "rank": rank} for k, xs in keys.items() for rank, x in enumerate(sorted(xs)[: -n - 1 : -1], 1)]


def limited(rows: int) -> Plan:
    return lambda run: to(plain(run).limit(rows).name("head"), run)


def shifted(rows: int) -> Plan:
    return lambda run: to(plain(run).key_by("k").shift(rows, before="x").name("shifted").select("x", "before"), run)


def reduced(function: Callable[[Any, Any], Any], *columns: str) -> Plan:
    return lambda run: to(run.numbers().select("k", *columns).key_by("k").reduce(function).name("last"), run)


def adds_more(self: Any, row: mill.Row) -> dict[str, Any]:
    self.total.value += row.x
    return {"x": row.x, "total": self.total.value + 1}


def applied(kind: Any) -> Plan:
    def count(key: Any, bounds: mill.WindowBounds, records: Any) -> dict[str, Any]:
        return {"n": kind(records.num_rows)}

    return lambda run: to(run.numbers().event_time("at").key_by("k").window(DAY).apply(count, schema={"n": kind}).name("counts"), run)


def shifted_windows(at: int) -> list[dict[str, Any]]:
    """Numbers from the change on lie an hour later, which is a number of windows."""
    return tumblings(40, (x if x < at else x + 3600 for x in range(ROWS)))


def largest(left: mill.Row, right: mill.Row) -> mill.Row:
    return max(left, right, key=lambda row: row.x)


def latest(left: mill.Row, right: mill.Row) -> mill.Row:
    return right


def rolled(length: str) -> Plan:
    return lambda run: to(run.numbers().event_time("at").key_by("k").rolling(length).agg(n=mill.count()).name("recent").select("x", "n"), run)


def rolled_anew(at: int) -> list[dict[str, Any]]:
    """A record comes out once time has passed it: the last one before the change is dropped with the state."""
    former = [{"x": x, "n": len(range(x, max(-1, x - 30), -3))} for x in range(ROWS if at == ROWS else at - 1)]
    return [*former, *({"x": x, "n": len(range(x, max(at - 1, x - 60), -3))} for x in range(at, ROWS))]


# -- files ------------------------------------------------------------------------------------------------------------------


def write_lines(folder: Path, name: str, numbers: Iterable[int]) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line(x)) + "\n" for x in numbers))


LINES = 4000
"""Those in files: 3000 in the first, of which the first run reads some, and 500 in each of the others."""


def some_lines(*parts: range) -> Callable[[int], Rows]:
    return lambda at: lines(itertools.chain(*parts))


ALL_LINES = some_lines(range(LINES))


def reads(*names: str, **options: Any) -> Plan:
    return lambda run: to(run.files(*(names or ("in",)), **options), run)


def reads_named(name: str, was: str | None = None) -> Plan:
    def plan(run: Run) -> list[mill.Output]:
        read = mill.read_json(run.folder / "in", schema={"x": int, "k": int}).name(name, was=was)
        return to(read.filter(run.passes), run)

    return plan


def reads_two(name: str | None, first: str | None = None) -> Plan:
    """The files, and others beside them."""

    def plan(run: Run) -> list[mill.Output]:
        one, other = (mill.read_json(run.folder / path, schema={"x": int, "k": int}) for path in ("in", "more"))
        one = one if first is None else one.name(first, was="read_json")
        return to(one.union(other if name is None else other.name(name)).filter(run.passes), run)

    return plan


def renamed_folder(folder: Path) -> None:
    (folder / "in").rename(folder / "moved")


def edited(folder: Path) -> None:
    write_lines(folder, "in/0.json", range(1, 3001))


def sinks(*names: str, path: str | None = None, filtered: bool = False, **options: Any) -> Plan:
    """The numbers, into files of these names."""

    def plan(run: Run) -> list[mill.Output]:
        stream = plain(run).filter(col("x") >= 0) if filtered else plain(run)
        return [stream.write_json(run.folder / (path or f"out_{name}"), **options).name(name) for name in names]

    return plan


def unnamed_sink(run: Run) -> list[mill.Output]:
    return [plain(run).write_json(run.folder / "out_a")]


def renamed_sink(name: str, was: str | None) -> Plan:
    return lambda run: [plain(run).write_json(run.folder / "out_a").name(name, was=was)]


def table(name: str, *columns: str, path: str = "a.db", sink: str = "rows") -> Plan:
    return lambda run: [plain(run).select(*columns or ("x", "k")).write_sqlite(run.folder / path, name).name(sink)]


def one_file(*columns: str) -> Plan:
    return lambda run: [plain(run).select(*columns).write_csv(run.folder / "all.csv").name("all")]


def swapped(*names: tuple[str, str | None]) -> Plan:
    """Even and odd numbers are counted by steps of these names."""

    def plan(run: Run) -> list[mill.Output]:
        stream = plain(run)
        parts = [stream.filter(col("x") % 2 == place) for place in range(2)]
        counts = [part.agg(n=mill.count(), total=col("x").sum()).name(name, was=was) for part, (name, was) in zip(parts, names, strict=True)]
        return [count.write_json(run.folder / f"out_{place}").name(f"part {place}") for place, count in enumerate(counts)]

    return plan


def of_parts(at: int) -> dict[str, Rows]:
    return {f"out_{place}": [{"n": ROWS // 2, "total": sum(range(place, ROWS, 2))}] for place in range(2)}


def two_stages(run: Run) -> list[mill.Output]:
    return to(plain(run).key_by(d=col("x") % 400).deduplicate().name("firsts").key_by("k").agg(n=mill.count(), total=col("x").sum()).name("totals"), run)


KEPT_SINCE = "the step starts empty"
RUNS = "How it runs"
STATELESS = "Steps without state"
SOURCES = "Sources"
SINKS = "Sinks"
KEYED = "Keys and aggregates"
TIME = "Time and windows"
JOINS = "Joins"
OTHERS = "Other steps with state"
FUNCTIONS = "Process functions"
NAMES = "Names"
WHOLE = "The whole job"
ANEW = {"drop": ["totals"], "allow_new": ["totals"]}


def anew_options(*names: str) -> dict[str, Any]:
    return {"drop": list(names), "allow_new": list(names)}


def split_at(first: Callable[[int], dict[str, Any]], then: Callable[[int], dict[str, Any]]) -> Callable[[int], Rows]:
    """One row a number, as the former plan makes it and then as the one of now does."""
    return lambda at: [first(x) if x < at else then(x) for x in range(ROWS)]


CHANGES = [
    Change(RUNS, "parallelism, `every`, `retain`", totals(), totals(), two_totals, "continues", running={"parallelism": 3}, checkpoint={"every": "20ms", "retain": 1}),
    Change(RUNS, '`mode` from exactly once to at least once', totals(), totals(), two_totals, "continues", checkpoint={"mode": "at_least_once"}),
    Change(
        RUNS, "`on_error`, `restart`, `until`", failing, failing, lambda at: [{"y": ROWS // (x - 590)} for x in range(ROWS) if x != 590], "continues",
        running={"on_error": "skip", "restart": mill.Restart.fixed_delay(1, "1ms"), "until": "1h"},
    ),
    Change(
        STATELESS, "a filter is edited", over(100), over(200), lambda at: lines(x for x in range(100, ROWS) if x < at or x >= 200), "noted",
        ['filter: predicate was col("x") >= 100, is col("x") >= 200'],
    ),
    Change(STATELESS, "a filter is new", lone, over(590), lambda at: lines(x for x in range(ROWS) if x < at or x >= 590), "noted", ['new step: filter(predicate: col("x") >= 590)']),
    Change(STATELESS, "a filter is removed", over(50), lone, lambda at: lines(range(50, ROWS)), "noted", ["no longer there: filter(predicate"]),
    Change(
        STATELESS, "a computed column is new", lone, lambda run: to(plain(run).with_columns(y=col("x") + 1), run), split_at(line, lambda x: line(x, y=x + 1)), "noted",
        ["new step: with_columns"],
    ),
    Change(
        STATELESS, "an expression is changed", lambda run: to(plain(run).select(y=col("x") + 1), run), lambda run: to(plain(run).select(y=col("x") * 2), run),
        split_at(lambda x: {"y": x + 1}, lambda x: {"y": 2 * x}), "noted", ['select: columns was (col("x") + 1).alias("y"), is (col("x") * 2).alias("y")'],
    ),
    Change(STATELESS, "a column is left out", lone, lambda run: to(plain(run).drop("k"), run), split_at(line, lambda x: {"x": x}), "noted", ["new step: drop"]),
    Change(
        STATELESS, "a column is renamed", lone, lambda run: to(plain(run).rename({"k": "key"}), run), split_at(line, lambda x: {"x": x, "key": x % 3}), "noted",
        ["new step: rename"],
    ),
    Change(
        STATELESS, "steps are in another order", lambda run: to(plain(run).filter(col("x") >= 9).with_columns(y=col("x") + 1), run),
        lambda run: to(plain(run).with_columns(y=col("x") + 1).filter(col("x") >= 9), run), lambda at: [line(x, y=x + 1) for x in range(9, ROWS)], "noted",
        ["filter: reads from with_columns, was from_iter"],
    ),
    Change(STATELESS, "another Python function", called(double), called(triple), lambda at: halves(at, double, triple), "noted", ["triple("]),
    Change(
        STATELESS, "the code of a Python function", called(double), called(otherwise), lambda at: halves(at, double, otherwise), "continues",
        then="not noticed: only its name and its types are compared",
    ),
    Change(
        STATELESS, "the type that a `udf` returns", called(double), called(double, float), lambda at: halves(at, double, lambda x: float(2 * x)), "noted",
        ["select: column y was int64, is float64"],
    ),
    Change(
        STATELESS, "the `schema=` of `map`, `flat_map` or `map_batches`", mapped(int), mapped(float), lambda at: halves(at, int, float), "noted",
        ["map: column y was int64, is float64"],
    ),
    Change(
        STATELESS, "the fields of a record that a function returns", record({"a": int}), record({"a": int, "b": str}),
        lambda at: halves(at, lambda x: {"a": x}, lambda x: {"a": x, "b": str(x)}), "noted", ["map: column y was struct", "b"],
    ),
    Change(STATELESS, "`rebalance` or `name` without state", over(9), lambda run: to(plain(run).filter(col("x") >= 9).name("large"), run), lambda at: lines(range(9, ROWS)), "continues"),
    Change(
        SOURCES, "another spelling of the paths, or links to them", reads(), reads("./in/../in"), ALL_LINES, "continues",
    ),
    Change(SOURCES, "the folder was moved", reads(), reads("moved"), ALL_LINES, "noted", ["read_json: source was", "moved"], between=renamed_folder),
    Change(
        SOURCES, "files are new in the folder", reads(), reads(), some_lines(range(LINES), range(5000, 5100)), "continues",
        between=lambda folder: write_lines(folder, "in/9.json", range(5000, 5100)), then="they are read, unless the job had finished",
    ),
    Change(
        SOURCES, "more paths", reads(), reads("in", "more"), some_lines(range(LINES), range(5000, 5100)), "noted", ["read_json: source was", '/more"'],
        then="their files are read too",
    ),
    Change(SOURCES, "fewer paths; the missing files were not begun", reads(), reads("in/0.json", "in/1.json"), some_lines(range(3500)), "noted", ["read_json: source was"], then="those are not read"),
    Change(
        SOURCES, "fewer paths; a missing file was read in part", reads(), reads("in/1.json", "in/2.json"), ALL_LINES, "refused",
        ["read_json", "0.json", "does not name any more", "restart=True"], is_seen_by_run=True,
    ),
    Change(SOURCES, "other files", reads(), reads("more"), ALL_LINES, "refused", ["read_json", "another input", '/more"'], is_seen_by_run=True),
    Change(
        SOURCES, "a file was edited where it had been read", reads(), reads(), ALL_LINES, "refused", ["0.json", "put the former file back"], between=edited, is_seen_by_run=True, is_broken=True,
    ),
    Change(
        SOURCES, "the type of a column that goes to a sink", reads(), reads(schema={"x": int, "k": float}), ALL_LINES, "noted",
        ["read_json: column k was int64, is float64"], only=("x",),
    ),
    Change(
        SOURCES, "the type of a column that a key or an aggregate is over", totals(), lambda run: to(run.numbers({"x": float, "k": int}).key_by("k").agg(n=N, total=TOTAL).name("totals"), run),
        lambda at: [{**row, "total": row["total"] if at == ROWS else float(row["total"])} for row in totals_since(at)], "refused",
        ["changed: totals", "aggregate total was total=sum(int64)", "is total=sum(float64)"], options=ANEW, then=KEPT_SINCE,
    ),
    Change(SOURCES, "one more column", reads(schema={"x": int}), reads(), ALL_LINES, "noted", ["read_json: column k int64 is new"], only=("x",)),
    Change(SOURCES, "an unbounded input becomes bounded, or the other way round", reads(), reads(follow=True), ALL_LINES, "refused", ["changed: read_json", "bounded input", "unbounded input"]),
    Change(
        SOURCES, "a source is new", reads(), reads_two("more"), some_lines(range(LINES), range(5000, 5100)), "refused",
        ["not in the checkpoint: more", "read from its beginning"], options={"allow_new": ["more"]}, then="it is read from its beginning",
    ),
    Change(
        SOURCES, "a second source of the same kind, neither with a name", reads(), reads_two(None), some_lines(range(LINES), range(5000, 5100)), "refused",
        ["told apart by what they read", 'was="read_json"'], named=reads_two("more", "old"), named_options={"allow_new": ["more"]},
        then='name both, the former one with `.name("old", was="read_json")`, and write `allow_new=["more"]`',
    ),
    Change(
        SOURCES, "a source is removed", lambda run: to(plain(run).name("one").union(plain(run).name("two").filter(col("x") < 0)), run),
        lambda run: to(plain(run).name("one").filter(col("x") >= 0), run), all_lines, "refused", ["no longer in the plan: two", "would be lost"],
        options={"drop": ["two"]}, then="it is no longer read",
    ),
    Change(
        SOURCES, "a source is renamed", reads_named("in"), reads_named("lines"), ALL_LINES, "refused", ["not in the checkpoint: lines", '.name("lines", was="in")'],
        named=reads_named("lines", "in"), then='`.name("lines", was="in")` continues to read it',
    ),
    Change(
        SINKS, "a sink is new", sinks("a"), sinks("a", "b"), lambda at: {"out_a": lines(range(ROWS)), "out_b": lines(range(at, ROWS))}, "noted", ["new step: b(sink: write_json"],
        then="it gets the rows from now on",
    ),
    Change(
        SINKS, "a sink is removed", sinks("a", "b"), sinks("a"), lambda at: {"out_a": lines(range(ROWS)), "out_b": lines(range(at))}, "noted", ["no longer there: b(sink: write_json"],
        then="its output stays; pending output is committed first",
    ),
    Change(
        SINKS, "a sink reads from another step", sinks("a"), sinks("a", filtered=True), lambda at: {"out_a": lines(range(ROWS))}, "noted", ["new step: filter"], then="it continues with the output that it has",
    ),
    Change(
        SINKS, "a sink is renamed", sinks("a"), renamed_sink("b", None), lambda at: {"out_a": lines(range(ROWS))}, "noted", ["new step: b(sink", "no longer there: a(sink"],
        then="a new sink, and a removed one",
    ),
    Change(
        SINKS, "a sink is renamed with `was=`", sinks("a"), renamed_sink("b", "a"), lambda at: {"out_a": lines(range(ROWS))}, "noted", ['b: its name was "a"'],
        then="the same sink",
    ),
    Change(
        SINKS, "another path", sinks("a"), sinks("a", path="out_b"), lambda at: {"out_a": lines(range(at)), "out_b": lines(range(at, ROWS)) if at < ROWS else []}, "refused",
        ["changed: a", "out_a", "out_b", "give the sink another name"], named=lambda run: [plain(run).write_json(run.folder / "out_b").name("b")],
        then="with another name it is a new sink",
    ),
    Change(
        SINKS, "another path, and its files were moved there", sinks("a"), sinks("a", path="out_b"), lambda at: {"out_b": lines(range(ROWS))}, "noted", ["a: sink was", "out_b"],
        between=lambda folder: (folder / "out_a").rename(folder / "out_b"),
    ),
    Change(
        SINKS, "another table", table("first"), table("second"), lambda at: {"first": lines(range(at)), "second": lines(range(at, ROWS)) if at < ROWS else []}, "refused",
        ['changed: rows: write_sqlite', 'the table was "first"', "give the sink another name"], named=table("second", sink="others"), then="with another name it is a new sink",
    ),
    Change(
        SINKS, "another format or compression of files in a folder", sinks("a"), sinks("a", compression="gzip"), lambda at: {"out_a": lines(range(at))}, "noted",
        ["a: sink was write_json", 'compression="gzip"'], in_all={"out_a": range(ROWS)}, then="of new files",
    ),
    Change(
        SINKS, "the columns of files in a folder", sinks("a"), lambda run: [plain(run).select("x").write_json(run.folder / "out_a").name("a")],
        lambda at: {"out_a": [line(x) if x < at else {"x": x} for x in range(ROWS)]}, "noted", ["new step: select"], then="of new files",
    ),
    Change(
        SINKS, "the columns or the format of one file that is not complete", one_file("x"), one_file("x", "k"), lambda at: {}, "refused",
        ['step "all"', "was begun as csv", "one file has one form"], is_seen_by_run=True,
    ),
    Change(
        KEYED, "the key", totals(), totals(key=col("x") % 4), lambda at: folded(range(since(at), ROWS), lambda x: x % 4, **FIRST_TOTALS), "refused",
        ["changed: totals", "% 4"], options=ANEW, then=KEPT_SINCE,
    ),
    Change(
        KEYED, "the expression of a column that is the key", totals(), lambda run: to(plain(run).with_columns(k=col("x") % 2).key_by("k").agg(n=N, total=TOTAL).name("totals"), run),
        lambda at: folded(range(since(at), ROWS), lambda x: x % 2, **FIRST_TOTALS), "refused", ["changed: totals", '= col("x") % 2'], options=ANEW, then=KEPT_SINCE,
    ),
    Change(
        KEYED, "the type of the key", totals(), totals(key=col("k").cast(str)), lambda at: folded(range(since(at), ROWS), lambda x: str(x % 3), **FIRST_TOTALS), "refused",
        ["changed: totals", "k int64", "k str"], options=ANEW, then=KEPT_SINCE,
    ),
    Change(
        KEYED, "one more column in the key", totals(n=N), lambda run: to(plain(run).with_columns(even=col("x") % 2 == 0).key_by("k", "even").agg(n=N).name("totals"), run),
        lambda at: [{"k": k, "even": even, "n": n} for (k, even), n in Counter((x % 3, x % 2 == 0) for x in range(since(at), ROWS)).items()], "refused",
        ["changed: totals", "k int64, even bool"], options=ANEW, then=KEPT_SINCE,
    ),
    Change(
        KEYED, "an aggregate is new", totals(), totals(n=N, total=TOTAL, top=TOP, mean=col("x").mean()), lambda at: [
            {**row, **late} for row, late in zip(sorted(folded(range(ROWS), **FIRST_TOTALS), key=lambda row: row["k"]),
            sorted(folded(range(at, ROWS), top="top", mean="mean"), key=lambda row: row["k"]), strict=True)], "refused",
        ["aggregate top=max(int64)", 'allow_new=["totals.top"] lets it'], options={"allow_new": ["totals.top", "totals.mean"]}, then="it covers the records from now on",
    ),
    Change(
        KEYED, "an aggregate is removed", totals(), totals(n=N), lambda at: folded(range(ROWS), n="n"), "refused", ["aggregate total=sum(int64)", "its values would be lost"],
        options={"drop": ["totals.total"]}, then="its values are dropped",
    ),
    Change(
        KEYED, "another aggregate under the same name", totals(), totals(n=N, total=TOP), two_totals, "refused", ["aggregate total was total=sum(int64)", "is total=max(int64)", "another name"],
        named=totals(n=N, top=TOP), named_options={"drop": ["totals.total"], "allow_new": ["totals.top"]}, named_wanted=with_late_column("top", "top", n="n"), then="give it another name",
    ),
    Change(KEYED, "the order of aggregates", totals(), totals(total=TOTAL, n=N), two_totals, "noted", ["totals: its aggregates are in another order"]),
    Change(
        KEYED, "an expression over aggregates", totals(y=col("x").sum() * 1), totals(y=col("x").sum() * 2), lambda at: folded(range(ROWS), y="twice"), "noted", ["totals: aggregates was"],
        then="applies to all records, including earlier ones",
    ),
    Change(
        KEYED, "aggregates are added or removed beside `n_unique()`, in windows that keep their records, or within expressions", totals(n=N, kinds=col("x").n_unique()),
        totals(n=N, kinds=col("x").n_unique(), top=TOP), lambda at: [{**row, "kinds": row["n"]} | ({"top": row["top"]} if at < ROWS else {}) for row in folded(range(since(at), ROWS), n="n", top="top")],
        "refused", ["changed: totals", "n_unique() keeps a table of its own"], options=ANEW, then=KEPT_SINCE,
    ),
    Change(
        KEYED, "`emit=`", lambda run: [plain(run).key_by("k").agg(n=N).name("totals").write_sqlite(run.folder / "totals.db", "totals", key="k")],
        lambda run: [plain(run).key_by("k").agg(n=N, emit="each").name("totals").write_sqlite(run.folder / "totals.db", "totals", key="k")],
        lambda at: {"totals": folded(range(ROWS), n="n")}, "noted", ["totals: emit was end, is each"],
    ),
    Change(
        KEYED, "the function of `reduce`", reduced(latest, "x"), reduced(largest, "x"), lambda at: [{"k": k, "x": ROWS - 3 + k} for k in range(3)], "noted",
        ["last: function was", "largest"], then="applied to the values reduced so far",
    ),
    Change(
        KEYED, "the columns that `reduce` keeps", reduced(latest, "x"), reduced(latest, "x", "at"), lambda at: [
            {"k": k, "x": ROWS - 3 + k} | ({"at": (START + timedelta(seconds=ROWS - 3 + k)).isoformat()} if at < ROWS else {}) for k in range(3)], "refused",
        ["changed: last", "reduce(k int64, x int64)"], options=anew_options("last"), then=KEPT_SINCE,
    ),
    Change(TIME, "the bound of a watermark", window_counts(DAY), window_counts(DAY, bound="7s"), lambda at: tumblings(40, range(ROWS)), "noted", ["event_time: out_of_orderness was 0s, is 7s"]),
    Change(TIME, "allowed lateness", window_counts(DAY), window_counts(DAY, late="9s"), lambda at: tumblings(40, range(ROWS)), "noted", ["counts: allowed_lateness was 0s, is 9s"]),
    Change(
        TIME, "idleness of a source", window_counts(DAY), window_counts(DAY, bound=mill.WatermarkStrategy.bounded_out_of_orderness("0s").with_idleness("30s")), lambda at: tumblings(40, range(ROWS)), "noted",
        ["event_time: idle"],
    ),
    Change(
        TIME, "the column of event time, or its expression", window_counts(DAY), window_counts(DAY, hours=1), shifted_windows, "refused",
        ["changed: event_time", 'col("at")'], options=anew_options("event_time"), then="event time starts over; state of other steps is kept",
    ),
    Change(TIME, "the size of a window", window_counts(DAY), window_counts(mill.tumbling("50s")), anew(lambda xs: tumblings(50, xs)), "refused", ["changed: counts", '"40s"', '"50s"'], options=anew_options("counts"), then=KEPT_SINCE),
    Change(
        TIME, "its offset", window_counts(DAY), window_counts(mill.tumbling("40s", offset="5s")), anew(lambda xs: tumblings(40, xs, 5)), "refused", ["changed: counts", 'offset="5s"'],
        options=anew_options("counts"), then=KEPT_SINCE,
    ),
    Change(
        TIME, "its kind", window_counts(DAY), window_counts(mill.sliding("40s", slide="20s")), anew(lambda xs: slidings(40, 20, xs)), "refused", ["changed: counts", "tumbling", "sliding"],
        options=anew_options("counts"), then=KEPT_SINCE,
    ),
    Change(
        TIME, "the gap of sessions", window_counts(mill.session("100s")), window_counts(mill.session("60s")), lambda at: sessions(100 if at == ROWS else 60, range(since(at), ROWS)), "refused",
        ["changed: counts", "session"], options=anew_options("counts"), then=KEPT_SINCE,
    ),
    Change(TIME, "a trigger is new or gone", window_counts(DAY), window_counts(DAY, trigger=mill.on_count(10)), anew(lambda xs: tumblings(40, xs)), "refused", ["changed: counts", "with a trigger"],
           options={"drop": ["counts"], "allow_new": ["counts", "changes"]}, last=("k", "window_start"), then=KEPT_SINCE),
    Change(
        TIME, "another trigger", window_counts(DAY, trigger=mill.on_count(10)), window_counts(DAY, trigger=mill.on_count(20)), lambda at: tumblings(40, range(ROWS)), "noted", ["counts: trigger was"],
        last=("k", "window_start"),
    ),
    Change(
        TIME, "the schema of `apply`", applied(int), applied(float), lambda at: [
            {**row, "n": row["n"] if datetime.fromisoformat(row["window_end"]) <= START + timedelta(seconds=at - 1) else float(row["n"])} for row in tumblings(40, range(ROWS))], "noted",
        ["counts: column n was int64, is float64"],
    ),
    Change(JOINS, "the filter ahead of a join", joined(), joined(least=560), lambda at: [row for row in pairs(40) if row["x"] < at or row["x"] >= 560], "noted", ["new step: filter"]),
    Change(JOINS, "`how=`", joined(), joined("left"), lambda at: [*pairs_until(at), *pairs(40, "left", at)], "refused", ["changed: pairs", "join inner", "join left"], options=anew_options("pairs"), then=KEPT_SINCE),
    Change(
        JOINS, "the window of a join", joined(), joined(window=mill.tumbling("60s")), lambda at: [*pairs_until(at), *pairs(60, "inner", at)], "refused", ["changed: pairs", '"1m"'],
        options=anew_options("pairs"), then=KEPT_SINCE,
    ),
    Change(
        JOINS, "a column that it keeps is added or removed", joined(), joined(more=True), lambda at: [*pairs_until(at), *({**row, "more": row["x"] + 1} for row in pairs(40, "inner", at))], "refused",
        ["changed: pairs", "more int64"], options=anew_options("pairs"), then=KEPT_SINCE,
    ),
    Change(
        JOINS, "the time to live of its rows", joined(window=None, ttl="1h"), joined(window=None, ttl="2h"), lambda at: pairs(None), "noted", ["pairs: ttl was 1h, is 2h"], then="applies to what is stored",
    ),
    Change(
        JOINS, "a time to live is new or gone", joined(window=None), joined(window=None, ttl="2h"), lambda at: [row for row in pairs(None) if max(row["x"], row["y"]) < at or min(row["x"], row["y"]) >= at],
        "refused", ["changed: pairs", "until unused"], options=anew_options("pairs"), then=KEPT_SINCE,
    ),
    Change(
        JOINS, "the name of a source, with `was=`", two_sources("left"), two_sources("numbers", "left"), lambda at: pairs(40), "noted", ['numbers: its name was "left"'],
    ),
    Change(
        OTHERS, "`deduplicate`, `top_n`, `shift` or another step with state is new", lone, firsts(400), lambda at: lines(x for x in range(ROWS) if x < at + 400), "refused",
        ["not in the checkpoint: firsts", "would start empty"], options={"allow_new": ["firsts"]}, then="it starts empty",
    ),
    Change(OTHERS, "one is removed", firsts(400), lone, lambda at: lines(x for x in range(ROWS) if x < 400 or x >= at), "refused", ["no longer in the plan: firsts", "would be lost"], options={"drop": ["firsts"]}, then="its state is dropped"),
    Change(
        OTHERS, "one is removed, and a step without state has its name", firsts(400), lambda run: to(plain(run).filter(col("x") >= 0).name("firsts"), run),
        lambda at: lines(x for x in range(ROWS) if x < 400 or x >= at), "refused", ["changed: firsts", 'drop=["firsts"] drops its state'], options={"drop": ["firsts"]}, then="its state is dropped",
    ),
    Change(
        OTHERS, "how many rows `top_n` keeps", top(2), top(3), lambda at: {"best": highest(3 if at < ROWS else 2, range(since(at), ROWS))}, "refused", ["changed: best", "top_n(2", "top_n(3"],
        options=anew_options("best"), then=KEPT_SINCE,
    ),
    Change(OTHERS, "how many rows `limit` lets through", limited(500), limited(100), lambda at: lines(range(500 if at == ROWS else at + 100)), "refused", ["changed: head", "limit(500)", "limit(100)"], options=anew_options("head"), then="it counts from zero"),
    Change(
        OTHERS, "how far `shift` reaches", shifted(1), shifted(2), lambda at: [{"x": x, "before": x - 3 if x < at and x >= 3 else x - 6 if x >= at + 6 else None} for x in range(ROWS)], "refused",
        ["changed: shifted", "shift(1", "shift(2"], options=anew_options("shifted"), then=KEPT_SINCE,
    ),
    Change(
        OTHERS, "how far `rolling` reaches", rolled("30s"), rolled("60s"), rolled_anew, "refused",
        ["changed: recent", "30s", "1m"], options=anew_options("recent"), then="the step starts empty; records that wait for the watermark are dropped",
    ),
    Change(FUNCTIONS, "the code of its methods", processed(SUMS), processed(function(adds_more, total=VALUE(int, default=0))), lambda at: running(lambda x: 1 if x >= at else 0), "continues", then="not noticed"),
    Change(
        FUNCTIONS, "the time to live of a state", processed(function(adds, total=VALUE(int, default=0, ttl="1d", clock="processing"))),
        processed(function(adds, total=VALUE(int, default=0, ttl="2d", clock="processing"))), lambda at: running(), "noted", ['sums: states was value total (int64, default 0) for "1d"'], then="applies to what is stored",
    ),
    Change(
        FUNCTIONS, "the default of a state", processed(SUMS), processed(function(adds, total=VALUE(int, default=7))), lambda at: running(), "noted", ["default 0", "default 7"], then="of keys that have no value yet",
    ),
    Change(
        FUNCTIONS, "a state is new", processed(SUMS), processed(function(counts_too, total=VALUE(int, default=0), count=VALUE(int, default=0))),
        lambda at: running(lambda x: of_its_key(at, x) if x >= at else 0), "noted", ["value count (int64, default 0)"], then="it begins with its default",
    ),
    Change(FUNCTIONS, "a wider type of a state", processed(function(adds, total=VALUE(pa.int32(), default=0))), processed(SUMS), lambda at: running(), "noted", ["int32", "int64"], then="converted once"),
    Change(
        FUNCTIONS, "more fields in a state", processed(function(adds_to_struct, total=VALUE({"sum": int}, default={"sum": 0}))),
        processed(function(adds_to_struct, total=VALUE({"sum": int, "extra": int}, default={"sum": 0, "extra": 9}))), lambda at: running(lambda x: 9 if x >= at else 0), "noted", ["extra"],
        then="they get their values from the default",
    ),
    Change(
        FUNCTIONS, "another type of a state", processed(SUMS), processed(function(adds_text, total=VALUE(str))), lambda at: running(), "refused", ["changed: sums", 'state "total" holds int64', "migrate="],
        named=processed(function(adds_text, total=VALUE(str, migrate=str))), then="with `migrate=` it is converted once",
    ),
    Change(
        FUNCTIONS, "a state is removed", processed(SUMS), processed(function(lambda self, row: {"x": row.x, "total": 0})),
        lambda at: [row if row["x"] < at else {**row, "total": 0} for row in running()], "refused", ["changed: sums", 'state "total" is in it'], options=anew_options("sums"),
        then="all states of the step start empty",
    ),
    Change(
        FUNCTIONS, "the schema that it yields", processed(SUMS), processed(SUMS, float), lambda at: [row if row["x"] < at else {**row, "total": float(row["total"])} for row in running()], "noted",
        ["sums: column total was int64, is float64"],
    ),
    Change(NAMES, "a step with state is renamed", totals(), totals(name="sums"), two_totals, "refused", ["no longer in the plan: totals", '.name("sums", was="totals")'], named=totals(name="sums", was="totals"), then='`.name("sums", was="totals")` keeps its state'),
    Change(NAMES, "one that had no name gets one", lambda run: to(plain(run).key_by("k").agg(n=N, total=TOTAL), run), totals(was="agg"), two_totals, "noted", ['totals: its name was "agg"'], then='with `.name("totals", was="agg")`'),
    Change(
        NAMES, "a rename, and an aggregate that is new", totals(), totals(name="sums", was="totals", n=N, total=TOTAL, top=TOP), with_late_column("top", "top", n="n", total="total"), "refused",
        ["aggregate top=max"], options={"allow_new": ["sums.top"]},
    ),
    Change(NAMES, "two steps swap their names", swapped(("even", None), ("odd", None)), swapped(("odd", "even"), ("even", "odd")), of_parts, "noted", ['odd: its name was "even"', 'even: its name was "odd"'], then="with `was=` at both"),
    Change(NAMES, "a name is handed on", swapped(("even", None), ("odd", None)), swapped(("odd", "even"), ("uneven", "odd")), of_parts, "noted", ['odd: its name was "even"', 'uneven: its name was "odd"'], then="with `was=` at both"),
    Change(
        NAMES, "a name in `allow_new`, `drop` or `was` that no step has", totals(), totals(name="sums", was="totls"), two_totals, "refused", ['no step "totls"', 'did you mean "totals"'], named=totals(name="sums", was="totals"),
        then="the message names the nearest one",
    ),
    Change(NAMES, "several changes at once", two_stages, totals(name="sums", n=N), lambda at: folded(range(400), **FIRST_TOTALS), "refused", ["no longer in the plan: firsts", "no longer in the plan: totals", "not in the checkpoint: sums"], then="one error names all of them"),
    Change(
        WHOLE, "any change to a job that had finished", totals(), totals(n=N), two_totals, "refused", ["the job had finished", "aggregates was", "restart=True"], is_finished=True, then="`restart=True` starts over",
    ),
]


def started_with(change: Change, run: Run, plan: Plan, options: dict[str, Any]) -> tuple[list[mill.Output], mill.Checkpoint]:
    return plan(run), mill.Checkpoint(run.folder / "state", **{**change.checkpoint, **options})


def look(sinks: list[mill.Output], checkpoint: mill.Checkpoint) -> mill.StateDiff:
    """What ``millstream state diff`` prints; it writes nothing."""
    folder = Path(checkpoint.path)
    held = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    diff = mill.state_diff(*sinks, checkpoint=checkpoint)
    assert held == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return diff


def refused(change: Change, folder: Path) -> None:
    """The run and the look refuse it in the same words, which say what to do."""
    sinks, checkpoint = started_with(change, Run(folder, is_first=False), change.now, {})
    diff = look(sinks, checkpoint)
    with pytest.raises(mill.MillstreamError) as raised:
        mill.run(*sinks, checkpoint=checkpoint, parallelism=change.parallelism)
    told = str(raised.value)
    assert all(words in told for words in change.says), told
    assert diff.is_refused != change.is_seen_by_run, str(diff)
    if change.is_seen_by_run:
        return
    if not change.is_finished:
        assert [line.strip() for line in told.splitlines()[1:-1]] == diff.refusals
    assert all(refusal in told and refusal in str(diff) for refusal in diff.refusals)
    ways = [f"{name}=[{json.dumps(given)}]" for name, values in change.options.items() for given in values]
    assert all(way in told for way in ways), told


def goes_on(change: Change, folder: Path, plan: Plan, options: dict[str, Any]) -> int:
    """It goes on, the notes say what the look has said, and the number from which it did is returned."""
    run = Run(folder, is_first=False)
    sinks, checkpoint = started_with(change, run, plan, options)
    diff = look(sinks, checkpoint)
    assert not diff.is_refused, str(diff)
    report = mill.run(*sinks, checkpoint=checkpoint, **{"parallelism": change.parallelism, **change.running})
    notes = [note.split(": ", 1)[1] for note in report.notes if note.startswith("the plan has changed since checkpoint ")]
    assert len(notes) == len(report.notes) or change.running, report.notes
    assert bool(notes) == any(step.change != "kept" for step in diff.steps) == (change.verdict != "continues"), (notes, str(diff))
    said = {f"{step.step}: {step.text}" for step in diff.steps}
    for note in notes:
        assert any(note in text or (note.startswith(text.split(": ")[0]) and note.split(": ", 1)[-1] in text) for text in said), (note, said)
    if change.verdict == "noted":
        assert all(any(words in note for note in notes) for words in change.says), notes
    if not run.starts:
        return 0
    assert 0 < run.at < ROWS
    return run.at


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: re.sub(r"\W+", "-", f"{change.group} {change.change}").strip("-"))
def test_a_change_of_the_plan(change: Change, tmp_path: Path) -> None:
    for name, numbers in (("in/0.json", range(3000)), ("in/1.json", range(3000, 3500)), ("in/2.json", range(3500, LINES)), ("more/0.json", range(5000, 5100))):
        write_lines(tmp_path, name, numbers)
    first_run(change, tmp_path)
    change.between(tmp_path)
    if change.verdict == "refused":
        refused(change, tmp_path)
    if change.verdict != "refused" or change.options:
        check(change, tmp_path, goes_on(change, tmp_path, change.now, change.options))
    elif change.named:
        at = goes_on(change, tmp_path, change.named, change.named_options)
        check(replace(change, wanted=change.named_wanted or change.wanted), tmp_path, at)
    elif not change.is_broken:
        # Nothing is lost: the former plan goes on.
        former = Run(tmp_path, is_first=False)
        mill.run(*change.before(former), checkpoint=tmp_path / "state", parallelism=change.parallelism)
        check(change, tmp_path, ROWS)


def test_the_guide_has_this_table() -> None:
    lines = ["| change | what happens | |", "| --- | --- | --- |"]
    for group, changes in itertools.groupby(CHANGES, lambda change: change.group):
        lines += [f"| **{group}** | | |", *(f"| {one.change} | {one.happens} | {one.then} |" for one in changes)]
    table = re.sub(r"  +", " ", "\n".join(lines))
    assert table in GUIDE.read_text(), f"the guide needs this table:\n{table}"
    names = [change.change for change in CHANGES]
    assert len(names) == len(set(names))


def test_there_are_changes_enough() -> None:
    assert len(CHANGES) >= 60
    assert {change.verdict for change in CHANGES} == {"continues", "noted", "refused"}
