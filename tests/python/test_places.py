"""Where output and checkpoints go, and how times are shown in messages."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

import millstream as mill
from millstream import col
from millstream.errors import DataError, PlanError


@pytest.mark.parametrize(
    ("output", "state"),
    [("out", "out"), ("out", "out/state"), ("state/out", "state"), ("out/../out", "out/./deep/state"), ("link", "out/state")],
)
def test_output_and_checkpoints_keep_apart(output: str, state: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    sink = mill.from_iter([1]).write_json(tmp_path / output)
    with pytest.raises(PlanError, match=r"write_json.*the checkpoints.*a directory of their own"):
        mill.run(sink, checkpoint=tmp_path / state)
    assert not (tmp_path / "state").exists()


def test_a_database_is_kept_out_of_the_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    sink = mill.from_iter([1]).write_sqlite(tmp_path / "state" / "out.db", "t")
    with pytest.raises(PlanError, match="a directory of their own"):
        mill.run(sink, checkpoint=tmp_path / "state")
    # Beside the database they do no harm.
    report = mill.run(mill.from_iter([1]).write_sqlite(tmp_path / "out.db", "t"), checkpoint=tmp_path / "state")
    assert report.status == "finished"


def test_neighbours_are_apart(tmp_path: Path) -> None:
    report = mill.run(mill.from_iter([1]).write_json(tmp_path / "out"), checkpoint=tmp_path / "out.state")
    assert report.status == "finished"


@pytest.mark.parametrize("path", [":memory:", "file::memory:?cache=shared"])
def test_a_database_in_memory_is_refused(path: str) -> None:
    with pytest.raises(PlanError, match=r"database in memory.*collect\(\)"):
        mill.from_iter([1]).write_sqlite(path, "t")


def test_two_sinks_do_not_share_a_directory(tmp_path: Path) -> None:
    sink = mill.from_iter([1]).write_json(tmp_path / "out")
    for other in (sink, mill.from_iter([2]).write_json(tmp_path / "out")):
        with pytest.raises(PlanError, match="write into one directory.*a directory of its own"):
            mill.run(sink, other)
    mill.run(sink, mill.from_iter([2]).write_json(tmp_path / "other"))


def test_a_clock_that_is_set_names_what_can_be_done() -> None:
    for clock, words in ((datetime(2024, 10, 27, 2, 30), "twice, when it is set back"), (datetime(2024, 3, 31, 2, 30), "never shows")):
        stream = mill.from_iter([{"t": clock}]).select(z=col("t").dt.replace_time_zone("Europe/Berlin"))
        with pytest.raises((DataError, mill.UserFunctionError), match=words) as error:
            stream.collect()
        assert "ambiguous=" not in str(error.value) and "non_existent" not in str(error.value)
