"""``millstream bench``: every workload runs, compares before it times, and says what it measured."""

import json
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream._cli import main
from millstream.bench import WORKLOADS, Settings, run
from millstream.bench.contest import Query, contest
from millstream.bench.nexmark import make
from millstream.bench.peers import chosen
from millstream.bench.report import as_json, as_svg
from millstream.bench.result import Difference, Result
from millstream.nexmark import QUERIES

SMALL = Settings(rows=30_000, seconds=0.3, parallelism=2, runs=1)


def quiet(text: str) -> None:
    """Drop what is told."""


@pytest.mark.parametrize("name", ["wordcount", "ysb"])
def test_queries_agree_with_the_peers(name: str) -> None:
    settings = Settings(rows=30_000, parallelism=2, runs=1, against=("duckdb", "polars"))
    [result] = run([name], settings, quiet)
    engines = {figure["engine"] for figure in result.figures}
    assert engines == {"millstream", "duckdb", "polars"}
    assert all(figure["rows_per_second"] > 0 for figure in result.figures)
    assert all(len(line) == len(result.columns) for line in result.lines)


def test_queries_of_nexmark_agree_with_duckdb() -> None:
    settings = Settings(rows=20_000, parallelism=2, runs=1, against=("duckdb", "polars"))
    [result] = run(["nexmark"], settings, quiet)
    assert "polars is left out: the queries exist for duckdb" in result.notes
    assert [line[0] for line in result.lines] == list(QUERIES)
    engines = {query: {figure["engine"] for figure in result.figures if figure["query"] == query} for query in QUERIES}
    assert engines.pop("q12") == {"millstream"}
    assert all(names == {"millstream", "duckdb"} for names in engines.values())
    assert all(figure["rows"] == 20_000 for figure in result.figures)


def test_only_the_columns_of_the_queries_are_made() -> None:
    tables = make(5_000, ["q2", "q8"])
    assert [table.schema.names for table in tables.values()] == [
        ["id", "name", "date_time"],
        ["id", "date_time", "seller"],
        ["auction", "price", "date_time"],
    ]
    assert make(100, ["q2", "q12"])["bid"].schema.names == mill.nexmark().bids.schema.names


def test_queries_over_every_shape_agree_with_the_peers() -> None:
    settings = Settings(rows=5_000, parallelism=2, runs=1, against=("duckdb", "polars"))
    [result] = run(["shapes"], settings, quiet)
    queries = [line[0] for line in result.lines]
    assert len(queries) == len(set(queries)) > 40
    engines = {query: {figure["engine"] for figure in result.figures if figure["query"] == query} for query in queries}
    assert engines.pop("w-sliding") == {"millstream", "duckdb"}
    assert all(names == {"millstream", "duckdb", "polars"} for names in engines.values())


def test_queries_over_shapes_by_name_and_family() -> None:
    [result] = run(["shapes"], Settings(rows=1_000, parallelism=1, runs=1, queries=("j5", "wide")), quiet)
    assert [line[0] for line in result.lines] == ["j5", "c50-filter", "c50-map", "c50-sum", "c500-filter", "c500-sum"]
    with pytest.raises(mill.PlanError, match="shapes has no query 'j6'; there are groups, joins"):
        run(["shapes"], Settings(queries=("j6",)), quiet)


def test_functions() -> None:
    [result] = run(["udf"], SMALL, quiet)
    assert [line[0] for line in result.lines] == ["map", "map to dict", "filter", "map_batches", "compiled udf"]
    assert all(figure["rows_per_second"] > 0 for figure in result.figures)


def test_checkpoints_write_what_changes() -> None:
    [result] = run(["checkpoint"], Settings(rows=20_000, seconds=4.0, parallelism=1), quiet)
    assert [figure["changing"] for figure in result.figures] == [0.01, 0.1, 1.0]
    few, _, all_of_them = (max(figure["bytes"]) for figure in result.figures)
    assert 0 < few < all_of_them


def test_latency_counts_every_record_once_it_is_warm() -> None:
    [result] = run(["latency"], Settings(rows=2_000, seconds=0.5, parallelism=2), quiet)
    lines = [(figure["threads"], figure["checkpoints"], figure["busy"]) for figure in result.figures]
    assert lines == [(1, False, False), (1, True, False), (2, False, False), (2, True, False), (2, True, True)]
    for figure in result.figures:
        assert 0 < figure["p50_ms"] <= figure["p99_ms"] <= figure["max_ms"]
        # The first second is left out, and of the rest each record has a key of its own.
        assert figure["results"] == 1000


def _query(name: str, **peers: Any) -> Query:
    stream = mill.from_iter([{"k": 1, "x": 0.5}, {"k": 2, "x": 1.5}])
    return Query(name, "", 2, lambda: stream.collect(parallelism=1), {"polars": lambda: peers})


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"k": [1], "x": [0.5]}, "2 rows, but polars returns 1"),
        ({"k": [1, 2], "x": [0.5, 1.6]}, "column 'x' has 1.5, but polars returns 1.6"),
        ({"k": [1, 2], "y": [0.5, 1.5]}, "polars returns a column 'y'"),
    ],
)
def test_nothing_is_timed_that_differs(theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(Difference, match=message):
        contest("c", "", "rows", [_query("q", **theirs)], Settings(against=("polars",)), quiet)


def test_equal_answers_in_any_order_are_timed() -> None:
    result = contest("c", "", "rows", [_query("q", k=[2, 1], x=[1.5, 0.5])], Settings(runs=1, against=("polars",)), quiet)
    assert "equal" in result.notes[-1]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "b.json"), "--svg", str(tmp_path / "b.svg")]
    assert main(["bench", "ysb", "--rows", "20000", "--runs", "1", "--parallelism", "1", "--against", "duckdb", *files]) == 0
    out = capsys.readouterr().out
    assert "views a campaign and 10 s" in out
    assert "duckdb" in out
    assert "M rows/s" in out
    figures = json.loads((tmp_path / "b.json").read_text())
    assert {figure["engine"] for figure in figures["results"]["ysb"]["figures"]} == {"millstream", "duckdb"}
    assert (tmp_path / "b.svg").read_text().startswith("<svg")


def test_a_large_result_is_compared_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream.bench.contest._EXACT_ROWS_MAX", 1)
    stream = mill.from_iter([{"k": 1, "x": 5}, {"k": 2, "x": 6}])

    def compared(**theirs: list[int]) -> Result:
        asked = Query("q", "", 2, lambda: stream.collect(parallelism=1), {"duckdb": lambda: theirs})
        return contest("c", "", "rows", [asked], Settings(runs=1, against=("duckdb",)), quiet)

    assert "equal" in compared(k=[2, 1], x=[6, 5]).notes[-1]
    with pytest.raises(Difference, match="combines them into other rows"):
        compared(k=[1, 2], x=[6, 5])


def test_queries_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--query", "q5,q2", "--events", "20_000", "--runs", "1", "--parallelism", "2"]
    assert main(["bench", "nexmark", *few, "--against", "duckdb"]) == 0
    out = capsys.readouterr().out
    assert "the auctions with the most bids" in out
    assert "20,000" in out
    assert "M events/s" in out
    assert "q7" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nexmark", "--query", "q77"], "there is no query 'q77'; there are q0, q1"),
        (["ysb", "--query", "q5"], "--query is for nexmark or shapes alone, as in: millstream bench nexmark --query q5"),
        (["--query", "q5"], "--query is for nexmark or shapes alone"),
        (["ysb", "--events", "5"], "--events is for nexmark alone, as in: millstream bench nexmark --events 10_000_000"),
        (["--events", "5"], "--events is for nexmark alone"),
        (["nexmark", "--against", "polars"], "nexmark compares with duckdb, not with polars"),
        (["ysb", "nexmark", "--against", "duckdb,polars"], "nexmark compares with duckdb, not with polars"),
        (["latency", "--against", "duckdb"], "--against would do nothing for latency; it is for wordcount, nexmark, shapes, ysb"),
        (["ysb", "udf", "--seconds", "2"], "--seconds would do nothing for ysb, udf; it is for checkpoint, latency"),
        (["udf", "--parallelism", "2"], "--parallelism would do nothing for udf"),
        (["nexmark", "--events", "0"], "--events is 0"),
        (["nexmark", "--events", "5", "--rows", "5"], "--events is the same as --rows"),
        (["nothing"], "no workload 'nothing'; there are wordcount"),
        (["ysb", "--against", "spark"], "--against takes duckdb, polars or all, not 'spark'"),
        (["ysb", "--rows", "0"], "--rows is 0"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_list_names_every_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(WORKLOADS)


def test_engines_are_chosen_by_name() -> None:
    assert chosen("") == ()
    assert chosen("polars, duckdb") == ("polars", "duckdb")
    assert set(chosen("all")) == {"duckdb", "polars"}


def test_results_without_bars_are_drawn() -> None:
    empty = Result("x", "<x>", ["a"], [], [], "", [])
    assert "&lt;x&gt;" in as_svg([empty])
    assert json.loads(as_json([empty]))["results"]["x"]["figures"] == []


def test_all_of_them_run_that_can(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from millstream import bench

    monkeypatch.setattr(bench, "WORKLOADS", {name: WORKLOADS[name] for name in ("latency", "ysb")})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "--rows", "2000", "--runs", "1"]) == 0
    out = capsys.readouterr().out
    assert "latency is left out: the workload latency needs pyarrow" in out
    assert "views a campaign and 10 s" in out
    assert main(["bench", "--against", "all"]) == 1
    assert "pip install duckdb polars pyarrow" in capsys.readouterr().err
    with pytest.raises(mill.PlanError, match="pip install pyarrow"):
        mill.from_iter([1]).map_batches(lambda batch: batch)
