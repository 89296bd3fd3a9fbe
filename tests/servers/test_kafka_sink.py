"""`write_kafka` against a real broker, judged by what Confluent's client reads with ``read_committed``."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import job_process
import kafka
import kafka_kills
import pyarrow as pa
import pytest
from cluster import Cluster
from job_process import SECONDS_MAX

import millstream as mill
from millstream import col

JOBS = Path(__file__).with_name("jobs.py")
SEED = int(os.environ.get("SEED", "1"))


class Job(job_process.Job):
    """A job of `jobs.py`, or of another script."""

    def __init__(self, work: Path, *arguments: object, fail_point: str | None = None, script: Path = JOBS) -> None:
        super().__init__(script, work, *arguments, fail_point=fail_point)


def squares(cluster: Cluster, topic: str) -> list[int]:
    return sorted(row["n"] for row in cluster.rows(topic) if row["square"] == row["n"] ** 2)


def numbers(count: int, start: int = 0) -> list[dict[str, int]]:
    return [{"n": n} for n in range(start, start + count)]


# -- messages ------------------------------------------------------------------------------------------------------------


def test_what_becomes_of_columns(cluster: Cluster) -> None:
    topic = cluster.topic("out", 4)
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000)
    rows = [{"k": "a", "x": 1.5, "p": 3, "at": at, "h": {"trace": "t", "none": None}}, {"k": None, "x": None, "p": 0, "at": at, "h": None}]
    schema = {"k": str, "x": float, "p": int, "at": datetime, "h": {"trace": str, "none": str}}
    stream = mill.from_iter(rows, schema=schema)
    mill.run(stream.write_kafka(cluster.address, topic, format="json", key="k", partition="p", headers="h", timestamp="at"))
    second, first = cluster.read(topic)
    milliseconds = int(at.replace(tzinfo=timezone.utc).timestamp() * 1000)
    assert (first.partition(), first.key(), first.timestamp()[1]) == (3, b"a", milliseconds)
    assert first.headers() == [("trace", b"t"), ("none", None)]
    assert json.loads(first.value()) == {"k": "a", "x": 1.5, "p": 3, "at": "2026-01-02T03:04:05.678", "h": {"trace": "t", "none": None}}
    assert (second.partition(), second.key(), second.headers()) == (0, None, None)


def test_a_header_without_a_name_is_refused(cluster: Cluster) -> None:
    topic = cluster.topic("out", 1)
    entry = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
    headers = pa.array([[{"key": "a", "value": "1"}], [{"key": "b", "value": "2"}, {"key": None, "value": "3"}], None], entry)
    stream = mill.from_arrow(pa.table({"x": [1, 2, 3], "h": headers}))
    with pytest.raises(mill.DataError, match=r'column "h": .*has no name: its key is null'):
        mill.run(stream.write_kafka(cluster.address, topic, format="json", headers="h"))
    report = mill.run(stream.write_kafka(cluster.address, topic, format="json", headers="h"), on_error="skip")
    assert report.rows_skipped == 1
    assert [json.loads(message.value())["x"] for message in cluster.read(topic)][-2:] == [1, 3]


def test_expressions_and_raw(cluster: Cluster) -> None:
    topic = cluster.topic("out", 2)
    stream = mill.from_iter([{"n": n} for n in range(10)])
    mill.run(stream.write_kafka(cluster.address, topic, format="json", key=col("n") % 3, partition=col("n") % 2))
    found = cluster.read(topic)
    assert [(message.partition(), message.key()) for message in found] == [
        (part, str(n % 3).encode()) for part in (0, 1) for n in range(part, 10, 2)
    ]
    assert json.loads(found[0].value()) == {"n": 0}
    raw = cluster.topic("raw")
    mill.run(mill.from_iter([{"key": b"\x00", "value": "é"}]).write_kafka(cluster.address, raw, format="raw"))
    assert [(message.key(), message.value()) for message in cluster.read(raw)] == [(b"\x00", "é".encode())]
    with pytest.raises(mill.PlanError, match='nothing of a message is made of "n"'):
        mill.from_iter([{"n": 1, "value": "x"}]).write_kafka(cluster.address, raw, format="raw")


def test_a_key_that_goes_is_a_message_without_a_value(cluster: Cluster, tmp_path: Path) -> None:
    topic = cluster.topic("out", 1, **{"cleanup.policy": "compact"})
    words = mill.from_iter([{"word": word} for word in "abacbaaa"])
    few = words.key_by("word").agg(n=mill.count(), emit="each").filter(col("n") < 4)
    with pytest.raises(mill.PlanError, match="it only adds rows"):
        few.write_kafka(cluster.address, topic, format="json")
    mill.run(few.write_kafka(cluster.address, topic, format="json", key="word"), checkpoint=tmp_path / "state", parallelism=1)
    latest: dict[str, Any] = {}
    for message in cluster.read(topic):
        value = message.value()
        latest[message.key().decode()] = None if value is None else json.loads(value)["n"]
    assert latest == {"a": None, "b": 2, "c": 1}


def test_what_is_wrong_is_told_before_the_first_record(cluster: Cluster, tmp_path: Path) -> None:
    topic = cluster.topic("counts")
    seen: list[int] = []
    stream = mill.from_iter([1, 2]).map(lambda row: seen.append(row.value) or {"n": row.value}, schema={"n": int})
    with pytest.raises(mill.ConnectorError, match=f'has no topic "{topic}x"; did you mean "{topic}"'):
        mill.run(stream.write_kafka(cluster.address, f"{topic}x", format="json"))
    with pytest.raises(mill.PlanError, match='delivery="exactly_once" needs a checkpoint'):
        mill.run(stream.write_kafka(cluster.address, topic, format="json", delivery="exactly_once"))
    nobody = f"127.0.0.1:{kafka.free_port()}"
    with pytest.raises(mill.ConnectorError, match=f"no broker at {nobody} has answered"):
        mill.run(stream.write_kafka(nobody, topic, format="json"))
    with pytest.raises(mill.ConnectorError, match=r"transaction.max.timeout.ms is lower"):
        options = {"transaction.timeout.ms": 2_000_000_000}
        mill.run(stream.write_kafka(cluster.address, topic, format="json", options=options), checkpoint=tmp_path / "state")
    assert seen == []


# -- exactly once --------------------------------------------------------------------------------------------------------


def test_the_picture(cluster: Cluster, tmp_path: Path) -> None:
    """Numbers in, squares out, killed at 11: no number comes twice, and none is missing."""
    source, target = cluster.topic("in"), cluster.topic("out")
    arguments = ("squares", cluster.address, source, target, tmp_path / "state", "--endless")
    job = Job(tmp_path, *arguments)
    for n in range(1, 12):
        cluster.send(source, numbers(1, n))
    wait_for(lambda: len(cluster.read(target)) > 5, job)
    job.kill()
    cluster.send(source, numbers(9, 12))
    job = Job(tmp_path, *arguments)
    wait_for(lambda: len(cluster.read(target)) >= 20, job)
    job.kill()
    assert squares(cluster, target) == list(range(1, 21))


KILLS = int(os.environ.get("KILLS", "20"))
"""How often a job is killed at random; ``make test-servers KILLS=200 SEED=7`` for more of it."""


def kill_at_random(tmp_path: Path, dice: random.Random, script: Path, *arguments: object) -> int:
    """Run a job to its end, under another parallelism at each start; give how often it was killed on the way."""
    kills = 0
    for _ in range(10 * KILLS + 10):
        job = Job(tmp_path, *arguments, "--parallelism", dice.choice([1, 2, 3]), script=script)
        if kills == KILLS or job.ends_within(dice.uniform(0.5, 3)):
            job.finish()
            break
        job.kill()
        kills += 1
    return kills


def test_the_example_killed_at_random(cluster: Cluster, tmp_path: Path) -> None:
    """Word count from topic to topic, while lines come in; ``kafka_kills.py`` says what has to be right after that."""
    kafka_kills.kill_often(cluster, tmp_path, KILLS, SEED)


def test_squares_killed_at_random(cluster: Cluster, tmp_path: Path) -> None:
    """Each number that goes in comes out once."""
    dice = random.Random(SEED)
    source, target = cluster.topic("in", 3), cluster.topic("out", 2)
    cluster.send(source, numbers(100_000))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state", "--every", "30ms")
    kills = kill_at_random(tmp_path, dice, JOBS, *arguments)
    assert squares(cluster, target) == list(range(100_000)), f"seed {SEED}, {kills} kills"


@pytest.mark.parametrize(
    "step",
    ["kafka.connect", "kafka.begin", "kafka.sent", "kafka.noted", "kafka.committed", "checkpoint.published", "sink.committed", "kafka.remove"],
)
def test_killed_at_a_step(cluster: Cluster, tmp_path: Path, step: str) -> None:
    """Up to three times, also during the recovery; with messages that lie in the checkpoint, and in files."""
    source, target = cluster.topic("in", 2), cluster.topic("out", 2)
    cluster.send(source, numbers(3000))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state")
    deaths = 0
    for time_, every, parallelism in ((1, "10m", 1), (2, "30ms", 2), (1, "30ms", 2)):
        job = Job(tmp_path, *arguments, "--every", every, "--parallelism", parallelism, fail_point=f"{step}:{time_}")
        deaths += job.process.wait(SECONDS_MAX) == -signal.SIGKILL
    Job(tmp_path, *arguments, "--parallelism", 3).finish()
    assert squares(cluster, target) == list(range(3000))
    assert deaths > 0, f"{step} was never reached"
    assert not list((tmp_path / "state").rglob("*.messages"))


def test_a_transaction_that_is_left_open_holds_nobody_up(cluster: Cluster, tmp_path: Path) -> None:
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(100))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state")
    assert Job(tmp_path, *arguments, fail_point="kafka.noted:2").process.wait(SECONDS_MAX) == -signal.SIGKILL
    # It hides what others write behind it, until the job is back.
    cluster.send(target, [{"n": -1, "square": 1}])
    assert cluster.read(target) == []
    Job(tmp_path, *arguments).finish()
    assert squares(cluster, target) == [-1, *range(100)]


def test_a_transaction_that_times_out(cluster: Cluster, tmp_path: Path) -> None:
    """A job that hangs in the middle of its commit for longer than the broker waits sends the epoch again."""
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(1000))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state", "--option", "transaction.timeout.ms=1000")
    job = Job(tmp_path, *arguments, "--endless", "--every", "20ms")
    dice = random.Random(SEED)
    for start in range(1000, 5000, 1000):
        time.sleep(dice.uniform(0, 0.3))
        job.process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        job.process.send_signal(signal.SIGCONT)
        cluster.send(source, numbers(1000, start))
    wait_for(lambda: len(cluster.read(target)) >= 5000, job)
    job.kill()
    assert squares(cluster, target) == list(range(5000))


def test_the_broker_is_killed(broker: kafka.Broker, cluster: Cluster, tmp_path: Path) -> None:
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(1000))
    job = Job(tmp_path, "squares", cluster.address, source, target, tmp_path / "state", "--endless", "--restarts", 100)
    wait_for(lambda: len(cluster.read(target)) > 0, job)
    broker.kill()
    time.sleep(0.5)
    broker.start()
    cluster.send(source, numbers(1000, 1000))
    broker.pause()
    time.sleep(2)
    broker.go_on()
    wait_for(lambda: len(cluster.read(target)) >= 2000, job)
    job.kill()
    assert squares(cluster, target) == list(range(2000))


def test_a_second_run_of_the_same_state(cluster: Cluster, tmp_path: Path) -> None:
    """A job that continues from a copy of a state directory takes the sink over, and the first one stops writing."""
    import shutil

    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(100))
    first = Job(tmp_path / "1", "squares", cluster.address, source, target, tmp_path / "state", "--endless")
    wait_for(lambda: len(cluster.read(target)) >= 100, first)
    first.process.send_signal(signal.SIGSTOP)
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    second = Job(tmp_path / "2", "squares", cluster.address, source, target, tmp_path / "copy", "--endless")
    cluster.send(source, numbers(100, 100))
    wait_for(lambda: len(cluster.read(target)) >= 200, second)
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(SECONDS_MAX) == 1
    assert "another run of this job has taken over" in first.said()
    second.kill()
    assert squares(cluster, target) == list(range(200))


def test_a_note_that_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    """Whether the last epoch was sent is then not known, and nothing is guessed."""
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(100))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state")
    assert Job(tmp_path, *arguments, fail_point="kafka.begin:2").process.wait(SECONDS_MAX) == -signal.SIGKILL
    (group,) = [group for group in cluster.groups() if group.startswith("millstream-") and cluster.note(group, target)]
    cluster.delete_group(group)
    job = Job(tmp_path, *arguments)
    assert job.process.wait(SECONDS_MAX) == 1
    assert "is in the topic is not known" in job.said()
    assert cluster.read(target) == []


def test_savepoints(cluster: Cluster, tmp_path: Path) -> None:
    """A job continues from a savepoint, and not from one whose successors have written already."""
    source, target = cluster.topic("in"), cluster.topic("out")
    stream = mill.read_kafka(cluster.address, source, format="json", schema={"n": int})
    sink = stream.select(n=col("n"), square=col("n") * col("n")).write_kafka(cluster.address, target, format="json")

    def run(checkpoint: mill.Checkpoint, count: int, savepoint: Path | None = None) -> None:
        cluster.send(source, numbers(100, count - 100))
        job = mill.start(sink, checkpoint=checkpoint)
        end = time.monotonic() + SECONDS_MAX
        while len(cluster.read(target)) < count and time.monotonic() < end and job.status.state != "failed":
            time.sleep(0.05)
        if savepoint is not None:
            job.savepoint(savepoint)
        job.stop()
        job.wait()
        assert squares(cluster, target) == list(range(count))

    run(mill.Checkpoint(tmp_path / "a", every="50ms"), 100, tmp_path / "savepoint")
    run(mill.Checkpoint(tmp_path / "b", every="50ms", restore_from=tmp_path / "savepoint"), 200)
    with pytest.raises(mill.ConnectorError, match="the topic has the output of checkpoint"):
        run(mill.Checkpoint(tmp_path / "c", every="50ms", restore_from=tmp_path / "savepoint"), 300)


# -- at least once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [("--mode", "at_least_once"), ("--delivery", "at_least_once")])
def test_at_least_once(cluster: Cluster, tmp_path: Path, how: tuple[str, str]) -> None:
    source, target = cluster.topic("in", 2), cluster.topic("out", 2)
    cluster.send(source, numbers(20_000))
    dice = random.Random(SEED)
    arguments = ("squares", cluster.address, source, target, tmp_path / "state", *how)
    for _ in range(3):
        job = Job(tmp_path, *arguments)
        if not job.ends_within(dice.uniform(0.3, 2)):
            job.kill()
    Job(tmp_path, *arguments).finish()
    found = squares(cluster, target)
    assert sorted(set(found)) == list(range(20_000))


def test_a_job_without_a_checkpoint_sends_as_records_come(cluster: Cluster) -> None:
    source, target = cluster.topic("in"), cluster.topic("out")
    stream = mill.read_kafka(cluster.address, source, format="json", schema={"n": int})
    job = mill.start(stream.write_kafka(cluster.address, target, format="json"))
    cluster.send(source, numbers(10))
    end = time.monotonic() + SECONDS_MAX
    while len(cluster.read(target)) < 10 and time.monotonic() < end:
        time.sleep(0.05)
    assert [row["n"] for row in cluster.rows(target)] == list(range(10))
    job.stop()
    job.wait()


def wait_for(is_true: Any, job: Job) -> None:
    end = time.monotonic() + SECONDS_MAX
    while not is_true():
        assert job.process.poll() is None, job.said()
        assert time.monotonic() < end, job.said()
        time.sleep(0.1)
