"""Standard input and output: a job in the middle of a pipe."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest

import millstream as mill

HEAD = "import millstream as mill\nfrom millstream import col\n"


def job(code: str, given: bytes = b"", *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    made = subprocess.run([sys.executable, "-c", HEAD + textwrap.dedent(code)], input=given, capture_output=True, timeout=120, check=False)
    assert not check or made.returncode == 0, made.stderr.decode()
    return made


def test_csv_goes_through_a_pipe() -> None:
    code = """
        s = mill.read_csv("-")
        assert repr(s.schema) == "Schema(a: int64, b: str)", s.schema
        mill.run(s.filter(col("a") > 1).write_csv("-"))
    """
    assert job(code, b"a,b\n1,x\n2,\"y,\nz\"\n3,\xc3\xa4").stdout == b'a,b\n2,"y,\nz"\n3,\xc3\xa4\n'
    # Nothing but a header, and what is not read does not matter.
    assert job('mill.run(mill.read_csv("-", columns=["a"]).write_csv("-"))', b"a,a2,b\n1,2,3\n").stdout == b"a\n1\n"
    assert job('mill.run(mill.read_csv("-", schema={"a": int}).write_csv("-"))', b"a\n").stdout == b"a\n"
    assert job('mill.run(mill.read_csv("-", has_header=False, schema={"a": int, "b": str}).write_json("-"))', b"1,x\n").stdout == b'{"a":1,"b":"x"}\n'


def test_json_and_text_go_through_a_pipe() -> None:
    lines = b'{"n": 1, "x": [1]}\n\n{"n": 2, "x": null}\n'
    assert job('mill.run(mill.read_json("-").write_json("-"))', lines).stdout == b'{"n":1,"x":[1]}\n{"n":2,"x":null}\n'
    assert job('mill.run(mill.read_json("-").agg(t=col("n").sum()).write_json("-"))', b'[{"n": 1},\n{"n": 5}]').stdout == b'{"t":6}\n'
    counts = 'mill.run(mill.read_text("-").key_by("line").agg(n=mill.count()).write_csv("-"), parallelism=1)'
    assert sorted(job(counts, b"a\nb\na\r\n").stdout.split()) == [b"a,2", b"b,1", b"line,n"]
    assert job('mill.run(mill.read_text("-").write_json("-"))', b"").stdout == b""


def test_arrow_goes_through_a_pipe() -> None:
    table = pa.table({"a": [1, 2, None], "b": pa.array(["x", "y", "z"]).dictionary_encode(), "c": [b"\x00\xff\n", b"", None]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    given = sink.getvalue().to_pybytes()
    out = job('mill.run(mill.read_arrow("-").write_arrow("-"))', given).stdout
    assert pa.ipc.open_stream(out).read_all().to_pylist() == table.to_pylist()
    assert job('mill.run(mill.read_arrow("-", columns=["a"]).write_json("-"))', given).stdout == b'{"a":1}\n{"a":2}\n{"a":null}\n'
    cut = job('mill.run(mill.read_arrow("-").write_json("-"))', given[:-8], check=False)
    assert b"standard input has no end mark of an Arrow stream" in cut.stderr
    file = pa.BufferOutputStream()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    refused = job('mill.read_arrow("-")', file.getvalue().to_pybytes(), check=False)
    assert b"standard input is an Arrow file, which is read from its end" in refused.stderr
    assert b"standard input is no Arrow stream" in job('mill.read_arrow("-")', b"a,b\n1,2\n" * 9, check=False).stderr


def test_rows_appear_as_they_come() -> None:
    code = HEAD + 'mill.run(mill.read_csv("-", schema={"a": int}).with_columns(b=col("a") * 2).write_csv("-"))'
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None
        seen = b""
        for number, wanted in ((1, b"a,b\n1,2\n"), (2, b"a,b\n1,2\n2,4\n")):
            running.stdin.write(b"a\n1\n" if number == 1 else b"2\n")
            running.stdin.flush()
            while seen != wanted:
                # Without an end of the input in sight.
                assert select.select([running.stdout], [], [], 60)[0], seen
                seen += os.read(running.stdout.fileno(), 1000)
        running.stdin.close()
        assert running.wait(60) == 0


def test_ctrl_c_is_heard_while_the_first_line_is_waited_for() -> None:
    code = HEAD + 'print("waiting", flush=True)\nmill.run(mill.read_csv("-").write_csv("-"))'
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == b"waiting\n"
        running.send_signal(signal.SIGINT)
        # The input has no end before.
        said = running.stderr.read()
        assert said.endswith(b"KeyboardInterrupt\n") and b"ConnectorError" not in said, said
        assert running.wait(60) != 0


def test_what_was_printed_comes_first() -> None:
    assert job('print("before"); mill.run(mill.from_iter([1]).write_csv("-")); print("after")').stdout == b"before\nvalue\n1\nafter\n"


def test_a_reader_that_has_enough_ends_the_job() -> None:
    """As in python job.py | head -2: the job is over, and nothing is said."""
    for write in ("write_csv", "write_json", "write_arrow"):
        code = HEAD + f"""
report = mill.run(mill.generate(n=mill.index()).{write}("-"))
import sys; print(report.status, file=sys.stderr)
"""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stdout is not None and running.stderr is not None
            assert len(running.stdout.read(50)) == 50
            running.stdout.close()
            assert running.wait(60) == 0
            assert running.stderr.read() == b"finished\n"


def test_errors_name_standard_input() -> None:
    code = 'mill.run(mill.read_csv("-", schema={"a": int}).write_csv("-"))'
    failed = job(code, b"a\n1\nx\n", check=False)
    assert b'DataError: step "read_csv": standard input line 3: ' in failed.stderr, failed.stderr
    skipped = job(code.replace('"-"))', '"-"), on_error="skip")'), b"a\n1\nx\n3\n")
    assert skipped.stdout == b"a\n1\n3\n"
    assert b"standard input is compressed with gzip: decompress it before, as in gunzip < file" in job(code, b"\x1f\x8b\x08\x00" * 9, check=False).stderr
    twice = """
        s = mill.read_text("-")
        print(len(s.collect()))
        s.collect()
    """
    made = job(twice, b"a\nb\n", check=False)
    assert made.stdout == b"2\n" and b"standard input was read before, and can be read once" in made.stderr


def test_one_stream_of_standard_input_has_several_uses() -> None:
    code = """
        yes, no = mill.read_csv("-").branch(col("a") > 1)
        mill.run(yes.union(no).write_csv("-"))
    """
    assert sorted(job(code, b"a\n1\n2\n").stdout.split()) == [b"1", b"2", b"a"]


def test_what_it_cannot_keep_is_refused(tmp_path: Path) -> None:
    made = mill.from_iter([1]).write_csv("-")
    assert "written as it comes" in str(mill.graph(made))
    with pytest.raises(mill.PlanError, match='"exactly_once" cannot be kept'):
        mill.run(made, checkpoint=tmp_path / "state")
    with pytest.raises(mill.PlanError, match="partition_by is about files, and standard output is none"):
        mill.from_iter([1]).write_csv("-", partition_by="value")
    with pytest.raises(mill.PlanError, match="on_existing is about files"):
        mill.from_iter([1]).write_json("-", on_existing="replace")
    with pytest.raises(mill.PlanError, match="Parquet file is written as a whole"):
        mill.from_iter([1]).write_parquet("-")
    with pytest.raises(mill.PlanError, match="Parquet is read from its end"):
        mill.read_parquet("-")
    with pytest.raises(mill.PlanError, match='"-" is standard input, which is read by itself'):
        mill.read_text(["-", "other.txt"])
    with pytest.raises(mill.PlanError, match="include_file_paths is about files, and standard input is none"):
        mill.read_text("-", include_file_paths="path")
    with pytest.raises(mill.PlanError, match="cannot be read again from a position"):
        mill.run(mill.read_text("-").write_csv(tmp_path / "out"), checkpoint=tmp_path / "state")
    (tmp_path / "-").write_text("a\n1\n")
    assert mill.read_csv(tmp_path / "-").collect().to_pylist() == [{"a": 1}]
    code = """
        print(mill.read_text("-").schema, mill.read_text("-").is_bounded, mill.read_text("-", follow=True).is_bounded)
    """
    assert job(code).stdout == b"Schema(line: str) True False\n"
