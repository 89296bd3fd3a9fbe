"""What a notebook does: the same cell twice, an interrupted cell, a job left behind, states to look into."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jupyter_client.manager import start_new_kernel

import millstream as mill
from millstream import col

CELL = """
import millstream as mill
from millstream import col
stream = mill.generate(rows=1000, k=mill.index() % 3).name("numbers")
counts = stream.key_by("k").agg(n=mill.count()).name("counts")
result = counts.collect().sort().to_pylist()
"""


def test_a_cell_runs_twice() -> None:
    namespace: dict[str, object] = {}
    exec(CELL, namespace)
    first = namespace["result"]
    exec(CELL, namespace)
    assert namespace["result"] == first == [{"k": 0, "n": 334}, {"k": 1, "n": 333}, {"k": 2, "n": 333}]


def test_a_job_nobody_holds_is_cancelled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def leave() -> None:
        mill.start(mill.generate(rate=100).write_csv(tmp_path / "a"), checkpoint=tmp_path / "state")

    leave()
    gc.collect()
    assert "a job that was running has been cancelled, as nothing refers to it any more" in caplog.text
    caplog.clear()
    mill.start(mill.from_iter([1]).for_each(lambda row: None)).wait()
    gc.collect()
    assert not caplog.text
    with mill.start(mill.generate(rate=100).write_csv(tmp_path / "a"), checkpoint=tmp_path / "state") as job:
        assert job.status.state == "running"


def test_a_job_that_is_told_to_stop_may_end_though_nobody_holds_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def leave() -> None:
        job = mill.start(mill.generate(rate=1000, n=mill.index()).write_csv(tmp_path / "out"), checkpoint=tmp_path / "state", parallelism=1)
        while not job.metrics().rows_in:
            time.sleep(0.01)
        job.stop()

    leave()
    gc.collect()
    assert not caplog.text
    # Its last checkpoint and commit were not cut short.
    rows = sorted(int(line) for path in (tmp_path / "out").glob("*.csv") for line in path.read_text().split()[1:])
    assert rows == list(range(len(rows))) and rows
    assert mill.checkpoints(tmp_path / "state")


def test_a_script_may_end_with_stop(tmp_path: Path) -> None:
    script = """
    import time
    import millstream as mill

    job = mill.start(mill.generate(rate=1000, n=mill.index()).write_csv("out"), checkpoint="state", parallelism=1)
    while not job.metrics().rows_in:
        time.sleep(0.01)
    job.stop()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    assert not done.stderr
    rows = sorted(int(line) for path in (tmp_path / "out").glob("*.csv") for line in path.read_text().split()[1:])
    assert rows == list(range(len(rows))) and rows
    assert mill.checkpoints(tmp_path / "state")


def test_a_job_takes_the_place_of_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def start() -> mill.Job:
        numbers = mill.generate(rate=5_000, n=mill.index())
        return mill.start(numbers.write_csv(tmp_path / "out"), checkpoint=tmp_path / "state", replace=True)

    others = mill.jobs()
    first = start()
    while first.metrics().rows_in < 100:
        time.sleep(0.01)
    assert mill.jobs() == [*others, first]
    # Another way to write the same directory.
    second = mill.start(
        mill.generate(rate=5_000, n=mill.index()).write_csv(tmp_path / "out"),
        checkpoint=tmp_path / "." / "state",
        replace=True,
    )
    assert "is stopped, as another one replaces it" in caplog.text
    assert first.wait().status == "stopped"
    while second.metrics().rows_in < 100:
        time.sleep(0.01)
    assert mill.jobs() == [*others, second]
    third = start()
    third.stop()
    assert third.wait().restored is not None
    assert mill.jobs() == others
    written = mill.read_csv(tmp_path / "out").collect()["n"]
    assert len(written) == len(set(written)) > 200
    with pytest.raises(mill.PlanError, match="replaces the job of a state directory, and there is no checkpoint="):
        mill.start(mill.generate(rate=1).print(), replace=True)


def test_figures_are_shown_as_tables(tmp_path: Path) -> None:
    rows = mill.from_iter([{"k": "<b>", "x": i} for i in range(5)])
    report = mill.run(rows.key_by("k").agg(n=mill.count()).name("a <i>").write_csv(tmp_path / "out"), checkpoint=tmp_path / "state")
    shown: Any = report
    text = shown._repr_html_()
    assert '<th style="text-align:left">step</th><th>in</th><th>out</th>' in text
    assert "a &lt;i&gt;" in text and "<i>" not in text
    assert text.startswith("<b>finished after ")
    found: Any = mill.checkpoints(tmp_path / "state")
    assert found._repr_html_().count("<tr>") == 1 + len(found)
    assert isinstance(found, list)


def test_a_notebook_shows_a_job_and_keeps_it_up_to_date() -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    messages: list[dict[str, Any]] = []

    def run(code: str) -> None:
        reply = client.execute_interactive(code, timeout=60, output_hook=messages.append)
        assert reply["content"]["status"] == "ok", reply["content"]

    def shown(kind: str) -> list[str]:
        return [str(message["content"]["data"]["text/html"]) for message in messages if message["msg_type"] == kind]

    try:
        run("import millstream as mill\njob = mill.start(mill.generate(rate=1000, n=mill.index()).for_each(lambda row: None))\njob")
        assert shown("display_data")[0].startswith("<b>Job</b> running: ")
        run("import time\ntime.sleep(2.5)\njob.stop()\nreport = job.wait()\ntime.sleep(1.5)")
        updates = shown("update_display_data")
        assert any(" a second, " in update and ">generate</td>" in update for update in updates), updates
        assert updates[-1].startswith("<b>Job</b> stopped: ")
        run("mill.checkpoints, report")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        client.context.destroy()


def test_jobs_are_shown_with_speed_lag_and_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream._html._LOOK_SECONDS_MIN", 60.0)
    rows = mill.generate(rate=2_000, n=mill.index(), at=mill.now()).event_time("at", "1s").filter(col("n") >= 0).name("a <b>")
    with mill.start(rows.write_csv(tmp_path / "out"), checkpoint=tmp_path / "state", http=0) as job:
        while job.metrics().rows_in < 1_000 or all(step.watermark is None for step in job.metrics().steps):
            time.sleep(0.01)
        shown: Any = job
        text = shown._repr_html_()
        assert re.match(r"<b>Job</b> running: [\d,]+ records read, [1-9][\d,]* a second, lag \d+\.\d s, \d+ checkpoints<br>", text), text
        assert f"state directory <code>{tmp_path / 'state'}</code>" in text and f'<a href="{job.url}"' in text
        assert re.search(r"<th>records/s</th><th[^>]*>watermark</th><th[^>]*>lag</th>", text) and "a &lt;b&gt;" in text
        found: Any = mill.jobs()
        assert isinstance(found, list) and job in found
        text = found._repr_html_().replace(' style="text-align:left"', "")
        assert "<td>generate … write_csv</td><td>running</td>" in text and f"<td>{tmp_path / 'state'}</td><td>{job.url}</td>" in text
        assert f"records read; state directory {tmp_path / 'state'}>" in repr(found)
        # Two looks at one moment tell of one speed.
        speeds = [re.search(r"read, ([\d,]+) a second", shown._repr_html_()) for _ in range(2)]
        assert speeds[0] is not None and speeds[1] is not None and speeds[0][1] == speeds[1][1]
        job.stop()
        job.wait()
    assert "a second" not in shown._repr_html_() and "lag" not in shown._repr_html_() and "<a " not in shown._repr_html_()


def test_a_state_directory_in_use_names_what_replaces_its_job(tmp_path: Path) -> None:
    def start(verb: Any, **named: Any) -> Any:
        return verb(mill.generate(rate=100, n=mill.index()).write_csv(tmp_path / "out"), checkpoint=tmp_path / "state", **named)

    with start(mill.start) as job:
        for verb, named in ((mill.start, {}), (mill.start, {"http": 0}), (mill.run, {})):
            with pytest.raises(mill.CheckpointError, match=r"is in use by .*; or pass replace=True to mill.start\(\), which stops that job"):
                start(verb, **named)
        assert job.status.state == "running"
        start(mill.start, replace=True).cancel()


def test_start_stop_wait(tmp_path: Path) -> None:
    job = mill.start(mill.generate(rate=10_000).write_csv(tmp_path / "out"), checkpoint=tmp_path / "state")
    while job.metrics().rows_in < 100:
        time.sleep(0.01)
    with pytest.raises(TimeoutError):
        job.wait("10ms")
    job.checkpoint()
    job.savepoint(tmp_path / "saved")
    job.stop()
    report = job.wait()
    assert report.status == "stopped"
    assert report.checkpoints_taken >= 2
    written = mill.read_csv(tmp_path / "out").collect()["index"]
    assert 100 <= len(written) == len(set(written)) <= report.rows_in
    assert mill.checkpoints(tmp_path / "saved")


INTERRUPTED = """
    import sys
    import millstream as mill
    from millstream import col

    def slowly(row):
        return {"n": row.index}

    stream = mill.generate(rows=100_000, rate=50_000)
    if "python" in sys.argv:
        stream = stream.map(slowly, schema={"n": int}).rename({"n": "index"})
    totals = stream.key_by(k=col("index") % 7).agg(n=mill.count(), emit="checkpoint").name("totals")
    print("ready", flush=True)
    mill.run(
        totals.write_sqlite("totals.db", "totals", key="k"),
        stream.write_csv("out"),
        checkpoint=mill.Checkpoint("state", every="100ms"),
        progress=False,
    )
"""


@pytest.mark.parametrize("kind", ["native", "python"])
def test_ctrl_c_ends_within_a_second_and_leaves_a_usable_checkpoint(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "flow.py"
    script.write_text(textwrap.dedent(INTERRUPTED))
    process = subprocess.Popen(
        [sys.executable, str(script), kind], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 20
    while not list((tmp_path / "out").glob("[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    took = time.monotonic() - began
    assert "KeyboardInterrupt" in errors, errors
    assert took < 1.0, f"took {took:.2f} s"
    assert process.returncode != 0
    infos = [info for info in mill.checkpoints(tmp_path / "state") if info.damage is None]
    assert infos
    subprocess.run([sys.executable, str(script), kind], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    assert sorted(mill.read_csv(tmp_path / "out").collect()["index"]) == list(range(100_000))


def test_ctrl_c_in_a_blocked_source(tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    script.write_text(
        textwrap.dedent("""
            import time
            import millstream as mill

            def never():
                yield 1
                time.sleep(1000)

            print("ready", flush=True)
            mill.from_iter(never(), schema=int).collect()
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors, errors
    assert time.monotonic() - began < 1.0


def test_states_can_be_looked_into(tmp_path: Path) -> None:
    counts = mill.generate(rows=1000, k=mill.index() % 3).key_by("k").agg(n=mill.count(), s=col("k").sum()).name("counts")
    mill.run(counts.write_csv(tmp_path / "out"), checkpoint=tmp_path / "state")
    [*_, last] = mill.checkpoints(tmp_path / "state")
    assert last.is_finished
    assert any("counts" in step for step in last.steps)
    table = mill.read_state(tmp_path / "state", step="counts")
    assert sorted(table["k"]) == [0, 1, 2]
    with pytest.raises(mill.MillstreamError, match="counts"):
        mill.read_state(tmp_path / "state", step="count")


def test_command_line(tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            import millstream as mill

            mill.run(
                mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("counts").write_csv(sys.argv[1]),
                checkpoint="state",
            )
        """)
    )

    def millstream(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "millstream", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)

    assert millstream("run", "flow.py", "out").returncode == 0
    assert sorted(mill.read_csv(tmp_path / "out").collect()["n"]) == [33, 33, 34]
    assert "finished" in millstream("state", "list", "state").stdout
    verified = millstream("state", "verify", "state")
    assert verified.returncode == 0
    assert "ok" in verified.stdout
    assert millstream("state", "list", "nothing").returncode == 1
    doctor = millstream("doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "test job    ok" in doctor.stdout


def test_progress_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    mill.run(mill.generate(rows=1000).for_each_batch(lambda batch: None), progress=True)
    assert "1,000 records" in capsys.readouterr().err


ENDINGS = {
    "native": "job = mill.start(mill.generate(rate=100_000).for_each_batch(lambda batch: None))",
    "slow function": """
def slow(row):
    time.sleep(0.05)
    return row.index
job = mill.start(mill.generate(rows=10**6).map(slow, schema=int).for_each(lambda row: None))
""",
    "slow source": """
def slow():
    while True:
        yield 1
        time.sleep(0.01)
batches = mill.from_iter(slow(), schema=int, is_bounded=False).iter_batches()
next(batches)
job = mill.start(mill.from_iter(slow(), schema=int, is_bounded=False).for_each(lambda row: None))
""",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_script_may_end_while_a_job_runs(name: str) -> None:
    code = f"import time\nimport millstream as mill\n{ENDINGS[name]}\ntime.sleep(0.3)\nprint('end')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "end\n"
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_job_that_cannot_start_replaces_nothing(tmp_path: Path) -> None:
    """The former job was stopped before it was known whether the plan fits its checkpoint and whether the port is free."""
    numbers = mill.generate(rate=1_000, n=mill.index())

    def counted(key: str) -> mill.Output:
        totals = numbers.with_columns(a=mill.col("n") % 3, b=mill.col("n") % 5).key_by(key).agg(s=mill.col("n").sum(), emit="each")
        return totals.name("totals").to_changelog().write_json(tmp_path / "out")

    for every in ("1h", "50ms"):
        state = mill.Checkpoint(tmp_path / f"state-{every}", every=every)
        with mill.start(counted("a"), checkpoint=state) as job, socket.create_server(("127.0.0.1", 0)) as taken:
            while every == "50ms" and not mill.checkpoints(state.path):
                time.sleep(0.01)
            with pytest.raises(mill.CheckpointError, match=r"is of another plan:\n  changed: totals"):
                mill.start(counted("b"), checkpoint=state, replace=True)
            with pytest.raises(mill.CheckpointError, match=r"is of another plan:\n  changed: totals"):
                mill.start(counted("b"), checkpoint=state, replace=True, http=0)
            with pytest.raises(mill.PlanError, match="cannot listen there"):
                mill.start(counted("a"), checkpoint=state, replace=True, http=taken.getsockname()[1])
            assert job.status.state == "running"
            with mill.start(counted("a"), checkpoint=state, replace=True, http=0) as second:
                assert job.status.state == "stopped"
                port = urlsplit(second.url or "").port
                with pytest.raises(mill.PlanError, match="cannot listen there"):
                    mill.start(counted("a"), checkpoint=state, replace=True, http=f"192.0.2.1:{port}")
                assert second.status.state == "running"
        shutil.rmtree(tmp_path / "out")
