"""`write_redis` against a real server, judged by a client of a few lines."""

from __future__ import annotations

import os
import random
import select
import shutil
import socket
import threading
import time
from contextlib import suppress
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import job_process
import pytest
import redis_jobs
import redis_server

import millstream as mill
from millstream import col, testing
from millstream.io import redis as redis_sink
from millstream.io.redis import MARKS

JOBS = Path(__file__).with_name("redis_jobs.py")
SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "4"))
ROWS = [{"n": n, "word": f"w{n % 3}"} for n in range(100)]


# -- streams and hashes ----------------------------------------------------------------------------------------------------


def test_entries_of_a_stream(redis: redis_server.Server, tmp_path: Path) -> None:
    sink = mill.from_iter(ROWS).write_redis(redis.url, stream="clicks")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert redis.entries("clicks") == [{"n": str(row["n"]), "word": row["word"]} for row in ROWS]
    # The job has finished: run again, it adds nothing.
    mill.run(sink, checkpoint=tmp_path / "state")
    assert redis.ask("XLEN", "clicks") == 100
    assert [*redis.hash(MARKS).values()] == ["1"]
    # Without a checkpoint, and started anew.
    mill.run(sink)
    assert redis.ask("XLEN", "clicks") == 200


def test_a_stream_is_trimmed(redis: redis_server.Server) -> None:
    mill.run(mill.from_iter({"n": n} for n in range(5000)).write_redis(redis.url, stream="short", maxlen=100))
    assert 100 <= redis.ask("XLEN", "short") < 1000
    assert redis.entries("short")[-1] == {"n": "4999"}


def test_values_are_text(redis: redis_server.Server) -> None:
    at = datetime(2026, 7, 2, 3, 4, 5, 678_900)
    row = {
        "b": True, "i": -5, "f": 1e300, "nan": float("nan"), "d": Decimal("1.50"), "s": "é\n\0", "raw": "x", "day": date(2026, 1, 2),
        "at": at, "utc": at.replace(tzinfo=timezone.utc), "l": [1, None], "st": {"a": "q\""}, "none": None,
    }  # fmt: skip
    kinds = {
        "b": bool, "i": int, "f": float, "nan": float, "d": mill.types.Decimal(10, 2), "s": str, "raw": str, "day": date, "at": datetime,
        "utc": mill.Timestamp("us", "UTC"), "l": list[int], "st": {"a": str}, "none": str,
    }  # fmt: skip
    mill.run(mill.from_iter([row], schema=kinds).write_redis(redis.url, stream="values"))
    [found] = redis.entries("values")
    assert found == {
        "b": "true", "i": "-5", "f": "1e300", "nan": "NaN", "d": "1.50", "s": "é\n\0", "raw": "x", "day": "2026-01-02",
        "at": "2026-07-02T03:04:05.678900", "utc": "2026-07-02T03:04:05.678900Z", "l": "[1,null]", "st": '{"a":"q\\""}',
    }  # fmt: skip
    mill.run(mill.from_iter([{"k": b"\xff\x00", "v": b"\x80\r\n"}], schema={"k": bytes, "v": bytes}).write_redis(redis.url, hash="bytes:", key="k"))
    assert redis.ask("HGET", b"bytes:\xff\x00", "v") == b"\x80\r\n"


def test_hashes_are_updated_and_deleted(redis: redis_server.Server) -> None:
    source = testing.Source({"k": int, "x": int})
    small = source.stream().key_by("k").agg(t=col("x").sum(), emit="each").filter(col("t") < 10)
    redis.ask("HSET", "sum:2", "other", "stays")
    with testing.Job(small.write_redis(redis.url, hash="sum:", key="k")) as job:
        for step, expected in [([(1, 5), (2, 6)], {1: "5", 2: "6"}), ([(1, 5)], {2: "6"}), ([(1, -3), (2, 9)], {1: "7"})]:
            source.push(*({"k": k, "x": x} for k, x in step))
            job.checkpoint()
            found = {k: redis.hash(f"sum:{k}") for k in (1, 2)}
            assert found == {1: {}, 2: {"other": "stays"}} | {k: {"k": str(k), "t": t} | ({"other": "stays"} if k == 2 else {}) for k, t in expected.items()}
        source.end()
    assert redis.ask("EXISTS", "sum:3") == 0


def test_rows_with_a_key_replace_each_other(redis: redis_server.Server) -> None:
    rows = [{"a": "x:y", "b": "z", "v": 1}, {"a": "x", "b": "y:z", "v": 2}, {"a": "x:y", "b": "z", "v": None}, {"a": "%3A", "b": "", "v": 3}]
    mill.run(mill.from_iter(rows, schema={"a": str, "b": str, "v": int}).write_redis(redis.url, hash="", key=["a", "b"]))
    assert redis.hash("x%3Ay:z") == {"a": "x:y", "b": "z"}
    assert redis.hash("x:y%3Az") == {"a": "x", "b": "y:z", "v": "2"}
    assert redis.hash("%253A:") == {"a": "%3A", "b": "", "v": "3"}


def test_many_rows_go_in_several_scripts(redis: redis_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from millstream.io import redis as connector

    monkeypatch.setattr(connector, "_TEXTS_PER_SCRIPT", 50)
    whole = connector._RedisSink._connected
    left = [7]

    class Cut:
        """A client that fails after some scripts."""

        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def eval(self, *arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise ValueError("cut")
            return self._client.eval(*arguments)

    monkeypatch.setattr(connector._RedisSink, "_connected", lambda self: Cut(whole(self)))
    sink = mill.from_iter(ROWS).write_redis(redis.url, stream="cut")
    with pytest.raises(mill.ConnectorError, match="cut"):
        mill.run(sink, checkpoint=tmp_path / "state")
    assert 0 < redis.ask("XLEN", "cut") < 100
    mill.run(sink, checkpoint=tmp_path / "state")
    assert [entry["n"] for entry in redis.entries("cut")] == [str(n) for n in range(100)]


# -- what goes wrong -------------------------------------------------------------------------------------------------------


def test_a_key_of_another_type_changes_nothing(redis: redis_server.Server, tmp_path: Path) -> None:
    redis.ask("SET", "u:5", "text")
    sink = mill.from_iter([{"k": k} for k in range(10)]).write_redis(redis.url, hash="u:", key="k")
    with pytest.raises(mill.ConnectorError, match=r"the key 'u:5' is a string, not a hash; remove it"):
        mill.run(sink, checkpoint=tmp_path / "state")
    assert redis.ask("DBSIZE") == 1
    redis.ask("DEL", "u:5")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert redis.ask("DBSIZE") == 11


def test_a_server_without_memory_writes_nothing(redis: redis_server.Server, tmp_path: Path) -> None:
    sink = mill.from_iter(ROWS).write_redis(redis.url, stream="s")
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(mill.ConnectorError, match="the server cannot be written: OutOfMemoryError"):
            mill.run(sink, checkpoint=tmp_path / "state")
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", 0)
    assert redis.ask("DBSIZE") == 0
    mill.run(sink, checkpoint=tmp_path / "state")
    assert redis.ask("XLEN", "s") == 100


def test_arguments(redis: redis_server.Server) -> None:
    stream = mill.from_iter([{"k": 1, "x": 2}])
    updating = stream.key_by("k").agg(n=mill.count(), emit="each")
    url = "redis://u:secret@localhost:6379/0"
    cases: list[tuple[Any, str]] = [
        (lambda: stream.write_redis(url), r"writes into a stream, as in"),
        (lambda: stream.write_redis(url, stream="a", hash="b", key="k"), r"writes into a stream, as in"),
        (lambda: stream.write_redis("http://secret", stream="a"), r"a URL begins with redis://"),
        (lambda: stream.write_redis("redis://secret:port", stream="a"), r"no valid host, port or option"),
        (lambda: stream.write_redis(3, stream="a"), r"the URL is a text"),
        (lambda: stream.write_redis(url, hash="a"), r"pass key="),
        (lambda: stream.write_redis(url, stream="a", key="k"), r"key= is for hashes"),
        (lambda: stream.write_redis(url, hash="a", key="kk"), r"there is no column 'kk'; did you mean 'k'"),
        (lambda: stream.write_redis(url, hash="a", key="k", maxlen=3), r"maxlen=…\) is for streams"),
        (lambda: stream.write_redis(url, stream="a", maxlen=0), r"of at least 1, not 0"),
        (lambda: updating.write_redis(url, stream="a"), r"appends, and this stream updates"),
        (lambda: updating.write_redis(url, hash="a", key="n"), r"names n, and this stream updates rows by k"),
        (lambda: mill.from_iter([{"o": object()}], schema={"o": object}).write_redis(url, stream="a"), r"column 'o' is object"),
    ]
    for call, message in cases:
        with pytest.raises(mill.MillstreamError, match=message) as caught:
            call()
        assert "secret" not in str(caught.value)
    empty = mill.from_iter([{"k": None}], schema={"k": int})
    with pytest.raises(mill.ConnectorError, match="DataError: column 'k' is null, and it is of the key"):
        mill.run(empty.write_redis(redis.url, hash="a", key="k"))
    with pytest.raises(mill.ConnectorError, match="DataError: all values of a record are null"):
        mill.run(empty.write_redis(redis.url, stream="a"))
    with pytest.raises(mill.ConnectorError, match="the server cannot be written: ConnectionError"):
        mill.run(stream.write_redis("redis://127.0.0.1:1/0", stream="a"))


def test_a_password(redis: redis_server.Server, tmp_path: Path) -> None:
    redis.ask("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all")
    url = f"redis://ann:secret@127.0.0.1:{redis.port}/0"
    sink = mill.from_iter(ROWS).write_redis(url, stream="s")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert redis.ask("XLEN", "s") == 100
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret" not in kept + str(mill.graph(sink)).encode()
    with pytest.raises(mill.ConnectorError, match="AuthenticationError") as caught:
        mill.run(mill.from_iter(ROWS).write_redis(url.replace("secret", "mistaken"), stream="s"))
    assert "mistaken" not in str(caught.value)


# -- crashes ---------------------------------------------------------------------------------------------------------------


def test_a_kill_between_checkpoints(redis: redis_server.Server) -> None:
    for kill_after in range(5):
        source = testing.Source({"n": int})
        source.push(*({"n": n} for n in range(4)))
        source.end()
        with testing.Job(source.stream().write_redis(redis.url, stream=f"s{kill_after}")) as job:
            job.checkpoint(after=kill_after)
            job.kill_and_restore()
            job.checkpoint()
        assert [entry["n"] for entry in redis.entries(f"s{kill_after}")] == ["0", "1", "2", "3"]


def test_the_server_has_lost_what_it_confirmed(redis: redis_server.Server) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_redis(redis.url, stream="s")) as job:
        for n in range(3):
            source.push({"n": n})
            job.checkpoint()
        redis.ask("FLUSHALL")
        source.push({"n": 3})
        with pytest.raises(mill.ConnectorError, match="CheckpointError: the server lacks output that the checkpoint knows to be committed"):
            job.checkpoint()


def test_two_runs_go_on_from_one_checkpoint(redis: redis_server.Server, tmp_path: Path) -> None:
    def job(upto: int, state: str) -> mill.Report:
        numbers = mill.from_iter(lambda start: ({"n": n} for n in range(start, upto)), schema={"n": int})
        checkpoint = mill.Checkpoint(tmp_path / state, every="1ms")
        return mill.run(numbers.map(stop_at(upto), schema={"n": int}).write_redis(redis.url, stream="s"), checkpoint=checkpoint, parallelism=1)

    def stop_at(upto: int) -> Any:
        def passes(row: Any) -> Any:
            time.sleep(0.0002)
            if row.n == upto - 1 and upto < 3000:
                raise ValueError("stop")
            return {"n": row.n}

        return passes

    with pytest.raises(mill.UserFunctionError):
        job(300, "one")
    assert mill.checkpoints(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(mill.UserFunctionError):
        job(2500, "one")
    with pytest.raises(mill.ConnectorError, match="CheckpointError: another run of this job has gone on from the same checkpoint"):
        job(3000, "two")
    job(3000, "one")
    assert [entry["n"] for entry in redis.entries("s")] == [str(n) for n in range(3000)]


class Job(job_process.Job):
    """A job of `redis_jobs.py`."""

    def __init__(self, work: Path, job: str, url: str) -> None:
        super().__init__(JOBS, work, job, url, work / "state")


def judge(redis: redis_server.Server, job: str) -> None:
    """Compare the server with what plain Python computes."""
    if job == "entries":
        assert [entry["n"] for entry in redis.entries("entries")] == [str(n) for n in range(redis_jobs.TOTAL)]
        return
    sums: dict[int, list[int]] = {}
    for n in range(redis_jobs.TOTAL):
        sums.setdefault(n * 7919 % redis_jobs.KEYS, []).append(n)
    expected = {str(k): {"k": str(k), "n": str(len(found)), "t": str(sum(found))} for k, found in sums.items() if sum(found) % 2 == 1}
    found = {key.decode().removeprefix("total:"): redis.hash(key) for key in redis.ask("KEYS", "total:*")}
    assert found == expected


@pytest.mark.parametrize("job", ["entries", "totals"])
def test_killed_jobs(redis: redis_server.Server, tmp_path: Path, job: str) -> None:
    dice = random.Random(f"{SEED} {job}")
    kills = 0
    for number in range(40):
        process = Job(tmp_path, job, redis.url)
        # The interpreter takes part of this to start.
        if kills == KILLS or process.ends_within(dice.uniform(0.2, 1.2)):
            process.finish()
            break
        process.kill()
        kills += 1
    judge(redis, job)
    assert [*redis.hash(MARKS).values()].count("closed") == len(redis.hash(MARKS)) - 1, "each run closes the one before"


def test_a_cancelled_job_does_not_wait_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = redis_server.Server().start()
    has_asked = threading.Event()

    def apply(*arguments: Any) -> bool:
        # It takes connections and answers nothing, as one behind a network that is gone.
        server.suspend()
        has_asked.set()
        return _apply(*arguments)

    _apply = redis_sink._RedisSink._apply
    monkeypatch.setattr(redis_sink._RedisSink, "_apply", apply)
    try:
        job = mill.start(mill.from_iter(ROWS).write_redis(server.url, stream="numbers"), checkpoint=tmp_path / "state")
        assert has_asked.wait(60)
        began = time.monotonic()
        job.cancel()
        assert job.wait("60s").status == "cancelled"
        # An answer alone is waited for 20 seconds.
        assert time.monotonic() - began < 15
    finally:
        server.stop()


@pytest.mark.parametrize("job", ["entries", "totals"])
def test_a_server_that_is_killed(tmp_path: Path, job: str) -> None:
    if redis_server.missing():
        pytest.skip("no server")
    server = redis_server.Server().start()
    try:
        process = Job(tmp_path, job, server.url)
        dice = random.Random(f"{SEED} {job} server")
        # A job that finds no server when it starts is an error.
        while not server.ask("EXISTS", MARKS) and not process.ends_within(0.01):
            pass
        for _ in range(KILLS):
            if process.ends_within(dice.uniform(0.05, 0.3)):
                break
            server.kill()
            time.sleep(dice.uniform(0, 0.2))
            server.start()
        process.finish()
        judge(server, job)
    finally:
        server.stop()


def test_connections_that_are_cut(redis: redis_server.Server, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    listener = socket.create_server(("127.0.0.1", 0))
    cuts = [0]

    def carry(client: socket.socket) -> None:
        """Pass on bytes, and cut the connection somewhere: before the server has the command, or before its answer is passed on."""
        with client, socket.create_connection(("127.0.0.1", redis.port)) as server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 20)
                    if not data:
                        return
                    if dice.random() < 0.03:
                        cuts[0] += 1
                        if ready is client:
                            server.sendall(data[: len(data) // 2])
                        return
                    (server if ready is client else client).sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"

    def numbers(start: int) -> Any:
        for n in range(start, 1000):
            if n % 10 == 0:
                time.sleep(0.002)
            yield {"n": n}

    stream = mill.from_iter(numbers, schema={"n": int})
    restart = mill.Restart.fixed_delay(100, "1ms")
    mill.run(stream.write_redis(url, stream="s"), checkpoint=mill.Checkpoint(tmp_path / "state", every="2ms"), parallelism=1, restart=restart)
    listener.close()
    assert [entry["n"] for entry in redis.entries("s")] == [str(n) for n in range(1000)]
    assert cuts[0] > 0
