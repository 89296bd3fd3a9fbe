"""What `.errors` of windows shows, what is late for windows without an end, names that clash, and what steps keep."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col
from millstream.errors import PlanError

NOON = datetime(2024, 1, 1, 12)
BIG = 2**62


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def stream() -> mill.Stream:
    rows = [
        {"user": user, "at": at(second), "v": v, "note": f"{user} says {v}"}
        for user, second, v in [("ann", 1, BIG), ("ann", 2, BIG), ("ann", 3, 5), ("bob", 1, 7), ("ann", 61, 1)]
    ]
    return mill.from_iter(rows).event_time("at", watermark="1s")


def errors_of(result: mill.Stream, parallelism: int) -> list[tuple[Any, str]]:
    found = result.errors.collect(on_error="route", parallelism=parallelism).to_pylist()
    return sorted(((row["record"], row["error"]) for row in found), key=str)


def shown(text: str) -> dict[str, Any]:
    """A record as `.errors` shows it; times are written without quotes."""
    import re

    parsed: dict[str, Any] = json.loads(re.sub(r": (\d{4}-[^,}]*)", r': "\1"', text))
    return parsed


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize(
    ("window", "end"),
    [
        (mill.tumbling("1m"), at(60)),
        (mill.cumulative(step="1m", size="1h"), at(60)),
        (mill.sliding("1m", slide="1m"), at(60)),
        (mill.session("10s"), at(13)),
    ],
)
def test_a_window_without_a_result_is_shown_by_key_bounds_and_other_results(window: Any, end: datetime, parallelism: int) -> None:
    result = stream().key_by("user").window(window).agg(total=col("v").sum(), n=mill.count())
    start = at(1) if end == at(13) else at(0)
    first, *others = errors_of(result, parallelism)
    # A cumulative window of the hour has the sum as well, in its later results.
    assert all(shown(record)["user"] == "ann" for record, _ in others)
    assert shown(first[0]) == {"user": "ann", "window_start": start.isoformat(), "window_end": end.isoformat(), "total": None, "n": 3}
    assert "total" in first[1]


def test_windows_of_few_records_show_their_bounds_too() -> None:
    rows = [{"k": k % 7, "at": at(10 * k), "v": BIG} for k in range(400) for _ in range(2)]
    timed = mill.from_iter(rows).event_time("at")
    result = timed.key_by("k").window(mill.tumbling("10s")).agg(total=col("v").sum())
    found = [shown(record) for record, _ in errors_of(result, 1)]
    expected = [
        {"k": k % 7, "window_start": at(10 * k).isoformat(), "window_end": at(10 * k + 10).isoformat(), "total": None} for k in range(400)
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_function_that_fails_names_the_window(parallelism: int) -> None:
    def fails(key: Any, window: Any, rows: Any) -> Any:
        raise ValueError(f"{rows.num_rows} rows")

    def folds(so_far: Any, row: Any) -> Any:
        raise ValueError("no fold")

    windows = stream().key_by("user").window(mill.tumbling("1m"))
    bounds = {"window_start": at(0).isoformat(), "window_end": at(60).isoformat()}
    for result, message in [(windows.apply(fails, schema={"n": int}), "3 rows"), (windows.reduce(folds), "no fold")]:
        found = errors_of(result, parallelism)
        [(_, error)] = [it for it in found if shown(it[0]) == {"user": "ann", **bounds}]
        assert message in error
        assert all(set(shown(record)) == {"user", "window_start", "window_end"} for record, _ in found)


@pytest.mark.parametrize("window", [mill.tumbling("1m"), mill.session("10s"), None])
def test_a_record_that_cannot_be_taken_in_is_shown_as_it_came(window: Any) -> None:
    keyed = stream().key_by("user")
    total = (col("v") * 4).sum()
    result = keyed.agg(total=total) if window is None else keyed.window(window).agg(total=total)
    found = errors_of(result, 1)
    assert len(found) == 2
    for record, _ in found:
        assert "__" not in record
        assert shown(record)["note"] == f"ann says {BIG}", "a column that the aggregate does not need"


def test_a_gap_that_is_wrong_shows_the_record() -> None:
    rows = [{"k": 1, "at": at(0), "gap": timedelta(seconds=1), "x": 1}, {"k": 1, "at": at(1), "gap": None, "x": 2}]
    timed = mill.from_iter(rows).event_time("at")
    windows = timed.key_by("k").window(mill.session(col("gap")))
    for result in (
        windows.agg(n=mill.count()),
        windows.apply(lambda key, window, rows: {"n": rows.num_rows}, schema={"n": int}),
    ):
        [(record, error)] = errors_of(result, 1)
        assert "gap" in error
        assert "__" not in record
        assert shown(record)["x"] == 2


def test_windows_without_an_end_have_nothing_late() -> None:
    keyed = stream().key_by("user")
    for window in (mill.count_window(2), mill.global_window()):
        result = keyed.window(window).agg(n=mill.count())
        assert result.late.collect().to_pylist() == []
        assert result.late.schema.names == ["user", "at", "v", "note"]
        assert keyed.window(window).reduce(lambda a, b: a).late.collect().to_pylist() == []
    everyone = stream().window_all(mill.global_window()).agg(n=mill.count())
    out: list[Any] = []
    late: list[Any] = []
    mill.run(everyone.for_each(lambda row: out.append(row.n)), everyone.late.for_each(late.append), parallelism=3)
    assert (out, late) == ([5], [])


def test_a_key_with_the_name_of_a_bound_is_refused_where_it_is_declared() -> None:
    first = stream().key_by("user").window(mill.tumbling("10s")).agg(n=mill.count())
    with pytest.raises(PlanError) as raised:
        first.key_by("window_start").window(mill.tumbling("1m"))
    assert str(raised.value) == (
        'window(): the key "window_start" has the name of a column that a window adds to its results; give the key another '
        'name, as in key_by(earlier_window_start="window_start")'
    )
    by_start = first.key_by(earlier_window_start="window_start").window(mill.tumbling("1m")).agg(users=mill.count())
    rows = sorted(by_start.collect().to_pylist(), key=lambda row: row["earlier_window_start"])
    assert [(row["earlier_window_start"], row["window_start"], row["users"]) for row in rows] == [
        (at(0), at(0), 2),
        (at(60), at(60), 1),
    ]
    with pytest.raises(PlanError, match='the key "pane" has the name'):
        stream().rename({"user": "pane"}).key_by("pane").window(mill.tumbling("1m"), trigger=mill.on_count(2))


class Endless(mill.Source):
    """Gives some rows, and then nothing more without an end."""

    schema = {"user": str, "at": datetime, "v": int, "note": str}
    is_bounded = False

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def partitions(self) -> list[str]:
        return ["all"]

    def open(self, partition: str, position: Any) -> mill.SourceReader:
        rows, begun = self._rows, position or 0

        class Reader(mill.SourceReader):
            done = begun

            def next_batch(self) -> Any:
                first, self.done = self.done, len(rows)
                return rows[first:]

            def position(self) -> int:
                return self.done

        return Reader()


def test_state_of_windows_with_functions_has_their_bounds(tmp_path: Path) -> None:
    rows = [
        {"user": user, "at": at(second), "v": second, "note": f"{user} at {second}"}
        for user, second in [("ann", 1), ("bob", 4), ("ann", 5), ("ann", 30), ("bob", 58)]
    ]
    schema = {"n": int}

    def apply(key: Any, window: Any, rows: Any) -> Any:
        return {"n": rows.num_rows}

    keyed = mill.from_source(Endless(rows)).event_time("at", watermark="5m").key_by("user")
    steps = {
        "tumbling": keyed.window(mill.tumbling("1m")).apply(apply, schema=schema),
        "sliding": keyed.window(mill.sliding("1m", slide="20s")).apply(apply, schema=schema),
        "session": keyed.window(mill.session("10s")).apply(apply, schema=schema),
        "reduce": keyed.window(mill.tumbling("1m")).reduce(lambda a, b: a),
        "count": keyed.window(mill.count_window(9)).apply(apply, schema=schema),
    }
    job = mill.start(*(step.name(name).write_json(tmp_path / name) for name, step in steps.items()), checkpoint=tmp_path / "state")
    end = time.monotonic() + 30
    while min((step.rows_in for step in job.metrics().steps if step.name in steps), default=0) < len(rows):
        assert time.monotonic() < end
        time.sleep(0.01)
    job.savepoint(tmp_path / "saved")
    job.cancel()

    def state(name: str) -> list[tuple[Any, ...]]:
        found = mill.read_state(tmp_path / "saved", step=name).to_pylist()
        assert all(row["note"] == f"{row['user']} at {row['v']}" for row in found)
        return sorted((row["v"], row.get("window_start"), row.get("window_end")) for row in found)

    assert state("tumbling") == state("reduce") == [(v, at(0), at(60)) for v in (1, 4, 5, 30, 58)]
    # A record is there once for each of its windows.
    assert state("sliding") == [
        (v, at(start), at(start + 60)) for v in (1, 4, 5, 30, 58) for start in range(-60, 61, 20) if start <= v < start + 60
    ]
    assert state("session") == [
        (1, at(1), at(15)), (4, at(4), at(14)), (5, at(1), at(15)), (30, at(30), at(40)), (58, at(58), at(68))
    ]  # fmt: skip
    assert state("count") == [(v, None, None) for v in (1, 4, 5, 30, 58)]


def test_explain_says_what_each_step_keeps_and_for_how_long() -> None:
    keyed = stream().key_by("user")
    n = {"n": mill.count()}
    cases: list[tuple[mill.Stream, str]] = [
        (keyed.window(mill.tumbling("1m")).agg(**n), "keeps a row a key and window until the watermark is at the end of the window"),
        (
            keyed.window(mill.tumbling("1m"), allowed_lateness="30s").agg(**n),
            "keeps a row a key and window until the watermark is \"30s\" after the end of the window",
        ),
        (
            keyed.window(mill.sliding("1m", slide="10s")).agg(**n),
            "keeps a row a key and pane of \"10s\" until the watermark is at the end of the last window that holds it",
        ),
        (
            keyed.window(mill.cumulative(step="1m", size="1h")).agg(**n),
            "keeps a row a key and step of \"1m\" until the watermark is at the end of the last window that holds it",
        ),
        (
            keyed.window(mill.session("5s")).agg(**n),
            "keeps a row a key and session until the watermark is at the end of the session",
        ),
        (
            keyed.window(mill.session("5s")).agg(all=col("v").collect()),
            "keeps the columns that it needs of the records of each key until the watermark is at the end of their session",
        ),
        (
            keyed.window(mill.tumbling("1m")).reduce(lambda a, b: a),
            "keeps the records of each key until the watermark is at the end of their window",
        ),
        (
            keyed.window(mill.count_window(10)).agg(**n),
            "keeps a row a key until its window is full",
        ),
        (
            keyed.window(mill.count_window(10, slide=5)).agg(**n),
            "keeps the columns that it needs of the records of each key, at most 9, until they fill a window",
        ),
        (keyed.window(mill.global_window(), trigger=mill.on_count(5)).agg(**n), "keeps a row a key until the input ends"),
        (
            keyed.window(mill.sliding("1m", slide="10s"), allowed_lateness="5s", trigger=mill.on_count(5)).agg(**n),
            'keeps a row a key and window until the watermark is "5s" after the end of the window',
        ),
        (
            keyed.window(mill.tumbling("1m"), trigger=mill.on_count(5)).agg(m=col("v").median()),
            "keeps the columns that it needs of the records of each key until the watermark is at the end of their window",
        ),
        (keyed.rolling("10m").agg(**n), 'keeps the records of each key until the watermark is "10m" after them'),
        (keyed.top_n(3, by="v"), "keeps 3 rows a key for as long as the job runs"),
        (
            keyed.top_n(3, by="v", within=mill.tumbling("1m")),
            "keeps 3 rows a key and window until the watermark is at the end of the window",
        ),
        (keyed.deduplicate(), "keeps each key for as long as the job runs"),
        (keyed.deduplicate(within="1h"), 'keeps each key until the watermark is "1h" after its row'),
        (keyed.reduce(lambda a, b: a), "keeps a record a key until the input ends"),
        (keyed.agg(**n), "keeps a row a key until the input ends"),
        (keyed.agg(emit="1s", **n), "keeps a row a key for as long as the job runs"),
        (stream(), "keeps the watermark of each split until the split ends"),
        (stream().limit(3), "keeps how many rows it has passed on"),
        (keyed.agg(emit="1s", **n).to_changelog(), "keeps the latest row a key for as long as the job runs"),
    ]
    for step, text in cases:
        assert text in step.explain(), step.explain()
