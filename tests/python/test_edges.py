"""What a job is given by mistake is refused where it is written, in the words of its user."""

from __future__ import annotations

import pickle
from datetime import datetime
from typing import Any

import pytest

import millstream as mill
from millstream import col
from millstream.errors import PlanError


@pytest.mark.parametrize("reader", [mill.read_csv, mill.read_json, mill.read_parquet, mill.read_text])
def test_readers_take_paths(reader: Any) -> None:
    for given in (5, b"in.csv", None, ["in.csv", 5], [b"in.csv"]):
        with pytest.raises(PlanError, match=r"read_\w+\(\)( takes a path|: a path is a text)"):
            reader(given)


def test_methods_that_take_names_say_so() -> None:
    stream = mill.from_iter([{"a": [1], "t": datetime(2024, 1, 1)}])
    for call in (stream.drop, stream.explode, stream.unnest, stream.event_time):
        with pytest.raises(PlanError, match=rf"{call.__name__}\(\) takes the names of columns.*col"):
            call(col("a"))
    with pytest.raises(PlanError, match=r"rename\(\) takes the names of columns"):
        stream.rename({"a": col("b")})


def test_windows_take_no_emit() -> None:
    stream = mill.from_iter([{"k": 1, "t": datetime(2024, 1, 1)}]).event_time("t").key_by("k")
    for windows in (stream.window(mill.tumbling("1h")), stream.rolling("1h")):
        with pytest.raises(PlanError, match="takes no emit=.*trigger="):
            windows.agg(n=mill.count(), emit="1s")
    assert stream.window(mill.tumbling("1h")).agg(emit=mill.count()).collect()["emit"] == [1]


@pytest.mark.parametrize("make", [lambda: col("a") + 1, lambda: mill.from_iter([1])])
def test_what_cannot_be_pickled_says_so_by_its_name(make: Any) -> None:
    with pytest.raises(TypeError, match=r"(an expression|a stream) cannot be pickled: ") as error:
        pickle.dumps(make())
    assert "Raw" not in str(error.value)
