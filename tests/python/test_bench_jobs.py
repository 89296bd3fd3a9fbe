"""``benches/jobs``: what runs beside the queries of Nexmark gets the same events, in the order in which they came."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[2] / "benches" / "jobs"


def test_nexmark_compares_with_duckdb_in_turns() -> None:
    command = [sys.executable, str(FOLDER / "nexmark.py"), "--events", "20000", "--runs", "2", "q2", "q5"]
    head, rule, *lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout.splitlines()
    assert head.startswith("| query | rows | seconds | DuckDB |")
    assert head.count("|") == rule.count("|") == lines[0].count("|")
    assert [line.split(":")[0] for line in lines] == ["| q2", "| q5"]


def test_records_go_over_the_files_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import in_flink

    rows = 500_001
    folder = in_flink.write_events({"bid": pa.table({"n": range(rows)})}, tmp_path / "events", 2)
    even, odd = (pq.read_table(folder / "bid" / f"{number}.parquet")["n"].to_pylist() for number in range(2))
    assert even == list(range(0, rows, 2))
    assert odd == list(range(1, rows, 2))


def test_growth_checks_its_results_and_draws_them(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "growth.py"), "--runs", "1", "--scale", "0.01", "--only", "sinks", "columns", "--svg", str(tmp_path)]
    head, rule, *lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout.splitlines()
    assert head.startswith("| curve |") and rule.startswith("| --- |")
    assert [line.split("|")[1].strip() for line in lines] == ["sinks"] * 5 + ["columns"] * 6
    assert all(float(line.split("|")[3]) > 0 for line in lines)
    assert (tmp_path / "growth-columns.svg").read_text().count("<circle") == 6


@pytest.mark.parametrize("program", ["scale.py", "peaks.py"])
def test_queries_of_shapes_are_measured_one_by_one(program: str) -> None:
    pytest.importorskip("polars")
    command = [sys.executable, str(FOLDER / program), "--rows", "30000", "g1", "f-csv-parquet"]
    head, rule, *lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout.splitlines()
    assert head.count("|") == rule.count("|") == lines[0].count("|")
    assert [line.split("|")[1].strip() for line in lines] == ["g1", "f-csv-parquet"]
