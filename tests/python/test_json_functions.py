"""JSON within text, groups of patterns: json_decode, json_path_match, extract_groups, against Python's own json and re."""

from __future__ import annotations

import json
import random
import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col


def decoded(texts: list[str | None], kind: Any, **options: Any) -> list[Any]:
    return mill.from_iter(texts, schema={"s": str}).select(x=col("s").str.json_decode(kind, **options)).collect(parallelism=1)["x"]


def matched(texts: list[str | None], path: str, **options: Any) -> list[Any]:
    return mill.from_iter(texts, schema={"s": str}).select(x=col("s").str.json_path_match(path, **options)).collect(parallelism=1)["x"]


class Point(NamedTuple):
    x: int
    y: float


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "17", 17),
        (int, " 17.0 ", 17),
        (float, "1e3", 1000.0),
        (float, '"NaN"', float("nan")),
        (str, '"a\\n\\u00e9"', "a\né"),
        (str, "[1, 2]", "[1, 2]"),
        (bool, "true", True),
        (bytes, '"0aff"', b"\x0a\xff"),
        (date, '"2024-02-29"', date(2024, 2, 29)),
        (datetime, '"2024-02-29T01:02:03.000004"', datetime(2024, 2, 29, 1, 2, 3, 4)),
        (mill.types.Decimal(10, 2), "1.50", Decimal("1.50")),
        (list[int], "[1, null, 3]", [1, None, 3]),
        (list[list[str]], '[["a"], [], null]', [["a"], [], None]),
        ({"a": int, "b": str}, '{"b": "x", "other": 1}', {"a": None, "b": "x"}),
        (Point, '{"x": 1, "y": 2}', {"x": 1, "y": 2.0}),
        (pa.struct([("a", pa.list_(pa.struct([("b", pa.int8())])))]), '{"a": [{"b": 1}, {}]}', {"a": [{"b": 1}, {"b": None}]}),
        (dict[str, int], '{"k": 1, "l": null}', [("k", 1), ("l", None)]),
        (int, "null", None),
        (list[int], "null", None),
    ],
)
def test_json_decode_reads_a_value_of_each_type(kind: Any, text: str, value: Any) -> None:
    got = decoded([text, None, text], kind)
    if isinstance(value, dict):
        got = [None if item is None else dict(item) for item in got]
    if isinstance(got[0], dict) and isinstance(value, list):
        value = dict(value)
    assert repr(got) == repr([value, None, value])


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (int, "1.5", "$: 1.5 is not a whole number, which int64 needs"),
        (int, '"x"', "$: x is not an integer (int64)"),
        (int, "9223372036854775808", "too large or too small for int64"),
        (int, "[1]", "is not an integer"),
        (bool, "1", "is not"),
        (list[int], '[1, "x"]', "$: x is not an integer"),
        (list[int], "{}", "$: {} is not list[int64]"),
        ({"a": {"b": int}}, '{"a": {"b": true}}', "$.a.b: true is not an integer"),
        ({"a": int}, '{"a": 1, "a": 2}', 'the object has the key "a" twice'),
        (int, "", "the text is not one complete JSON value"),
        (int, "1 2", "the text is not one JSON value: '2' is not expected at its byte 3"),
        (float, "NaN", "NaN and Infinity are not JSON"),
        (str, '"a', "the text is not one complete JSON value"),
        (list[int], "[1,]", "the text is not one JSON value"),
    ],
)
def test_a_text_that_does_not_fit_is_an_error_of_its_record_or_null(kind: Any, text: str, said: str) -> None:
    with pytest.raises(mill.DataError, match=re.escape(said)) as raised:
        decoded([text], kind)
    assert "strict=False makes it null" in str(raised.value)
    assert ".str.json_decode(" in str(raised.value)
    assert "lit(" not in str(raised.value)
    assert decoded(["null", text, None], kind, strict=False) == [None, None, None]
    good = mill.from_iter([text, None], schema={"s": str}).with_columns(x=col("s").str.json_decode(kind))
    assert good.collect(on_error="skip", parallelism=1)["s"] == [None]


def test_a_value_that_fits_in_part_is_null_as_a_whole() -> None:
    got = decoded(['{"a": 1, "b": [1]}', '{"a": 2, "b": ["x"]}'], {"a": int, "b": list[int]}, strict=False)
    assert [None if row is None else dict(row) for row in got] == [{"a": 1, "b": [1]}, None]


def test_what_python_writes_is_read_back() -> None:
    chance = random.Random(7)

    def text() -> str:
        return "".join(chance.choice(["a", '"', "\\", "\n", "\x01", "é", "😀", " ", "{"]) for _ in range(chance.randrange(6)))

    def item() -> dict[str, Any]:
        return {
            "n": chance.choice([None, chance.randrange(-(2**63), 2**63)]),
            "f": chance.choice([None, chance.uniform(-1e30, 1e30), 0.1]),
            "s": chance.choice([None, text()]),
            "l": chance.choice([None, [text() for _ in range(chance.randrange(3))]]),
            "o": chance.choice([None, {"b": chance.choice([True, False, None])}]),
        }

    rows = [item() for _ in range(5_000)]
    texts = [json.dumps(row, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1])) for row in rows]
    kind = {"n": int, "f": float, "s": str, "l": list[str], "o": {"b": bool}}
    assert decoded(texts, kind) == rows
    for name in ("n", "s", "l", "o"):
        found = matched(texts, f"$.{name}")
        for row, got in zip(rows, found, strict=True):
            value = row[name]
            if value is None or isinstance(value, str):
                assert got == value
            else:
                assert json.loads(got) == value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", '{"a": {"b c": [1, {"d": "x"}, null]}, "a.b": 7, "é": true}'),
        ("$.a['b c'][0]", "1"),
        ("$['a'][\"b c\"][1].d", "x"),
        ("$.a['b c'][-2].d", "x"),
        ("$.a['b c'][2]", None),
        ("$.a['b c'][3]", None),
        ("$.a['b c'][-4]", None),
        ("$.a['b c'][1]", '{"d": "x"}'),
        ("$['a.b']", "7"),
        ("$.é", "true"),
        ("$.a[0]", None),
        ("$.none.x", None),
    ],
)
def test_a_path_leads_to_one_value(path: str, value: str | None) -> None:
    text = '{"a": {"b c": [1, {"d": "x"}, null]}, "a.b": 7, "é": true}'
    assert matched([text, None], path) == [value, None]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a.b", r"it begins with \$"),
        ("$.a[*]", "find several values"),
        ("$..a", "find several values"),
        ("$.*", "find several values"),
        ("$[1:2]", "find several values"),
        ("$.a b", r"write it as \['a b'\]"),
        ("$.", "is no name"),
        ("$[x]", "neither a number nor a name in quotes"),
        ("$['x", "not closed"),
        ("$[0", "not closed"),
        ("$a", "a dot or"),
    ],
)
def test_a_path_that_is_none_is_refused_by_the_plan(path: str, said: str) -> None:
    with pytest.raises(mill.PlanError, match=said):
        mill.from_iter(["{}"]).select(x=col("value").str.json_path_match(path))


def test_a_text_that_is_not_json_is_an_error_where_it_is_looked_into() -> None:
    with pytest.raises(mill.DataError, match="the text is not one complete JSON value; strict=False makes it null"):
        matched(['{"a": 1'], "$.a")
    assert matched(['{"a": 1', '{"a": 2}'], "$.a", strict=False) == [None, "2"]
    with pytest.raises(mill.SchemaError, match="needs a string, found"):
        mill.from_iter([1]).select(x=col("value").str.json_path_match("$.a"))


PATTERN = r"(?P<verb>[A-Z]+) (/\w*)( v(?P<version>\d))?"


def test_extract_groups_has_a_field_for_each_group() -> None:
    texts = ["GET /a v2", "PUT /", None, "nothing", "x GET /b y"]
    got = mill.from_iter(texts, schema={"s": str}).select(x=col("s").str.extract_groups(PATTERN)).collect(parallelism=1)
    assert got.to_arrow().schema.field("x").type == pa.struct([(n, pa.string()) for n in ("verb", "2", "3", "version")])
    expected: list[Any] = []
    for text in texts:
        if text is None:
            expected.append(None)
            continue
        match = re.search(PATTERN, text)
        groups = match.groups() if match else (None,) * 4
        expected.append(dict(zip(("verb", "2", "3", "version"), groups, strict=True)))
    assert got["x"] == expected


def test_extract_groups_needs_groups() -> None:
    s = mill.from_iter(["a"])
    with pytest.raises(mill.PlanError, match="has no groups; put what you want in brackets"):
        s.select(x=col("value").str.extract_groups("a+"))
    with pytest.raises(mill.PlanError, match="is no regular expression"):
        s.select(x=col("value").str.extract_groups("(a"))
    # The struct's fields are columns after select.
    assert s.select(x=col("value").str.extract_groups("(?<one>a)")).select(col("x").struct["one"]).collect().to_pylist() == [{"one": "a"}]


def test_json_encode_writes_what_json_decode_reads() -> None:
    kind = pa.struct([
        ("i", pa.int64()), ("u", pa.uint64()), ("f", pa.float64()), ("s", pa.string()), ("b", pa.binary()), ("o", pa.bool_()),
        ("d", pa.decimal128(20, 3)), ("day", pa.date32()), ("t", pa.timestamp("ns")), ("z", pa.timestamp("us", "Europe/Berlin")),
        ("span", pa.duration("us")), ("l", pa.list_(pa.string())), ("n", pa.struct([("x", pa.float32())])), ("m", pa.map_(pa.string(), pa.int8())),
    ])  # fmt: skip
    chance = random.Random(11)

    def maybe(value: Any) -> Any:
        return None if chance.random() < 0.2 else value

    rows = [
        maybe({
            "i": maybe(chance.randrange(-(2**63), 2**63)), "u": maybe(2**64 - 1), "f": maybe(chance.choice([0.1, -1e300, float("inf"), -0.0])),
            "s": maybe(chance.choice(['"', "\\", "\n\x02", "é😀", "null", ""])), "b": maybe(b"\x00\xff"), "o": maybe(chance.random() < 0.5),
            "d": maybe(Decimal("-12345678901234567.125")), "day": maybe(date(1, 1, 1)), "t": maybe(chance.randrange(2**62)),
            "z": maybe(chance.randrange(2**50)), "span": maybe(chance.randrange(-(2**50), 2**50)), "l": maybe(["a", None]),
            "n": maybe({"x": 1.5}), "m": maybe([("k", 1), ("l", None)]),
        })
        for _ in range(1_000)
    ]  # fmt: skip
    table = pa.table({"p": pa.array(rows, kind)})
    texts = mill.from_arrow(table).select(s=col("p").struct.json_encode())
    again = texts.select(p=col("s").str.json_decode(kind)).collect(parallelism=1).to_arrow()
    assert again["p"].combine_chunks().cast(kind).equals(table["p"].combine_chunks())
    for row, text in zip(rows, texts.collect(parallelism=1)["s"], strict=True):
        assert (text is None) == (row is None)
        if row is not None:
            read = json.loads(text)
            assert list(read) == list(row), "every field is there, in its place"
            assert (read["i"], read["s"], read["l"], read["o"]) == (row["i"], row["s"], row["l"], row["o"])


def test_json_encode_is_what_write_json_writes(tmp_path: Any) -> None:
    rows = [{"a": 1, "b": [1.5, None], "t": datetime(2024, 1, 1, 2)}, {"a": None, "b": None, "t": None}]
    mill.run(mill.from_iter(rows).write_json(tmp_path / "out.json"))
    written = (tmp_path / "out.json").read_text().splitlines()
    nested = mill.from_iter([{"p": row} for row in rows])
    assert nested.select(s=col("p").struct.json_encode()).collect(parallelism=1)["s"] == written


def test_json_encode_takes_structs() -> None:
    with pytest.raises(mill.SchemaError, match=r"struct.json_encode\(\) needs a struct, found"):
        mill.from_iter([[1]]).select(x=col("value").struct.json_encode())
