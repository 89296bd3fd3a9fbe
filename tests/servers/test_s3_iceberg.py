"""Iceberg tables whose files are on a real S3 server; the catalog is in SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import s3

import millstream as mill
from millstream import col

pytest.importorskip("pyiceberg")

from pyiceberg.catalog.sql import SqlCatalog

ROWS = 2_000


@pytest.fixture
def lake(bucket: s3.Bucket, store: s3.Server, tmp_path: Path) -> dict[str, str]:
    return {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": bucket.url("lake"),
        "s3.endpoint": store.url,
        "s3.access-key-id": s3.KEY,
        "s3.secret-access-key": s3.SECRET,
        "s3.region": "us-east-1",
    }


def numbers(rows: int = ROWS) -> mill.Stream:
    return mill.from_iter([{"n": n, "k": n % 7, "day": f"2024-01-{n % 3 + 1:02}"} for n in range(rows)])


def test_rows_are_appended_merged_and_replaced(bucket: s3.Bucket, lake: dict[str, str], tmp_path: Path) -> None:
    checkpoint = mill.Checkpoint(tmp_path / "state", every="50ms")
    mill.run(numbers().write_iceberg("s.t", catalog=lake, partition_by="day"), checkpoint=checkpoint)
    assert sorted(mill.read_iceberg("s.t", catalog=lake, columns="n").collect()["n"]) == list(range(ROWS))
    assert {key.split("/")[1] for key in bucket.keys("lake/")} == {"s"}
    sums = mill.read_iceberg("s.t", catalog=lake).key_by("k").agg(total=col("n").sum(), emit="each")
    for _ in range(2):
        mill.run(sums.write_iceberg("s.sums", catalog=lake, key="k"))
    found = mill.read_iceberg("s.sums", catalog=lake).collect().sort("k").to_pylist()
    assert found == [{"k": k, "total": sum(range(k, ROWS, 7))} for k in range(7)]
    mill.run(numbers(10).write_iceberg("s.t", catalog=lake, mode="overwrite"))
    assert sorted(mill.read_iceberg("s.t", catalog=lake, columns="n").collect()["n"]) == list(range(10))


def test_a_commit_that_is_cut_short(bucket: s3.Bucket, lake: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = numbers(10).write_iceberg("s.t", catalog=lake)

    def cut(self: Any, *arguments: Any) -> Any:
        raise OSError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "commit_table", cut)
        with pytest.raises(mill.ConnectorError, match="the table cannot be written: cut"):
            mill.run(sink, checkpoint=tmp_path / "state")
    # The rows are there, and no reader sees them.
    [data] = [key for key in bucket.keys("lake/") if key.endswith(".parquet")]
    assert mill.read_iceberg("s.t", catalog=lake).collect().to_pylist() == []
    content = bucket.get(data)
    bucket.delete(data)
    with pytest.raises(mill.ConnectorError, match="which the checkpoint names, cannot be read"):
        mill.run(sink, checkpoint=tmp_path / "state")
    bucket.put(data, content)
    mill.run(sink, checkpoint=tmp_path / "state")
    assert sorted(mill.read_iceberg("s.t", catalog=lake, columns="n").collect()["n"]) == list(range(10))
    assert [key for key in bucket.keys("lake/") if key.endswith(".parquet")] == [data]
