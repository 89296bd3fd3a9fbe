"""Flink in a process of its own, for jobs that are measured beside it: its environment, its jars, the events it reads, what it is asked.

The environment is that of ``benches/peers``, under the user's cache; Maven copies the jars beside it. Java 17 and Maven are needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peers" / "harness"))

from environment import cache, environment

__all__ = ["Flink", "jars", "tell", "write_events"]

_ROWS_A_GROUP = 100_000


def tell(text: str) -> None:
    """Say how far it is."""
    print(text, file=sys.stderr, flush=True)


def jars() -> Path:
    """Return the folder of the jars that Flink needs to read Parquet files; Maven copies them once."""
    where = cache() / "flink-parquet"
    if not (where / "complete").exists():
        tell("flink: fetching the jars of Parquet")
        where.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "-q", "-B", "-f", str(HERE / "flink" / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run(
            [*command, f"-DoutputDirectory={where}", "-DincludeScope=runtime"], check=True, stdout=sys.stderr
        )
        (where / "complete").touch()
    return where


def write_events(tables: Mapping[str, pa.Table], folder: Path, files: int) -> Path:
    """Write each table as so many files, over which its records go in turns, so that each is as late as the whole."""
    for name, table in tables.items():
        (folder / name).mkdir(parents=True)
        for number in range(files):
            # Without a codec, so that it is the engines that are measured.
            with pq.ParquetWriter(folder / name / f"{number}.parquet", table.schema, compression="none") as writer:
                for start in range(0, table.num_rows, _ROWS_A_GROUP * files):
                    part = table.slice(start, _ROWS_A_GROUP * files)
                    writer.write_table(part.take(pa.array(range(number, part.num_rows, files), pa.int64())))
    return folder


class Flink:
    """A process with Flink in it, started when it is made."""

    def __init__(self, program: Path, parallelism: int, heap: str, log: Path) -> None:
        found = environment("flink", False, tell)
        variables = {**os.environ, **found.variables, "JVM_ARGS": f"-Xmx{heap}"}
        self.log = log
        with log.open("ab") as errors:
            self._child = subprocess.Popen(
                [str(found.python), str(program), str(jars()), str(parallelism)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=variables, text=True,
            )  # fmt: skip
        self.hello = self._reply()

    def ask(self, **request: str) -> dict[str, Any]:
        """Send a request; return the reply."""
        assert self._child.stdin
        print(json.dumps(request), file=self._child.stdin, flush=True)
        return self._reply()

    def close(self) -> None:
        """End the process."""
        if self._child.stdin:
            self._child.stdin.close()
        self._child.wait()

    def _reply(self) -> dict[str, Any]:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            last = self.log.read_text(errors="replace").strip().splitlines()[-30:]
            raise RuntimeError("Flink's process has ended:\n" + "\n".join(last))
        reply: dict[str, Any] = json.loads(line)
        return reply
