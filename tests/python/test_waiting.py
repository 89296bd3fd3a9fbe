"""A job that waits says what it waits for, and followed files are waited for no longer than a minute."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col

START = datetime(2024, 1, 1, 12, tzinfo=UTC)


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def append(path: Path, *seconds: float) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps({"at": (START + timedelta(seconds=s)).isoformat()}) + "\n" for s in seconds)


def followed(folder: Path, watermark: Any = "1s") -> mill.Stream:
    return mill.read_json(folder, schema={"at": mill.Timestamp("us", "UTC")}, follow=True).event_time("at", watermark=watermark)


def counted(stream: mill.Stream) -> Any:
    return stream.window_all(mill.tumbling("10s")).agg(n=mill.count())


def held(job: mill.Job) -> dict[str, mill.Held]:
    return {step.name: step.held for step in job.metrics().steps if step.held is not None}


@pytest.mark.parametrize("parallelism", [1, 2])
def test_the_split_that_holds_the_watermark_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, parallelism: int
) -> None:
    caplog.set_level(logging.INFO, logger="millstream")
    append(tmp_path / "many" / "slow.json", 0)
    append(tmp_path / "many" / "fast.json", 0, 300)
    append(tmp_path / "one" / "only.json", 7)
    append(tmp_path / "left" / "l.json", 5)
    append(tmp_path / "right" / "r.json", 500)
    streams = {
        "many": followed(tmp_path / "many").name("many"),
        "one": followed(tmp_path / "one").name("one"),
        "met": followed(tmp_path / "left").name("left").union(followed(tmp_path / "right").name("right")),
    }
    jobs = {name: mill.start(counted(it).for_each(lambda row: None), parallelism=parallelism) for name, it in streams.items()}
    endless = mill.generate(rate=2000, at=mill.now()).event_time("at", watermark="0s").name("endless")
    jobs["flowing"] = mill.start(counted(endless).for_each(lambda row: None), parallelism=parallelism)
    assert all(job.status.waits == [] for job in jobs.values()), "it was named at once"
    wait_until(lambda: all(jobs[name].status.waits for name in streams))

    [many] = held(jobs["many"]).values()
    assert many.split.endswith("slow.json")
    assert many.watermark == START - timedelta(seconds=1)
    assert many.others == START + timedelta(seconds=299)
    assert timedelta(seconds=5) <= many.since < timedelta(seconds=30)
    [sentence] = jobs["many"].status.waits
    assert "the watermark of many waits" in sentence
    assert "slow.json holds it at 2024-01-01 11:59:59+00:00" in sentence
    assert "others have come to 2024-01-01 12:04:59+00:00" in sentence
    assert str(jobs["many"].status) == f"running; {sentence}" or "slow.json" in str(jobs["many"].status)

    # A split that nobody is ahead of has no records; that is nothing to warn of.
    [one] = held(jobs["one"]).values()
    assert one.split.endswith("only.json")
    assert one.others is None

    # Inputs that are united wait for each other.
    wait_until(lambda: len(held(jobs["met"])) == 2)
    met = held(jobs["met"])
    assert met["left"].split.endswith("l.json")
    assert met["left"].others == START + timedelta(seconds=499)
    assert met["right"].others is None
    assert held(jobs["flowing"]) == {}

    def warned() -> list[str]:
        return sorted(record.getMessage().split(" for ")[0] for record in caplog.records if record.name == "millstream")

    wait_until(lambda: len(warned()) == 2)
    time.sleep(2.5)
    left, slow = warned()
    assert "left" in left and "l.json" in left
    assert "many" in slow and "slow.json" in slow

    append(tmp_path / "many" / "slow.json", 400)
    wait_until(lambda: jobs["many"].status.waits == [])
    for job in jobs.values():
        job.stop()
        assert all(step.held is None for step in job.wait("20s").steps)
        assert job.status.waits == []


def test_a_bounded_input_is_not_waited_for(tmp_path: Path) -> None:
    rows = [{"at": START + timedelta(seconds=second)} for second in (0, 100)]

    def slowly(start: int) -> Any:
        yield rows[0]
        time.sleep(6.5)
        yield rows[1]

    stream = mill.from_iter(slowly, schema={"at": mill.Timestamp("us", "UTC")}).event_time("at")
    job = mill.start(counted(stream).for_each(lambda row: None))
    time.sleep(5.7)
    assert job.status.waits == []
    assert job.wait("20s").status == "finished"


def test_followed_files_are_passed_over_after_a_minute_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    append(tmp_path / "a.json", 0)
    strategy = mill.WatermarkStrategy.bounded_out_of_orderness("1s")
    assert 'idle after "1m"' in followed(tmp_path).explain()
    assert 'idle after "1m"' in followed(tmp_path, strategy).explain()
    assert 'idle after "1m"' in followed(tmp_path).union(followed(tmp_path)).filter(col("at").is_not_null()).explain()
    assert 'idle after "5s"' in followed(tmp_path, strategy.with_idleness("5s")).explain()
    assert "idle" not in followed(tmp_path, strategy.with_idleness("never")).explain()
    bounded = mill.read_json(tmp_path, schema={"at": mill.Timestamp("us", "UTC")})
    assert "idle" not in bounded.event_time("at", watermark=strategy).explain()
    assert "idle" not in mill.generate(at=mill.now()).event_time("at", watermark=strategy).explain()
    assert 'idle after "5s"' in bounded.event_time("at", watermark=strategy.with_idleness("5s")).explain()
    with pytest.raises(mill.PlanError, match="idleness is 'nevr'"):
        strategy.with_idleness("nevr")
