"""The same three jobs in Millstream and in other engines: that they do the same, and how many lines and names each takes.

    python benches/lines/run.py [--engines millstream,polars,duckdb,bytewax,pyflink] [--jars DIRECTORY]

| job | what it does |
| --- | --- |
| `means` | the mean of each sensor and minute, from a CSV file to Parquet |
| `live` | the count of each status and ten seconds, from a directory of logs that grow, printed as soon as the time has passed |
| `upserts` | the total of each customer, from a CSV file into a table of SQLite with a key |

Every program runs in an empty directory with files made here, and what it leaves is compared with plain Python. Only programs
that are right are counted: lines that are not empty and no docstring, and different names of the engine's that one must know:
its functions, classes, methods and arguments, and in texts of SQL the keywords, functions and options. Prints a table in
Markdown. Bytewax and PyFlink get environments of their own, as in `benches/peers`.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peers" / "harness"))

from environment import environment

#: Engines that have an environment of their own, by the name that it has among the peers.
PEERS = {"bytewax": "bytewax", "pyflink": "flink"}
ENGINES = ("millstream", "polars", "duckdb", "bytewax", "pyflink")
JOBS = ("means", "live", "upserts")
BEGIN = datetime(2026, 1, 1, 12)
PATIENCE = 120.0


class Wrong(Exception):
    """A program did something else."""


def means(folder: Path, run: Callable[[], subprocess.Popen[str]]) -> None:
    """Check the means of sensors."""
    dice = random.Random(1)
    readings = [(BEGIN + timedelta(seconds=at), f"s{dice.randrange(5)}", dice.randrange(1000) / 4) for at in range(3000)]
    lines = ["at,sensor,value", *(f"{at:%Y-%m-%d %H:%M:%S},{sensor},{value}" for at, sensor, value in readings)]
    (folder / "readings.csv").write_text("\n".join(lines) + "\n")
    groups = defaultdict(list)
    for at, sensor, value in readings:
        groups[sensor, at.replace(second=0)].append(value)
    ended(run())
    table = pyarrow.dataset.dataset(folder / "means.parquet", format="parquet", exclude_invalid_files=True).to_table()
    found = {(row["sensor"], row["start"].replace(tzinfo=None)): row["mean"] for row in table.to_pylist()}
    expect(found, {key: sum(values) / len(values) for key, values in groups.items()})


def upserts(folder: Path, run: Callable[[], subprocess.Popen[str]]) -> None:
    """Check the totals of customers, once more with the table there."""
    dice = random.Random(2)
    orders = [(f"c{dice.randrange(40)}", dice.randrange(1, 100)) for _ in range(2000)]
    totals: dict[str, int] = defaultdict(int)
    for customer, amount in orders:
        totals[customer] += amount
    (folder / "orders.csv").write_text("customer,amount\n" + "".join(f"{customer},{amount}\n" for customer, amount in orders))
    for _ in range(2):
        ended(run())
        db = sqlite3.connect(folder / "totals.db")
        expect(dict(db.execute("SELECT customer, total FROM totals")), totals)
        db.close()


def live(folder: Path, run: Callable[[], subprocess.Popen[str]]) -> None:
    """Check that counts are printed while files come and grow."""
    logs = folder / "logs"
    logs.mkdir()
    dice = random.Random(3)
    records = [(BEGIN + timedelta(seconds=at / 10), dice.choice((200, 404, 500))) for at in range(900)]
    texts = [json.dumps({"at": f"{at:%Y-%m-%dT%H:%M:%S}", "status": status}) for at, status in records]
    counts: dict[tuple[datetime, int], int] = defaultdict(int)
    for at, status in records[:800]:
        counts[at.replace(second=at.second // 10 * 10, microsecond=0), status] += 1
    (logs / "a.json").write_text("\n".join(texts[:300]) + "\n")
    program = run()
    deadline = time.monotonic() + PATIENCE

    def missing_of(wanted: dict[tuple[datetime, int], int]) -> dict[tuple[datetime, int], int]:
        """Wait until all of these are printed; return those that are not when the time is over."""
        while wanted and time.monotonic() < deadline and program.poll() is None:
            time.sleep(0.5)
            lines = [words(line) for line in (folder / "output").read_text().splitlines()]
            wanted = {key: n for key, n in wanted.items() if not any(printed(key, n, line) for line in lines)}
        return wanted

    try:
        missing_of({key: n for key, n in counts.items() if key[0] < BEGIN + timedelta(seconds=20)})
        with (logs / "a.json").open("a") as file:
            file.write("\n".join(texts[300:600]) + "\n")
        time.sleep(2)
        (logs / "b.json").write_text("\n".join(texts[600:]) + "\n")
        missing = missing_of(counts)
    finally:
        program.send_signal(signal.SIGINT)
        try:
            program.wait(30)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
    if missing:
        raise Wrong(f"{len(missing)} of {len(counts)} counts were not printed; the first is {next(iter(missing))}")


def words(line: str) -> set[str]:
    """Return the times of day and the numbers in a line, however an engine prints them."""

    def clock(found: re.Match[str]) -> str:
        return f"{int(found[1]):02}:{int(found[2]):02}:{int(found[3] or 0):02} "

    line = re.sub(r"datetime\(\d+, \d+, \d+, (\d+), (\d+)(?:, (\d+))?[^)]*\)", clock, line)
    return set(re.findall(r"\d\d:\d\d:\d\d|\d\d:\d\d(?=\D)|\d+", line))


def printed(key: tuple[datetime, int], n: int, words: set[str]) -> bool:
    """Whether a line has this count: the beginning as a time of day, with or without seconds of zero."""
    start, status = key
    times = {f"{start:%H:%M:%S}"} | ({f"{start:%H:%M}"} if start.second == 0 else set())
    return bool(times & words) and str(status) in words and str(n) in words


def expect(found: dict[object, object], right: dict[object, object]) -> None:
    """Compare two tables."""
    if found != right:
        wrong = [key for key in {*found, *right} if found.get(key) != right.get(key)]
        raise Wrong(f"{len(wrong)} of {len(right)} rows differ; {wrong[0]}: {found.get(wrong[0])}, not {right.get(wrong[0])}")


def ended(program: subprocess.Popen[str]) -> None:
    """Wait for the end of a program."""
    try:
        program.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
        raise Wrong(f"it has not ended after {PATIENCE:.0f} s") from None
    if program.returncode:
        raise Wrong(f"it ended with {program.returncode}")


def size(path: Path, package: str) -> tuple[int, set[str]]:
    """Return how many lines a program has, and the names of the engine's in it."""
    text = path.read_text()
    tree = ast.parse(text)
    docstring = tree.body[0].end_lineno or 0
    lines = sum(bool(line.strip()) for line in text.splitlines()[docstring:])
    # What comes from the engine: imported from it, called on what it returns, or passed to it. Python's own names are left out.
    plain = {alias.asname or alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names if not alias.name.startswith(package)}
    plain |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(package)
              for alias in node.names}
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and root(node) not in plain | {"self"}:
            names.add(node.attr)
        elif isinstance(node, ast.Call) and root(node.func) not in plain | own | {"sorted", "dict", "any", "sum", "float", "int"}:
            names |= {keyword.arg for keyword in node.keywords if keyword.arg}
        elif isinstance(node, ast.ClassDef) and node.bases:
            names |= {method.name for method in node.body if isinstance(method, ast.FunctionDef) and method.name != "__init__"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\b(SELECT|CREATE|INSERT)\b", node.value):
            names |= set(re.findall(r"\b[A-Z]{2,}\b|\b[a-z_]+(?=\()", node.value)) | set(re.findall(r"'([a-z.-]+)' *=", node.value))
    return lines, names - PYTHON


#: Methods of Python's own values that the programs call.
PYTHON = {"append", "fromisoformat", "replace", "get", "items", "loads", "rpartition", "splitlines", "exists", "iterdir", "absolute",
          "as_uri", "now", "open", "read", "seek", "glob", "mkdir", "name", "close", "write", "join", "exist_ok"}


def root(node: ast.expr) -> str | None:
    """Return the name that a chain of calls and attributes begins with."""
    while True:
        match node:
            case ast.Attribute() | ast.Subscript():
                node = node.value
            case ast.Call():
                node = node.func
            case ast.Name():
                return node.id
            case _:
                return None


def main() -> None:
    """Run, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default=",".join(ENGINES[:3]), help="which, with commas: " + " ".join(ENGINES))
    parser.add_argument("--jobs", default=",".join(JOBS), help="which, with commas: " + " ".join(JOBS))
    parser.add_argument("--jars", type=Path, help="a directory of the jars that PyFlink's programs need")
    options = parser.parse_args()
    engines = options.engines.split(",")
    pythons = {engine: environment(PEERS[engine], False, print).python for engine in engines if engine in PEERS}
    print("| job | " + " | ".join(engines) + " |\n| --- |" + " ---: |" * len(engines))
    failed = False
    for job in options.jobs.split(","):
        cells = []
        for engine in engines:
            path = HERE / engine / f"{job}.py"
            if not path.exists():
                cells.append("none")
                continue
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                if options.jars:
                    (folder / "jars").symlink_to(options.jars.absolute())

                def run(engine: str = engine, path: Path = path, folder: Path = folder) -> subprocess.Popen[str]:
                    with (folder / "output").open("w") as output, (folder / "errors").open("w") as errors:
                        command = [pythons.get(engine, Path(sys.executable)), "-u", path]
                        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=errors, text=True)

                try:
                    {"means": means, "live": live, "upserts": upserts}[job](folder, run)
                    lines, names = size(path, {"duckdb": "duckdb"}.get(engine, engine))
                    cells.append(f"{lines} lines, {len(names)} names")
                except (Wrong, OSError) as error:
                    failed = True
                    cells.append(f"wrong: {error}")
                    print((folder / "errors").read_text()[-2000:], file=sys.stderr)
        print(f"| {job} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
