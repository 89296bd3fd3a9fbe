"""Which state is pickled objects: found and named without unpickling any of it."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col
from millstream.state import pickled_state


class Longest:
    def create(self) -> str:
        return ""

    def add(self, state: str, value: str) -> str:
        return max(state, value, key=len)

    def merge(self, left: str, right: str) -> str:
        return max(left, right, key=len)

    def result(self, state: str) -> str:
        return state


def words() -> mill.Stream:
    return mill.from_iter([{"k": "a", "word": "one"}, {"k": "b", "word": "three"}])


def with_objects() -> mill.Stream:
    return words().map(lambda row: {"k": row.k, "what": {row.word}}, schema={"k": str, "what": object})


def plain(folder: Path) -> mill.Sink:
    return words().key_by("k").agg(n=mill.count(), last=col("word").last()).name("plain").write_json(folder / "out")


def own_aggregate(folder: Path) -> mill.Sink:
    return words().key_by("k").agg(longest=mill.aggregate(Longest, col("word"))).name("lengths").write_json(folder / "out")


def reduced_objects(folder: Path) -> mill.Sink:
    return with_objects().key_by("k").reduce(lambda a, b: a).name("sets").for_each(lambda row: None)


def kept_objects(folder: Path) -> mill.Sink:
    return with_objects().key_by("k").agg(last=col("what").last()).name("kept").for_each(lambda row: None)


def timed() -> mill.Stream:
    rows = [{"k": "a", "at": datetime(2024, 1, 1), "what": {1}, "x": 1.0}]
    return mill.from_iter(rows, schema={"k": str, "at": datetime, "what": object, "x": float}).event_time("at")


def kept_records(folder: Path) -> mill.Sink:
    windows = timed().key_by("k").window(mill.tumbling("1h"))
    return windows.apply(lambda key, window, rows: {"n": rows.num_rows}, schema={"n": int}).name("windows").write_json(folder / "out")


def kept_records_that_are_plain(folder: Path) -> mill.Sink:
    windows = timed().select("k", "at", "x").key_by("k").window(mill.tumbling("1h"))
    made = windows.apply(lambda key, window, rows: [{"o": {1}}], schema={"o": object})
    return made.name("windows").for_each(lambda row: None)


def own_aggregate_of_sessions(folder: Path) -> mill.Sink:
    # The records are kept, and the aggregate's state is made when a session ends.
    windows = timed().key_by("k").window(mill.session("1h"))
    return windows.agg(longest=mill.aggregate(Longest, col("k"))).name("sessions").write_json(folder / "out")


def best(folder: Path) -> mill.Sink:
    return timed().key_by("k").top_n(1, by="x").name("best").for_each(lambda row: None)


def best_of_windows(folder: Path) -> mill.Sink:
    return timed().key_by("k").top_n(1, by="x", within=mill.tumbling("1h")).name("best").for_each(lambda row: None)


def reduced_windows(folder: Path) -> mill.Sink:
    return timed().key_by("k").window(mill.tumbling("1h")).reduce(lambda a, b: a).name("sets").for_each(lambda row: None)


def hidden_first(folder: Path) -> mill.Sink:
    return timed().key_by("k").agg(known=col("what").first().is_null()).name("first").write_json(folder / "out")


def objects_in_lists(folder: Path) -> mill.Sink:
    nested = words().map(lambda row: {"k": row.k, "what": [{row.word}]}, schema={"k": str, "what": list[object]})
    return nested.key_by("k").reduce(lambda a, b: a).name("lists").for_each(lambda row: None)


@pytest.mark.parametrize(
    ("declare", "step", "state"),
    [
        (plain, "", ""),
        (own_aggregate, "lengths", "longest"),
        (reduced_objects, "sets", "what"),
        (kept_objects, "kept", "last"),
        (kept_records, "windows", "what"),
        (kept_records_that_are_plain, "", ""),
        (own_aggregate_of_sessions, "", ""),
        (best, "best", "what"),
        (best_of_windows, "best", "what"),
        (reduced_windows, "sets", "what"),
        (hidden_first, "first", "of type object"),
        (objects_in_lists, "lists", "what"),
    ],
)
def test_pickled_state_is_named_and_fails_the_check(declare: Any, step: str, state: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    mill.run(declare(tmp_path), checkpoint=mill.Checkpoint(path, mode="at_least_once"))
    command = [sys.executable, "-m", "millstream", "state", "verify", str(path)]
    checked = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=False) for more in ([], ["--no-objects"])
    ]
    assert checked[0].returncode == 0, checked[0].stderr
    found = pickled_state(path)
    if not step:
        assert found == []
        assert checked[1].returncode == 0, checked[1].stdout
        return
    newest = mill.checkpoints(path)[0].id
    assert any(one.step == step and state in one.state and one.checkpoint == newest for one in found), found
    assert checked[1].returncode == 1
    assert step in checked[1].stdout and state in checked[1].stdout
    assert checked[1].stderr == ""


def test_nothing_is_unpickled_by_the_check(tmp_path: Path) -> None:
    class Mine:
        def __reduce__(self) -> Any:
            return (_unpickled, (str(tmp_path / "unpickled"),))

    stream = words().map(lambda row: {"k": row.k, "what": Mine()}, schema={"k": str, "what": object})
    mill.run(stream.key_by("k").reduce(lambda a, b: a, emit="end").select("k").write_json(tmp_path / "out"), checkpoint=tmp_path / "state")
    (tmp_path / "unpickled").unlink(missing_ok=True)
    assert pickled_state(tmp_path / "state")
    assert not (tmp_path / "unpickled").exists()


def _unpickled(path: str) -> None:
    Path(path).touch()


class Keeping(mill.ProcessFunction):
    """Has states of every kind that hold objects, and some that hold none."""

    anything = mill.ValueState(object)
    field = mill.ValueState({"a": object})
    items = mill.ListState(object)
    seen = mill.MapState(str, object)
    counts = mill.MapState(str, int)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Any:
        yield {"x": row.x}


def test_explain_says_which_states_are_pickled() -> None:
    text = mill.from_iter([{"x": 1}]).key_by("x").process(Keeping(), schema={"x": int}).explain()
    for state in (
        "value anything (object, pickled)",
        "value field (struct[a: binary], of pickled objects)",
        "list items (object, pickled)",
        "map seen (str to object, pickled)",
        "map counts (str to int64)",
    ):
        assert state in text
