"""The jobs and sinks of the crash matrix: small, so that a run takes milliseconds, and of every kind there is.

A job is a pair of a plan (``stateless``, ``keyed``, ``windowed``, ``sliding``, ``kept``, ``python``, ``process``, and those of
``torture_joins.py``) and a kind of sink (``file``, ``sqlite``, ``custom``). What a directory, a table or the target of a custom sink shows is read back by :func:`shown`, as rows
``(output, key, numbers...)``; :func:`wrong` judges them by what the mode promises.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import torture_joins

import millstream as mill
from millstream import col, testing

PLANS = ("stateless", "keyed", "windowed", "sliding", "kept", "python", "process", *torture_joins.PLANS)
HOOKED = ("python", "timers", "broadcast", "async")
"""Plans with a Python function that calls the hook."""
SINKS = ("file", "sqlite", "custom")
ROWS = 500
KEYS = 7
START = datetime(2024, 1, 1)

Row = tuple[Any, ...]
Hook = Callable[[], object]


@functools.cache
def data() -> pa.Table:
    """Numbered records of a few keys, their times out of order and some of them late."""
    dice = random.Random(1)
    times, clock = [], START
    for _ in range(ROWS):
        clock += timedelta(milliseconds=dice.choice([0, 200, 500]))
        times.append(clock - timedelta(seconds=dice.choice([0, 0, 1, 2, 30])))
    columns = {"v": range(ROWS), "k": [dice.randrange(KEYS) for _ in range(ROWS)], "at": times}
    table = pa.table({"v": pa.array(columns["v"]), "k": pa.array(columns["k"]), "at": pa.array(times, pa.timestamp("us"))})
    pieces = [table.slice(first, 60) for first in range(0, ROWS, 60)]
    return pa.concat_tables(pieces)


def write_inputs(folder: Path) -> None:
    """Write the records as the CSV files that the stateless plan reads."""
    rows = data().select(["v", "k"]).to_pylist()
    folder.mkdir(parents=True)
    for number in range(4):
        lines = [f"{row['v']},{row['k']}" for row in rows[number::4]]
        (folder / f"{number}.csv").write_text("\n".join(["v,k", *lines, ""]))


def declare(plan: str, sink: str, variant: int, work: Path, inputs: Path, hook: Hook) -> list[mill.Output]:
    """Declare a job; ``hook`` is called by the Python functions, once a record."""
    (work / "out").mkdir(parents=True, exist_ok=True)
    if plan == "stateless":
        stream = mill.read_csv(inputs / "*.csv", schema={"v": int, "k": int}).filter(col("v") % 3 != 0).with_columns(w=col("v") * 2)
        return [_into(stream, sink, variant, work, "rows")]
    table = mill.from_arrow(data())
    if plan == "keyed":
        keyed = table.key_by("k")
        is_updating = sink == "sqlite" or (sink == "custom" and variant % 3 == 0)
        emit: Any = "checkpoint" if is_updating else "end"
        totals = keyed.agg(n=mill.count(), total=col("v").sum(), emit=emit)
        return [_into(totals, sink, variant, work, "totals", "k" if is_updating else None)]
    if plan in ("windowed", "sliding"):
        timed = table.event_time("at", watermark="1s").key_by("k")
        lateness = "0s"
        window: mill.Window = mill.tumbling("5s")
        if plan == "sliding":
            # Records that are late for some of their windows, and panes of two lengths.
            window = mill.sliding("10s", slide="3s") if variant % 2 == 0 else mill.cumulative(step="2s", size="10s")
            lateness = "2s" if variant % 3 == 0 else "0s"
        windows = timed.window(window, allowed_lateness=lateness).agg(n=mill.count(), total=col("v").sum())
        late = windows.late.select("v", "k")
        bound = "window_start" if plan == "windowed" else "window_end"
        windows = windows.select(window_start=bound, k="k", n="n", total="total").cast({"window_start": "int64"})
        return [_into(windows, sink, variant, work, "windows"), _into(late, sink, variant, work, "late")]

    if plan in torture_joins.PLANS:
        # A custom sink with a key takes one that is a single column.
        is_keyed = sink == "sqlite" or (sink == "custom" and variant < 3)
        outputs = torture_joins.declare(plan, is_keyed, variant, table, hook)
        return [_into(stream, sink, variant, work, name, key) for name, (stream, key) in outputs.items()]

    if plan == "kept":
        return _kept(table, sink, variant, work)

    if plan == "process":
        timed = table.event_time("at", watermark="1s").key_by("k")
        delayed = timed.process(Delayed(variant % 2 == 0, hook), schema={"v": int, "k": int, "w": int})
        return [_into(delayed, sink, variant, work, "rows")]

    def doubled(row: Any) -> dict[str, int]:
        hook()
        return {"v": row.v, "k": row.k, "w": row.v * 2}

    mapped = table.select("v", "k").map(doubled, schema={"v": int, "k": int, "w": int}).filter(lambda row: row.v % 5 != 0)
    if variant % 2 == 0:
        return [_into(mapped, sink, variant, work, "rows")]
    folded = mapped.key_by("k").reduce(lambda a, b: {"v": max(a.v, b.v), "k": a.k, "w": a.w + b.w}, emit="end")
    return [_into(folded.select("k", "v", "w"), sink, variant, work, "totals")]


def _kept(table: Any, sink: str, variant: int, work: Path) -> list[mill.Output]:
    """Windows that keep their records, and steps whose rows replace each other in a table."""
    timed = table.event_time("at", watermark="1s").key_by("k")
    if sink == "sqlite" and variant % 2 == 0:
        if variant % 4 == 0:
            trigger = mill.on_watermark(early=mill.every(3), late=mill.each() if variant % 8 == 0 else None)
            windows = timed.window(mill.tumbling("5s"), allowed_lateness="2s", trigger=trigger)
            counted = windows.agg(n=mill.count(), total=col("v").sum()).select("window_start", "k", "n", "total", "window_end")
            return [_into(counted, sink, variant, work, "windows", ["window_start", "window_end", "k"])]
        best = table.key_by("k").top_n(3, by="v", emit="checkpoint").select("k", "rank", "v")
        return [_into(best, sink, variant, work, "best", ["k", "rank"])]
    if variant % 3 == 1:
        full = timed.window(mill.count_window(5, partial=True)).agg(first=col("v").first(), n=mill.count(), total=col("v").sum())
        return [_into(full.select("first", "k", "n", "total"), sink, variant, work, "windows")]
    windows = timed.window(mill.session("700ms"), allowed_lateness="2s" if variant % 2 == 0 else "0s")
    if variant % 3 == 0:
        sessions = windows.agg(n=mill.count(), total=col("v").sum())
    else:
        sessions = windows.apply(
            lambda key, bounds, rows: {"n": rows.num_rows, "total": sum(rows["v"].to_pylist())}, schema={"n": int, "total": int}
        )
    late = sessions.late.select("v", "k")
    sessions = sessions.select("window_start", "k", "n", "total").cast({"window_start": "int64"})
    return [_into(sessions, sink, variant, work, "windows"), _into(late, sink, variant, work, "late")]


def _into(stream: Any, sink: str, variant: int, work: Path, name: str, key: str | list[str] | None = None) -> mill.Output:
    if sink == "file":
        writer = [stream.write_csv, stream.write_json, stream.write_parquet][variant % 3]
        return writer(work / "out" / name)
    if sink == "sqlite":
        return stream.write_sqlite(work / "out" / f"{name}.db", name, key=key)
    if key is not None:
        return stream.sink_to(Upserts(work / "out" / f"{name}.upserts"))
    kinds = (Hidden, Journal)
    return stream.sink_to(kinds[variant % 2](work / "out" / f"{name}.{kinds[variant % 2].__name__.lower()}"))


class Delayed(mill.ProcessFunction):
    """Each record once, when a timer of its own fires."""

    pending = mill.MapState(int, list[int], ttl="1d")
    seen = mill.ValueState(int, default=0)

    def __init__(self, is_event_time: bool, hook: Hook) -> None:
        self.is_event_time = is_event_time
        # A function: what it belongs to is not copied with the object for each task.
        self.hook = lambda: hook()

    def process(self, row: Any, ctx: Any) -> None:
        self.hook()
        self.seen.value += 1
        delay = timedelta(seconds=row.v % 5, microseconds=row.v)
        due = ctx.timestamp + delay if self.is_event_time else ctx.now + delay / 1000
        number = _number(due)
        self.pending[number] = [*self.pending.get(number, ()), row.v]
        set_timer = ctx.timers.event_time if self.is_event_time else ctx.timers.processing_time
        set_timer(due)

    def on_timer(self, at: datetime, ctx: Any) -> Iterator[dict[str, int]]:
        for v in self.pending.pop(_number(at)):
            yield {"v": v, "k": ctx.key, "w": v * 2}


def _number(moment: datetime) -> int:
    return (moment.replace(tzinfo=None) - START) // timedelta(microseconds=1)


class Hidden(mill.Sink):
    """A transactional sink as a user would write one: hidden files that are renamed."""

    kind = "transactional"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []

    def open(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def write(self, batch: Any) -> None:
        self.rows += [list(row.values()) for row in batch.to_pylist()]

    def pre_commit(self, epoch: int) -> Any:
        if not self.rows:
            return None
        name = f"{epoch}-{os.urandom(6).hex()}"
        with (self.folder / f".{name}").open("w") as file:
            json.dump(self.rows, file)
            file.flush()
            os.fsync(file.fileno())
        self.rows = []
        return name

    def commit(self, handles: Sequence[tuple[int, Any]]) -> None:
        for _, name in handles:
            if not (self.folder / name).exists():
                (self.folder / f".{name}").rename(self.folder / name)

    def recover(self, handles: Sequence[tuple[int, Any]]) -> None:
        self.commit(handles)
        self._clear()

    def abort(self) -> None:
        self.rows = []

    def _clear(self) -> None:
        for path in self.folder.glob(".*"):
            path.unlink()


class Journal(mill.Sink):
    """A write-ahead sink: a table that notes the epoch with its rows."""

    kind = "write-ahead"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database: sqlite3.Connection | None = None

    def open(self) -> None:
        self.database = sqlite3.connect(self.path, check_same_thread=False)
        self.database.execute("CREATE TABLE IF NOT EXISTS rows (epoch INTEGER, line TEXT)")
        self.database.commit()

    def deliver(self, batch: Any, epoch: int) -> None:
        assert self.database is not None
        lines = [(epoch, json.dumps(list(row.values()))) for row in batch.to_pylist()]
        with self.database:
            self.database.executemany("INSERT INTO rows VALUES (?, ?)", lines)

    def last_epoch(self) -> int | None:
        assert self.database is not None
        return self.database.execute("SELECT max(epoch) FROM rows").fetchone()[0]

    def close(self) -> None:
        if self.database is not None:
            self.database.close()
            self.database = None


class Upserts(mill.Sink):
    """An idempotent sink: one row a key, written at once."""

    kind = "idempotent"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database: sqlite3.Connection | None = None

    def open(self) -> None:
        self.database = sqlite3.connect(self.path, check_same_thread=False)
        self.database.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, line TEXT)")
        self.database.commit()

    def write(self, batch: Any) -> None:
        assert self.database is not None
        for row in batch.to_pylist():
            values = list(row.values())
            self.database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (str(values[0]), json.dumps(values)))

    def delete(self, batch: Any) -> None:
        assert self.database is not None
        keys = [(str(next(iter(row.values()))),) for row in batch.to_pylist()]
        self.database.executemany("DELETE FROM rows WHERE key = ?", keys)

    def pre_commit(self, epoch: int) -> Any:
        assert self.database is not None
        self.database.commit()

    def close(self) -> None:
        if self.database is not None:
            self.database.close()
            self.database = None


def shown(work: Path) -> list[Row]:
    """All rows that the outputs show, each behind the name of its output."""
    rows: list[Row] = []
    for path in sorted((work / "out").rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        name = path.parent.name if path.parent != work / "out" else path.stem
        name = name.split(".")[0]
        if path.suffix == ".csv":
            lines = path.read_text().splitlines()[1:]
            rows += [(name, *map(int, line.split(","))) for line in lines]
        elif path.suffix == ".json":
            rows += [(name, *json.loads(line).values()) for line in path.read_text().splitlines()]
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with path.open("rb") as file:
                table = pq.read_table(file, use_threads=False, pre_buffer=False)
            rows += [(name, *row.values()) for row in table.to_pylist()]
        elif path.suffix == ".db":
            rows += [(name, *row) for row in _table(path, name, "*")]
        elif path.suffix in (".journal", ".upserts"):
            rows += [(name, *json.loads(line)) for (line,) in _table(path, "rows", "line")]
        elif path.parent.suffix == ".hidden":
            rows += [(name, *row) for row in json.loads(path.read_text())]
    return sorted(rows)


def write_into(path: Path, state: Path, seed: int) -> None:
    """Let a second job write into the table that a job has made, and take its rows out again."""
    name = path.stem.split(".")[0]
    with sqlite3.connect(path) as database:
        columns = [(column, key) for _, column, _, _, _, key in database.execute(f"PRAGMA table_info({name})")]
    database.close()
    if not columns:
        return
    keys = [column for column, key in columns if key] or None
    rows = pa.table({column: pa.array([-1] * 20, pa.int64()) for column, _ in columns})
    sink = mill.from_arrow(rows).write_sqlite(path, name, key=keys)
    testing.simulate(sink, seed=seed, checkpoint=mill.Checkpoint(state, every="1ms"), parallelism=1, frame_rows=3)
    with sqlite3.connect(path) as database:
        database.execute(f"DELETE FROM {name} WHERE {columns[0][0]} = -1")
    database.close()


def _table(path: Path, table: str, columns: str) -> list[Row]:
    database = sqlite3.connect(path)
    try:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
            return []
        return database.execute(f"SELECT {columns} FROM {table}").fetchall()
    finally:
        database.close()


def wrong(plan: str, mode: str, expected: list[Row], found: list[Row]) -> str:
    """What the output breaks of the mode's promise; empty if nothing."""
    if mode in ("exactly_once", "dedup"):
        missing, surplus = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
        if missing or surplus:
            return f"missing {sorted(missing.elements())[:3]}, surplus {sorted(surplus.elements())[:3]}"
        return ""
    if plan in torture_joins.PLANS or (expected and expected[0][0] == "rows"):
        left, right = (expected, found) if mode == "at_least_once" else (found, expected)
        broken = Counter(left) - Counter(right)
        return f"{'missing' if mode == 'at_least_once' else 'surplus'} {sorted(broken.elements())[:3]}" if broken else ""
    # Totals: how many records of each key they are made of, over all rows that are shown.
    wanted, given = _records(plan, expected), _records(plan, found)
    for key in wanted | given:
        if mode == "at_least_once" and given[key] < wanted[key]:
            return f"key {key}: {given[key]} is less than {wanted[key]}"
        if mode == "none" and given[key] > wanted[key]:
            return f"key {key}: {given[key]} is more than {wanted[key]}"
    return ""


def _records(plan: str, rows: list[Row]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for name, *values in rows:
        if name == "late":
            counts[values[1]] += 1
        elif name == "windows":
            counts[values[1]] += values[2]
        elif plan == "keyed":
            counts[values[0]] += values[1]
        else:
            # A fold: the sum of 2 v.
            counts[values[0]] += values[2]
    return counts
