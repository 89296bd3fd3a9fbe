"""One input is one input however it is spelt, and steps keep their state in whatever order they are declared."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import millstream as mill
from millstream import col

FILES, ROWS = 12, 100


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in range(FILES):
            lines = (f"{name}{file * ROWS + row}\n" for row in range(ROWS))
            (tmp_path / name / f"{file}.csv").write_text("i\n" + "".join(lines))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "links").mkdir()
    for file in range(FILES):
        (tmp_path / "links" / f"other{file}.csv").symlink_to(tmp_path / "a" / f"{file}.csv")
    return tmp_path


# How long a job that is to be stopped half-way pauses after ten records: it must not come to its end before that.
PAUSE = [0.0]


def slowly() -> Callable[[object], None]:
    rows = [0]

    def look(row: object) -> None:
        rows[0] += 1
        if rows[0] % 10 == 0:
            time.sleep(PAUSE[0])

    return look


def read(path: object) -> mill.Stream:
    return mill.read_csv(path, schema={"i": str}).inspect(slowly())


def until_half(*sinks: mill.Sink) -> None:
    """Run until some checkpoints are there, and stop in the middle."""
    PAUSE[0] = 0.02
    job = mill.start(*sinks, checkpoint=mill.Checkpoint("state", every="20ms"), parallelism=1)
    while job.metrics().rows_in < FILES * ROWS / 8 or job.metrics().checkpoints_taken < 1:
        time.sleep(0.01)
    job.stop()
    report = job.wait("30s")
    PAUSE[0] = 0.0
    assert (report.status, job.status.state) == ("stopped", "stopped")


def written(directory: str) -> list[str]:
    return [line for file in Path(directory).glob("*.csv") for line in file.read_text().splitlines()[1:]]


SPELLINGS: dict[str, Callable[[], object]] = {
    "absolute": lambda: os.path.abspath("a"),
    "dot": lambda: "./a",
    "dots": lambda: "b/../a",
    "slash": lambda: "a/",
    "link": lambda: "link",
    "glob": lambda: "a/*.csv",
    "list": lambda: [f"a/{file}.csv" for file in range(FILES)],
    "absolute list": lambda: [os.path.abspath(f"a/{file}.csv") for file in reversed(range(FILES))],
    "links to files": lambda: "links",
    "both": lambda: ["a", "links", "link"],
    "url": lambda: "file://" + os.path.abspath("a"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_another_spelling_is_the_same_input(inputs: Path, spelling: str) -> None:
    until_half(read("a").write_csv("out"))
    report = mill.run(read(SPELLINGS[spelling]()).write_csv("out"), checkpoint="state", parallelism=1)
    assert report.status == "finished"
    rows = written("out")
    assert len(rows) == len(set(rows)) == FILES * ROWS


def test_another_directory_of_work_and_a_moved_input_are_the_same_input(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    until_half(read("a").write_csv("out"))
    monkeypatch.chdir(inputs / "b")
    with_checkpoint = mill.Checkpoint("../state")
    os.rename("../a", "../moved")
    mill.run(read("../moved").write_csv("../out"), checkpoint=with_checkpoint, parallelism=1)
    rows = written("../out")
    assert len(rows) == len(set(rows)) == FILES * ROWS


def test_another_input_is_refused(inputs: Path) -> None:
    until_half(read("a").write_csv("out"))
    with pytest.raises(mill.CheckpointError, match=r"of another input.*/a/\d+\.csv.*\"b\""):
        mill.run(read("b").write_csv("out"), checkpoint="state")
    shutil.copytree("a", "copy")
    with pytest.raises(mill.CheckpointError, match="of another input"):
        mill.run(read("copy").write_csv("out"), checkpoint="state")


def test_followed_files_are_the_same_however_they_are_spelt(inputs: Path) -> None:
    for path in ("a", os.path.abspath("a"), "link/*.csv", "b/../a"):
        sink = mill.read_csv(path, schema={"i": str}, follow=True).write_csv("out")
        mill.run(sink, checkpoint=mill.Checkpoint("state", every="20ms"), until="500ms", parallelism=1)
    rows = written("out")
    assert len(rows) == len(set(rows)) == FILES * ROWS


def test_streams_of_a_union_may_change_their_order(inputs: Path) -> None:
    until_half(read("a").union(read("b")).write_csv("out"))
    mill.run(read("b").union(read(os.path.abspath("a"))).write_csv("out"), checkpoint="state", parallelism=1)
    rows = written("out")
    assert len(rows) == len(set(rows)) == 2 * FILES * ROWS


@pytest.mark.parametrize("is_shared", [True, False])
def test_sinks_may_change_their_order(inputs: Path, is_shared: bool) -> None:
    def sinks() -> list[mill.Sink]:
        shared = read("a")

        def counted(table: str, condition: mill.Expr) -> mill.Sink:
            stream = shared if is_shared else read("a")
            counts = stream.filter(condition).with_columns(k=mill.lit(1)).key_by("k").agg(n=mill.count())
            return counts.write_sqlite("o.db", table, key=["k"])

        return [counted("some", col("i") < "a2"), counted("all", col("i") >= "a")]

    until_half(*sinks())
    mill.run(*reversed(sinks()), checkpoint="state", parallelism=1)
    database = sqlite3.connect("o.db")
    some = sum(f"a{row}" < "a2" for row in range(FILES * ROWS))
    assert database.execute("select n from some").fetchall() == [(some,)]
    assert database.execute('select n from "all"').fetchall() == [(FILES * ROWS,)]
    database.close()


def test_what_nothing_tells_apart_asks_for_a_name(inputs: Path) -> None:
    def counted(function: Callable[[object], bool]) -> mill.Stream:
        return read("a").filter(function).key_by("i").agg(n=mill.count(), emit="end")

    def union(first: str | None) -> mill.Sink:
        streams = [counted(lambda row: True), counted(lambda row: False)]
        if first is not None:
            return streams[0].name(first).union(streams[1]).write_csv("out")
        return streams[0].union(streams[1]).write_csv("out")

    with pytest.raises(mill.PlanError, match=r"nothing tells apart.*\.name\("):
        mill.run(union(None), checkpoint="state")
    mill.run(union(None))


@pytest.mark.parametrize("path", ["SMB://h/x", "ftp://h/x", "file://host/x"])
def test_paths_elsewhere_are_refused(inputs: Path, path: str) -> None:
    stream = mill.from_iter([1])
    before = sorted(os.listdir())
    places: list[Callable[[], object]] = [
        lambda: mill.read_csv(path),
        lambda: mill.read_text(["a/0.csv", path]),
        lambda: mill.read_json(path),
        lambda: mill.read_parquet(path),
        lambda: stream.write_csv(path),
        lambda: stream.write_json(path),
        lambda: stream.write_parquet(path),
        lambda: stream.write_sqlite(path, "t"),
        lambda: mill.Checkpoint(path),
        lambda: mill.Checkpoint("state", restore_from=path),
        lambda: mill.run(stream.write_csv("out"), checkpoint=path),
    ]
    for place in places:
        with pytest.raises(mill.PlanError, match="this machine"):
            place()
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("path", ["s3://b/x", "gs://b/x", "AZ://b/x", "http://h/x"])
def test_only_files_and_checkpoints_may_be_in_object_stores(inputs: Path, path: str) -> None:
    stream = mill.from_iter([1])
    if path.startswith("http"):
        for place in [
            lambda: mill.Checkpoint(path),
            lambda: mill.Checkpoint("state", restore_from=path),
            lambda: mill.run(stream.write_csv("out"), checkpoint=path),
            lambda: mill.checkpoints(path),
        ]:
            with pytest.raises(mill.PlanError, match="is on the web, which can only be read"):
                place()
    else:
        assert mill.Checkpoint(path).path == path
        with pytest.raises(mill.PlanError, match="mode=\"none\" notes how far inputs were read in a file"):
            mill.run(stream.write_csv("out"), checkpoint=mill.Checkpoint(path, mode="none"))
    with pytest.raises(mill.PlanError, match="takes a path of this machine"):
        stream.write_sqlite(path, "t")


def test_home_and_urls_are_understood(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(inputs))
    mill.run(mill.from_iter([1, 2]).write_csv("~/out"), checkpoint="~/state")
    assert len(mill.read_csv((inputs / "out").as_uri()).collect()) == 2
    assert (inputs / "state").is_dir()
    assert not Path("~").exists()


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(mill.PlanError, match="in memory"):
        mill.from_iter([1]).write_sqlite(":memory:", "t")


def test_the_sides_of_a_join_are_not_exchanged(inputs: Path) -> None:
    from datetime import datetime

    def rows(name: str) -> mill.Stream:
        stamp = mill.lit(datetime(2024, 1, 1))
        return read(name).with_columns(t=stamp).event_time("t")

    def joined(first: str, second: str) -> mill.Sink:
        a, b = rows(first), rows(second)
        return a.join_interval(b, on="i", lower="0s", upper="0s").write_csv("out")

    until_half(joined("a", "b"))
    with pytest.raises(mill.CheckpointError, match="join_interval.*changed|changed.*join_interval"):
        mill.run(joined("b", "a"), checkpoint="state")
