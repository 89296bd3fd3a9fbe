"""``benches/peers``: the harness makes its records, checks results before it times them, and says what it ran."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benches" / "peers"
PEERS = ("millstream", "duckdb", "polars")
JOBS = ("words", "map", "filter", "keyed", "window", "million", "checkpoint", "parquet", "csv", "lambda", "batch")


def run(cache: Path, *arguments: str) -> str:
    """Run the harness on the packages of this interpreter."""
    command = [sys.executable, str(FOLDER / "run.py"), "--rows", "2000", "--runs", "1", *arguments]
    variables = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=variables, timeout=240).stdout


def test_all_jobs_are_checked_and_timed(tmp_path: Path) -> None:
    figures, chart = tmp_path / "figures.json", tmp_path / "chart.svg"
    printed = run(
        tmp_path, "--peers", ",".join(PEERS), "--here", "duckdb,polars", "--markdown", "--json", str(figures), "--svg", str(chart)
    )
    found = json.loads(figures.read_text())
    cells: dict[tuple[str, str], dict[str, Any]] = {(cell["job"], cell["peer"]): cell for cell in found["cells"]}
    assert set(cells) == {(job, peer) for job in JOBS for peer in PEERS}
    for (job, peer), cell in cells.items():
        if job == "checkpoint" and peer != "millstream":
            assert cell["note"].startswith("none: ")
        else:
            assert (cell["note"], cell["rate"] > 0) == ("", True), (job, peer)
    assert cells["checkpoint", "millstream"]["share"] > 0
    assert printed.startswith("| job | millstream | duckdb | polars |")
    assert found["versions"]["duckdb"]["duckdb"] in printed
    assert chart.read_text().startswith("<svg")


def test_what_is_wrong_is_told_with_its_count(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(FOLDER / "harness")!r})
from pathlib import Path
import pyarrow as pa
import data, serve
from jobs import JOBS, Oracle, difference
folder = Path({str(tmp_path)!r})
data.make(folder / "records", 1000)
right = Oracle(folder / "records").answer(JOBS["keyed"], 1000)
def told(columns):
    serve.write(pa.table(columns), str(folder / "result"))
    return difference(JOBS["keyed"], right, folder / "result")
less = dict(right, total=right["total"] - (right["auction"] < 3))
print(told(dict(right)), told(less), told(dict(list(right.items())[:2])), told({{k: v[:-1] for k, v in right.items()}}), sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    right, wrong, narrow, short = done.stdout.strip().split("|")
    rows = int(short.rpartition(" ")[2])
    assert right == "None"
    assert wrong == f"3 of {rows} rows have another total"
    assert narrow == "no column 'total'"
    assert short == f"{rows - 1} rows, not {rows}"


@pytest.mark.parametrize(("option", "message"), [("--jobs=nap", "'nap' is none of words"), ("--peers=nobody", "'nobody' is none of")])
def test_names_are_checked(tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as problem:
        run(tmp_path, option)
    assert message in problem.value.stderr
