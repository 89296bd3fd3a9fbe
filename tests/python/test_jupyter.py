"""A real Jupyter kernel: a cell is interrupted, leaves a usable checkpoint, and runs again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import millstream as mill

manager = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")

SECONDS_MAX = 60.0
INTERRUPT_SECONDS_MAX = 5.0
"""Far more than the second that it takes at most: other work may keep the machine busy."""

CELL = """
stream = mill.generate(rows=100_000, rate=50_000)
if with_functions:
    stream = stream.map(lambda row: {"index": row.index}, schema={"index": int})
totals = stream.key_by(k=col("index") % 7).agg(n=mill.count(), emit="checkpoint").name("totals")
report = mill.run(
    totals.write_sqlite("totals.db", "totals", key="k"),
    stream.write_csv("out"),
    checkpoint=mill.Checkpoint("state", every="100ms"),
)
print(report.status, report.restored is not None)
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    package = str(Path(mill.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    started, client = manager.start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": path}, startup_timeout=SECONDS_MAX
    )
    # The first error of a kernel imports what IPython draws tracebacks with; that is not what is measured.
    execute(client, "1 / 0")
    yield started, client
    client.stop_channels()
    started.shutdown_kernel(now=True)


def execute(client: Any, code: str) -> tuple[dict[str, Any], str]:
    """Run a cell; give the reply and what it printed."""
    printed: list[str] = []

    def hook(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, stop_on_error=False, output_hook=hook, timeout=SECONDS_MAX)
    return reply["content"], "".join(printed)


def interrupt(started: Any, client: Any, request: str) -> None:
    """Interrupt the cell of this request; it must end at once and by the interrupt."""
    began = time.monotonic()
    started.interrupt_kernel()
    while (answer := client.get_shell_msg(timeout=SECONDS_MAX))["parent_header"].get("msg_id") != request:
        pass
    took = time.monotonic() - began
    assert answer["content"].get("ename") == "KeyboardInterrupt", answer["content"]
    assert took < INTERRUPT_SECONDS_MAX, f"took {took:.2f} s"


@pytest.mark.parametrize("with_functions", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_cell_goes_on_when_it_runs_again(tmp_path: Path, kernel: tuple[Any, Any], with_functions: bool) -> None:
    started, client = kernel
    setup = f"import millstream as mill\nfrom millstream import col\nwith_functions = {with_functions}"
    reply, _ = execute(client, setup)
    assert reply["status"] == "ok", reply

    request = client.execute(CELL, stop_on_error=False)
    deadline = time.monotonic() + SECONDS_MAX
    while not list((tmp_path / "out").glob("[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    interrupt(started, client, request)
    assert [info for info in mill.checkpoints(tmp_path / "state") if info.damage is None]

    reply, printed = execute(client, CELL)
    assert reply["status"] == "ok", reply
    assert "finished True" in printed
    assert sorted(mill.read_csv(tmp_path / "out").collect()["index"]) == list(range(100_000))

    # Once more: it has finished, so that nothing is written twice.
    reply, _ = execute(client, CELL)
    assert reply["status"] == "ok", reply
    assert len(mill.read_csv(tmp_path / "out").collect()) == 100_000


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_table_leaves_the_kernel_as_it_was(kernel: tuple[Any, Any]) -> None:
    started, client = kernel
    execute(client, "import millstream as mill")
    cell = "mill.generate(rate=1000).map(lambda row: row.index, schema={'n': int}).collect(until='1h')"
    request = client.execute(cell, stop_on_error=False)
    time.sleep(1.0)
    interrupt(started, client, request)
    reply, printed = execute(client, "print(len(mill.generate(rows=10).collect()))")
    assert reply["status"] == "ok", reply
    assert printed.strip() == "10"
