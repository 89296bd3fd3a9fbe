"""A plan that has changed since its checkpoint is never taken up in silence."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("[!.]*")) for line in path.read_text().splitlines()]


def wait_for_checkpoint(folder: Path) -> None:
    until = time.monotonic() + 30
    while not (folder / "state").exists() or not mill.checkpoints(folder / "state"):
        assert time.monotonic() < until, "no checkpoint"
        time.sleep(0.01)


def source(halt_in: Path | None = None) -> mill.Stream:
    """Give forty records; in a folder to halt in, thirty and an error, once there is a checkpoint."""

    def rows(start: int) -> Any:
        for x in range(start, 40):
            if halt_in is not None and x == 30:
                wait_for_checkpoint(halt_in)
                raise RuntimeError("halt")
            yield {"x": x}

    return mill.from_iter(rows, schema={"x": int})


def halted(stream: mill.Stream, folder: Path) -> None:
    with pytest.raises(mill.MillstreamError, match="halt"):
        mill.run(stream.write_json(folder / "out"), checkpoint=mill.Checkpoint(folder / "state", every="10ms"))


def resumed(stream: mill.Stream, folder: Path, **options: Any) -> mill.Report:
    return mill.run(stream.write_json(folder / "out"), checkpoint=mill.Checkpoint(folder / "state", **options))


def test_an_edited_filter_is_noted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halted(source(tmp_path).filter(col("x") >= 0), tmp_path)
    with caplog.at_level(logging.WARNING, logger="millstream"):
        report = resumed(source().filter(col("x") >= 1), tmp_path)
    notes = [note for note in report.notes if "plan has changed" in note]
    assert len(notes) == 1
    assert 'filter: predicate was col("x") >= 0, is col("x") >= 1' in notes[0]
    assert notes[0] in caplog.text
    # The next run has nothing new to say.
    assert not [note for note in resumed(source().filter(col("x") >= 1), tmp_path).notes if "changed" in note]


def test_new_and_former_steps_are_noted(tmp_path: Path) -> None:
    halted(source(tmp_path).filter(col("x") >= 0), tmp_path)
    report = resumed(source().with_columns(y=col("x") * 2), tmp_path)
    notes = " | ".join(report.notes)
    assert "new step: with_columns(" in notes
    assert 'no longer there: filter(predicate: col("x") >= 0)' in notes


def test_the_same_plan_has_no_notes(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "in")
    (tmp_path / "in" / "a.csv").write_text("k,x\n" + "".join(f"{i % 3},{i}\n" for i in range(1000)))

    def plan(path: str | Path) -> mill.Stream:
        return mill.read_csv(path).filter(col("x") > 3).map(lambda r: {"k": r.k}, schema={"k": int}).key_by("k").agg(n=mill.count())

    assert resumed(plan(tmp_path / "in"), tmp_path).notes == []
    # The same input, spelt in another way.
    report = resumed(plan(f"{tmp_path}/in/../in/"), tmp_path)
    assert len(report.notes) == 1
    assert "nothing to do" in report.notes[0]


def test_a_finished_job_says_that_it_does_not_read_new_files(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "in")
    (tmp_path / "in" / "a.csv").write_text("x\n1\n2\n")
    resumed(mill.read_csv(tmp_path / "in"), tmp_path)
    (tmp_path / "in" / "b.csv").write_text("x\n3\n")
    [note] = resumed(mill.read_csv(tmp_path / "in"), tmp_path).notes
    assert "what has come into its input since is not read" in note
    assert "mill.Checkpoint(…, restart=True) starts over" in note
    assert "follow=True" in note
    assert sorted(row["x"] for row in rows_of(tmp_path / "out")) == [1, 2]


def test_a_finished_job_with_another_plan_is_refused_and_starts_over_when_told(tmp_path: Path) -> None:
    resumed(source().filter(col("x") < 10), tmp_path)
    with pytest.raises(mill.CheckpointError, match=r'finished.*was col\("x"\) < 10, is col\("x"\) < 5.*restart=True'):
        resumed(source().filter(col("x") < 5), tmp_path)
    # What stands at the sink is treated as its on_existing says; until all sinks agree, nothing is lost.
    with pytest.raises(mill.ConnectorError, match='on_existing="replace"'):
        resumed(source().filter(col("x") < 5), tmp_path, restart=True)
    with pytest.raises(mill.CheckpointError, match="nope"):
        resumed(source().filter(col("x") < 5), tmp_path, restart=True, restore_from=tmp_path / "nope")
    assert "nothing to do" in resumed(source().filter(col("x") < 10), tmp_path).notes[0]
    sink = source().filter(col("x") < 5).write_json(tmp_path / "out", on_existing="replace")
    report = mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", restart=True))
    assert report.notes == []
    assert sorted(row["x"] for row in rows_of(tmp_path / "out")) == [0, 1, 2, 3, 4]
    assert "nothing to do" in mill.run(sink, checkpoint=tmp_path / "state").notes[0]


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once", "none"])
def test_starting_over_reads_everything_again(tmp_path: Path, mode: Any) -> None:
    table = mill.from_iter([{"x": x} for x in range(100)]).collect()
    for restart in [False, True, True]:
        read: list[int] = []
        sink = mill.from_arrow(table.to_arrow()).for_each(lambda row, read=read: read.append(row.x))
        mode_of_sink = "at_least_once" if mode == "exactly_once" else mode
        mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", mode=mode_of_sink, restart=restart))
        assert sorted(read) == list(range(100))


def test_a_finished_job_over_other_rows_is_refused(tmp_path: Path) -> None:
    resumed(mill.from_arrow(mill.from_iter([{"x": 1}, {"x": 2}]).collect().to_arrow()), tmp_path)
    with pytest.raises(mill.CheckpointError, match="finished.*another content.*restart=True"):
        resumed(mill.from_arrow(mill.from_iter([{"x": 1}, {"x": 3}]).collect().to_arrow()), tmp_path)


def test_a_job_that_restarts_by_itself_goes_on_and_does_not_start_over(tmp_path: Path) -> None:
    failures = [2]

    def rows(start: int) -> Any:
        for x in range(start, 60):
            if x == 20 * failures[0] // 2 + 5 and failures[0]:
                wait_for_checkpoint(tmp_path)
                failures[0] -= 1
                raise RuntimeError("again")
            time.sleep(0.003)
            yield {"x": x}

    resumed(source().filter(col("x") < 10), tmp_path)
    stream = mill.from_iter(rows, schema={"x": int})
    sink = stream.write_json(tmp_path / "out", on_existing="replace")
    checkpoint = mill.Checkpoint(tmp_path / "state", every="10ms", restart=True)
    mill.run(sink, checkpoint=checkpoint, restart=mill.Restart.fixed_delay(5, "10ms"))
    assert [row["x"] for row in rows_of(tmp_path / "out")] == list(range(60))


def test_who_asks_the_run_to_restart_is_told_of_the_checkpoint(tmp_path: Path) -> None:
    sink = mill.from_iter([{"x": 1}]).write_json(tmp_path / "out")
    with pytest.raises(mill.PlanError, match=r"mill\.Checkpoint\(path, restart=True\)"):
        mill.run(sink, checkpoint=tmp_path / "state", restart=True)  # type: ignore[arg-type]


def test_restart_is_a_truth_value() -> None:
    with pytest.raises(mill.PlanError, match=r"mill\.Restart\.fixed_delay"):
        mill.Checkpoint("state", restart=mill.Restart.fixed_delay(3))  # type: ignore[arg-type]


def test_starting_over_from_the_directory_that_is_emptied_is_refused(tmp_path: Path) -> None:
    resumed(source().filter(col("x") < 10), tmp_path)
    with pytest.raises(mill.CheckpointError, match="restore_from= names the same directory"):
        resumed(source().filter(col("x") < 10), tmp_path, restart=True, restore_from=tmp_path / "out" / ".." / "state")
    assert "nothing to do" in resumed(source().filter(col("x") < 10), tmp_path).notes[0]


def test_starting_over_from_a_finished_job_leaves_what_is_there(tmp_path: Path) -> None:
    resumed(source().filter(col("x") < 10), tmp_path)
    stream = source().filter(col("x") < 10)
    other = mill.Checkpoint(tmp_path / "other", restart=True, restore_from=tmp_path / "state")
    mill.run(stream.write_json(tmp_path / "elsewhere"), checkpoint=tmp_path / "other")
    assert "nothing to do" in mill.run(stream.write_json(tmp_path / "out"), checkpoint=other).notes[0]
    assert mill.checkpoints(tmp_path / "other")


@pytest.mark.parametrize("rates", [(20_000, None), (None, 20_000), (20_000, 40_000)])
def test_made_rows_come_once_whatever_becomes_of_their_rate(rates: tuple[int | None, int | None], tmp_path: Path) -> None:
    # Numbers are dealt to the splits one by one with a rate, and by thousands without: what was given was counted, not which.
    def made(rate: int | None, halt: bool) -> mill.Stream:
        def seen(row: mill.Row) -> None:
            if not halt:
                return
            time.sleep(0.0002)
            if row.i % 50 == 0 and (tmp_path / "state").exists() and mill.checkpoints(tmp_path / "state"):
                raise RuntimeError("halt")

        return mill.generate(rows=30_000, rate=rate, i=mill.index()).inspect(seen)

    halted(made(rates[0], True), tmp_path)
    resumed(made(rates[1], False), tmp_path)
    assert sorted(row["i"] for row in rows_of(tmp_path / "out")) == list(range(30_000))
