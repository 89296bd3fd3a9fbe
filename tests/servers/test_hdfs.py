"""What is HDFS's own: a NameNode and a DataNode that are killed and hang, rights, files that are being written, versions of the head."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import hdfs
import job_process
import pytest
import s3_state_jobs

import millstream as mill
from millstream import col

JOBS = Path(__file__).with_name("store_jobs.py")
ROWS = 2000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory of caches, which no other test has."""
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def counts(rows: int) -> mill.Stream:
    return mill.generate(rows=rows, k=mill.index() % 5).key_by("k").agg(n=mill.count()).name("counts")


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_no_name_node(tmp_path: Path) -> None:
    url = f"hdfs://127.0.0.1:{hdfs.free_port()}/a.csv"
    for declare in (
        lambda: mill.read_csv(url, schema={"n": int}).collect(),
        lambda: counts(1).write_csv(f"{url}/"),
        lambda: mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=mill.Checkpoint(url, restart_strategy=mill.no_restart())),
    )[:2]:
        with pytest.raises(mill.MillstreamError, match="does not respond after 4 attempts .*Connection refused.*: check that HDFS runs") as caught:
            declare()
        assert url in str(caught.value)
    for wrong, message in [("hdfs:///a.csv", "names no host: write hdfs://host/path"), ("hdfs://user:secret@host/a.csv", "has a user or password in it")]:
        with pytest.raises(mill.PlanError, match=message):
            mill.read_csv(wrong, schema={"n": int})


def test_rights(hdfs_folder: hdfs.Folder, tmp_path: Path) -> None:
    hdfs_folder.cluster.make(f"{hdfs_folder.path}/private", "somebody", "700")
    hdfs_folder.cluster.put(f"{hdfs_folder.path}/private/a.csv", b"n\n1\n", "somebody")
    for declare in (
        lambda: mill.read_csv(hdfs_folder.url("private/a.csv"), schema={"n": int}).collect(),
        lambda: mill.run(counts(1).write_csv(hdfs_folder.url("private/out/"))),
        lambda: mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=hdfs_folder.url("private/state")),
    ):
        with pytest.raises(mill.MillstreamError, match="access is denied: hdfs_user of mill.storage.*Permission denied: user=etl, access=") as caught:
            declare()
        assert hdfs_folder.url("private/") in str(caught.value)
    mill.storage({"hdfs_user": "somebody"}, url=f"hdfs://{hdfs_folder.cluster.address}")
    try:
        assert mill.read_csv(hdfs_folder.url("private/a.csv"), schema={"n": int}).collect()["n"] == [1]
    finally:
        mill.storage({}, url=f"hdfs://{hdfs_folder.cluster.address}")


def test_options_have_the_names_of_hadoop(hdfs_folder: hdfs.Folder) -> None:
    hdfs_folder.put("a.csv", b"n\n1\n")
    port = hdfs_folder.cluster.port
    one = {"dfs.ha.namenodes.Mills": "a,b", "dfs.namenode.rpc-address.Mills.a": f"127.0.0.1:{hdfs.free_port()}", "dfs.namenode.rpc-address.Mills.b": f"127.0.0.1:{port}"}
    mill.storage({**one, "hdfs_user": "etl"}, url="hdfs://Mills")
    try:
        assert mill.read_csv(f"hdfs://Mills{hdfs_folder.path}/a.csv", schema={"n": int}).collect()["n"] == [1]
    finally:
        mill.storage({}, url="hdfs://Mills")
    with pytest.raises(mill.PlanError, match='no option "hdfs_usr"; did you mean "hdfs_user"'):
        mill.storage({"hdfs_usr": "etl"})


# -- files that are being written ------------------------------------------------------------------------------------------


def test_files_that_are_being_copied_are_not_read(hdfs_folder: hdfs.Folder) -> None:
    hdfs_folder.put("in/a.csv", b"n\n1\n")
    hdfs_folder.cluster.put(f"{hdfs_folder.path}/in/b.csv._COPYING_", b"n\n2")
    hdfs_folder.cluster.put(f"{hdfs_folder.path}/in/.c.csv.0123456789abcdef-1.writing", b"n\n3")
    assert mill.read_csv(hdfs_folder.url("in/"), schema={"n": int}).collect()["n"] == [1]


def test_output_is_hidden_until_the_checkpoint(hdfs_folder: hdfs.Folder, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def look(batch: Any) -> Any:
        seen.append(hdfs_folder.names("out"))
        return batch

    mill.run(mill.generate(rows=10, n=mill.index()).map_batches(look).write_json(hdfs_folder.url("out/")), checkpoint=tmp_path / "state")
    assert all(name.endswith(hdfs.HIDDEN) for names in seen for name in names)
    assert [name for name in hdfs_folder.names("out") if not name.split("/")[-1].startswith("part-")] == []


# -- the head --------------------------------------------------------------------------------------------------------------


def test_a_job_whose_lease_was_taken_publishes_nothing(hdfs_folder: hdfs.Folder, tmp_path: Path) -> None:
    url = hdfs_folder.url("state")
    endless = mill.generate(rate=1_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    job = mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=mill.Checkpoint(url, every="50ms"))
    job.checkpoint()
    # What another job does that takes over: the next version, whose content names another holder.
    for _ in range(50):
        versions = [name for name in hdfs_folder.names("state") if "/version-" in name]
        if len(versions) != 1:
            continue
        number, nonce = versions[0].rsplit("/version-", 1)[1].split("-")
        try:
            head = hdfs_folder.get(f"state/MILLSTREAM/content-{number}-{nonce}")
            mine = f"{int(number) + 1:020}-{'ab' * 8}"
            fields = json.loads(b"\n".join(head.split(b"\n")[1:-2]))
            fields["lease"] = {"holder": {"host": "elsewhere", "boot": "", "space": "", "pid": 7, "started": 0}, "run": 7, "renewals": 0}
            hdfs_folder.cluster.put(f"{hdfs_folder.path}/state/MILLSTREAM/content-{mine}", sealed(fields))
            hdfs_folder.cluster.rename(f"{hdfs_folder.path}/{versions[0]}", f"{hdfs_folder.path}/state/MILLSTREAM/version-{mine}")
            break
        except (AssertionError, OSError):
            # The job was faster.
            continue
    with pytest.raises(mill.CheckpointError, match='no longer has the lease of .*process 7 on host "elsewhere" has taken over'):
        job.wait("60s")
    assert [name for name in hdfs_folder.names("state") if "/version-" in name] == [f"state/MILLSTREAM/version-{mine}"]


def sealed(fields: dict[str, Any]) -> bytes:
    """Give the bytes of a head, with its checksum (Castagnoli, bit by bit)."""
    covered = b"millstream head 1\n" + json.dumps(fields).encode() + b"\n"
    crc = 0xFFFFFFFF
    for byte in covered:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return covered + b"crc32c %08x\n" % (crc ^ 0xFFFFFFFF)


def test_the_head_has_one_version_and_one_content(hdfs_folder: hdfs.Folder, tmp_path: Path) -> None:
    url = hdfs_folder.url("state")
    mill.run(counts(1000).write_csv(tmp_path / "out"), checkpoint=mill.Checkpoint(url, every="5ms"))
    # What kills leave: a content whose version never came, and one of a version that is over.
    head = "state/MILLSTREAM"
    current = next(name for name in hdfs_folder.names(head) if "/version-" in name).rsplit("/version-", 1)[1]
    number = int(current.split("-")[0])
    for left in (number, number + 1):
        hdfs_folder.cluster.put(f"{hdfs_folder.path}/{head}/content-{left:020}-{'cd' * 8}", b"garbage")
    # A process looks once, at its first change.
    run = job_process.Job(JOBS, tmp_path, hdfs_folder.root, json.dumps(hdfs.OPTIONS), "-", tmp_path / "more", url, "--rows", 10)
    run.process.wait(job_process.SECONDS_MAX)
    names = [name.rsplit("/", 1)[1] for name in hdfs_folder.names(head)]
    [version] = [name for name in names if name.startswith("version-")]
    assert [name for name in names if name.startswith("content-")] == [version.replace("version-", "content-")], names


# -- servers that fail -----------------------------------------------------------------------------------------------------


class Job(job_process.Job):
    """A job of `store_jobs.py`, all of which is in HDFS."""

    def __init__(self, work: Path, folder: hdfs.Folder) -> None:
        at = [folder.root, json.dumps(folder.options), "-", folder.url("out/"), folder.url("state")]
        super().__init__(JOBS, work, *at, "--rows", ROWS, "--every", "50ms")


@pytest.mark.parametrize("node", [hdfs.NAME_NODE, hdfs.DATA_NODE])
@pytest.mark.parametrize("what", ["killed", "hangs"])
def test_a_node_that_fails_while_a_job_runs(hdfs_folder: hdfs.Folder, tmp_path: Path, node: str, what: str) -> None:
    cluster = hdfs_folder.cluster
    job = Job(tmp_path, hdfs_folder)
    end = time.monotonic() + job_process.SECONDS_MAX
    while not any(name.startswith("out/part-") for name in hdfs_folder.names()):
        assert time.monotonic() < end and job.process.poll() is None, job.said()
        time.sleep(0.05)
    if what == "killed":
        cluster.kill(node)
        time.sleep(0.5)
        cluster.start()
    else:
        cluster.pause(node)
        waker = threading.Timer(3, cluster.go_on, [node])
        waker.start()
        waker.join()
    if not job.ends_within(job_process.SECONDS_MAX) or job.process.returncode != 0:
        # A checkpoint that failed is no error; a commit may be one, and the next run goes on from it.
        assert job.process.poll() is not None, job.said()
        Job(tmp_path, hdfs_folder).finish()
    rows = [json.loads(line) for name in hdfs_folder.names("out") if not name.endswith(hdfs.HIDDEN) for line in hdfs_folder.get(name).splitlines()]
    assert sorted((row["least"], row["count"], row["total"]) for row in rows) == s3_state_jobs.expected(ROWS)
    assert [name for name in hdfs_folder.unfinished() if name.startswith("out/")] == []
