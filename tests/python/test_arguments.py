"""Arguments of the wrong kind: an error where they are given, in the words of the API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col


def stream() -> mill.Stream:
    return mill.from_iter([{"k": 1, "x": 2, "at": datetime(2024, 1, 1)}])


def updating() -> mill.Stream:
    return stream().key_by("k").agg(n=mill.count(), emit="checkpoint")


class Columns(mill.WatermarkGenerator):
    columns = 5  # type: ignore[assignment]

    def on_batch(self, times: Any, batch: Any) -> None: ...


STRATEGY: Any = mill.WatermarkStrategy


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda s: s.name(5), r'name\(\) takes a text, as in "per user", not 5'),
        (lambda s: s.side_output(3), r"side_output\(\) takes a text"),
        (lambda s: updating().to_changelog(op=3), r"to_changelog\(op=…\) takes a text"),
        (lambda s: mill.from_changelog(s, "k", op=col("k")), r'from_changelog\(op=…\) takes a text, .* not <Expr col\("k"\)>'),
        (lambda s: mill.from_changelog(s, key=3), r"from_changelog\(key=…\) takes a text or a list of them"),
        (lambda s: mill.read_state("state", step=3), r"read_state\(step=…\) takes a text"),
        (lambda s: s.rename(["a"]), r"rename\(\) takes a dict"),
        (lambda s: s.cast(["x"]), r"cast\(\) takes a dict"),
        (lambda s: s.cast({5: int}), "takes the names of columns"),
        (lambda s: s.write_sqlite("file.db", 5), r"write_sqlite\(table=…\) takes a text"),
        (lambda s: s.for_each(print).name(5), r"name\(\) takes a text"),
        (lambda s: mill.count_window(3, partial="x"), "partial of a count window is True or False, not 'x'"),
        (lambda s: mill.session("gap"), r"for a gap from a column, write session\(col\('gap'\)\)"),
        (lambda s: STRATEGY.ascending().with_alignment("1m", group=5), r"with_alignment\(group=…\) takes a text"),
        (lambda s: STRATEGY.from_generator(5), "an object of a subclass of mill.WatermarkGenerator, not 5"),
        (lambda s: STRATEGY.from_generator(Columns()), "columns of Columns is a tuple of names"),
        (lambda s: s.event_time("at", watermark=Columns()), "columns of Columns is a tuple of names"),
        (lambda s: STRATEGY.from_column(5), r'from_column\(\) takes the name of a column, as in "x" or col\("x"\), not 5'),
        (lambda s: STRATEGY.from_column(col("x") + 1), "make it a column with with_columns"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(use: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(mill.PlanError, match=message):
        use(stream())


def test_a_column_of_watermarks_may_be_given_as_an_expression() -> None:
    strategy = mill.WatermarkStrategy.from_column(col("at"))
    assert strategy == mill.WatermarkStrategy.from_column("at")
    assert stream().event_time("at", watermark=strategy).collect().to_pylist() == stream().collect().to_pylist()


def test_an_unreadable_duration_that_is_no_column_is_reported_as_before(tmp_path: Path) -> None:
    with pytest.raises(mill.PlanError, match="not a duration") as caught:
        mill.session("5 parsecs")
    assert "col(" not in str(caught.value)
