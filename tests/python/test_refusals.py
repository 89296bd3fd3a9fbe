"""What cannot be done is refused in the words of the user, where the plan is declared or its record fails."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col

INTERVALS = pa.table({"k": [1, 2], "i": pa.array([(1, 2, 3), (4, 5, 6)], pa.month_day_nano_interval())})
CODES = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array([{"a": 1}, {"a": 2}]))


def times(**columns: Any) -> mill.Stream:
    rows = pa.table({**columns, "v": [1, 2, 3], "t": pa.array([1, 2, 3], pa.timestamp("us"))})
    return mill.from_arrow(rows).event_time("t", watermark="1s")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("write_parquet", 'column "i" is interval, which cannot be written as Parquet; cast it to str, or write it with write_arrow()'),
        ("write_csv", 'column "i" is interval, which CSV cannot hold: cast it to str, or write it with write_arrow()'),
        ("write_json", "JSON has no form for interval; cast it to str, or write it with write_arrow()"),
    ],
)
def test_intervals_are_refused_with_an_advice_that_works(tmp_path: Path, write: str, said: str) -> None:
    """The advice was to write JSON or Parquet, which refused too, Parquet only when the job ran."""
    s = mill.from_arrow(INTERVALS)
    with pytest.raises(mill.SchemaError) as refused:
        mill.run(getattr(s, write)(tmp_path / "out"))
    assert said in str(refused.value)
    as_text = s.with_columns(i=col("i").cast(str))
    assert mill.run(getattr(as_text, write)(tmp_path / "text")).rows_in == 2
    mill.run(s.write_arrow(tmp_path / "arrow"))
    assert mill.read_arrow(tmp_path / "arrow").collect().to_arrow()["i"].to_pylist() == INTERVALS["i"].to_pylist()
    with pytest.raises(mill.SchemaError, match="which SQLite cannot hold: cast it to str"):
        mill.run(s.write_sqlite(tmp_path / "x.db", "t"))
    with pytest.raises(mill.SchemaError, match=r"has no Python form; drop it, cast it to str, or take it as Arrow, with to_arrow\(\)"):
        s.collect().to_pylist()


def test_what_is_not_told_apart_is_no_key() -> None:
    """Intervals within structs failed when the job ran, with the words of the hash."""
    nested = pa.array([{"x": (1, 2, 3)}] * 3, pa.struct([("x", pa.month_day_nano_interval())]))
    interval = pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval())
    with pytest.raises(mill.SchemaError, match=r'column "i" cannot be a key: it is interval; cast it, as in \.cast\(str\)'):
        times(i=interval).key_by("i")
    with pytest.raises(mill.SchemaError, match='column "x" cannot be a key: it is interval'):
        times(n=nested).key_by("n")
    with pytest.raises(mill.SchemaError, match="n_unique.. needs values that are told apart, as keys are"):
        times(i=nested).key_by("v").agg(x=col("i").n_unique())


def test_what_cannot_be_state_is_refused_in_our_words() -> None:
    """A dictionary of structs within another type reached the row encoding, whose text was shown."""
    inner = pa.StructArray.from_arrays([CODES], ["z"])
    for aggregate in (col("s").collect(), col("s").first(), col("s").last()):
        with pytest.raises(mill.SchemaError, match=r"keeps values as state, which struct\[z: dictionary\[struct\[a: int64\]\]\] cannot be"):
            times(s=inner).key_by("v").agg(x=aggregate)
    said = r'column "k" is dictionary\[struct\[a: int64\]\], which cannot be kept as state; drop it or cast it to another type before'
    keyed = times(k=CODES).key_by("v")
    with pytest.raises(mill.SchemaError, match=said):
        keyed.rolling("1s").agg(n=mill.count())
    with pytest.raises(mill.SchemaError, match=said):
        keyed.reduce(lambda a, b: a)
    with pytest.raises(mill.SchemaError, match=said):
        keyed.window(mill.session("1s")).reduce(lambda a, b: a)
    with pytest.raises(mill.SchemaError, match=said):
        keyed.window(mill.tumbling("1s")).apply(lambda key, bounds, rows: [], schema={"n": int})
    # What is kept of a window's records are the columns of its aggregates, and a key has its values.
    assert keyed.window(mill.session("1s")).agg(m=col("v").median()).collect()["m"] == [1.0, 2.0, 3.0]
    assert sorted(times(k=CODES).key_by("k").agg(n=mill.count()).collect()["n"]) == [1, 2]


def test_messages_name_what_was_called(tmp_path: Path) -> None:
    wide = mill.from_arrow(pa.table({"d": pa.array([Decimal(1)], pa.decimal256(50, 2))}))
    with pytest.raises(mill.SchemaError, match=r"sum\(\) adds decimals of up to 38 digits, found decimal\[50, 2\]; cast it"):
        wide.agg(x=col("d").sum())
    with pytest.raises(mill.SchemaError, match=r"json_decode\(\) makes values of a type, and object is none"):
        col("x").str.json_decode(object)
    length = mill.from_arrow(pa.table({"d": pa.array([1], pa.duration("us"))}))
    with pytest.raises(mill.SchemaError, match=r"dt\.round\(\) needs a date or timestamp, found"):
        length.select(x=col("d").dt.round("5h"))
    out = mill.from_iter([1]).write_csv(tmp_path / "out")
    with pytest.raises(AttributeError, match=r"a sink has no \.errors: .* \.all_errors of the stream that is written"):
        _ = out.errors
    slow = mill.generate(rows=1_000_000, rate=10, n=mill.index()).write_csv(tmp_path / "a.csv")
    with mill.start(slow, checkpoint=tmp_path / "a"), pytest.raises(mill.ConnectorError, match=r"writes to .*a\.csv.*; give each its own file"):
        mill.run(mill.from_iter([1]).write_csv(tmp_path / "a.csv"), checkpoint=tmp_path / "b")


def test_a_deviation_that_is_no_duration_is_an_error_of_its_group() -> None:
    """It failed the job, whatever on_error was."""
    far = pa.table({"k": [1, 1, 2, 2], "d": pa.array([2**63 - 1, -(2**63) + 1, 5, 7], pa.duration("s"))})
    spread = mill.from_arrow(far).key_by("k").agg(s=col("d").std(), n=mill.count())
    with pytest.raises(mill.DataError) as failed:
        spread.collect()
    assert 'standard deviation "s" is 13043817825332783104 and overflows duration[s]; count it in a coarser unit' in str(failed.value)
    assert spread.collect(on_error="skip").to_arrow()["k"].to_pylist() == [2]
    [letter] = spread.errors.collect(on_error="route").to_pylist()
    assert letter["record"] == '{"k":1,"s":null,"n":2}'
    windows = mill.from_arrow(far.append_column("t", pa.array([1, 2, 3, 4], pa.timestamp("s")))).event_time("t", watermark="1s")
    for window in (mill.tumbling("1h"), mill.session("1h"), mill.sliding("2h", slide="1h")):
        kept = windows.key_by("k").window(window).agg(s=col("d").std()).collect(on_error="skip").to_arrow()
        assert set(kept["k"].to_pylist()) == {2}


def test_dead_letters_have_the_form_of_json_files(tmp_path: Path) -> None:
    """They had spaces that write_json does not write."""
    rows = mill.from_iter([{"a": 0, "b": [1, None], "c": {"x": "ä, \"b\": c"}}])
    failing = rows.with_columns(a=col("a") // 1, z=lit_one() / col("a").cast(mill.types.Decimal(5, 0)))
    [letter] = failing.errors.collect(on_error="route")["record"]
    mill.run(rows.write_json(tmp_path / "rows.json"))
    assert letter + "\n" == (tmp_path / "rows.json").read_text()


def lit_one() -> mill.Expr:
    return mill.lit(Decimal(1))
