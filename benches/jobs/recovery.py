"""How soon a killed job with much keyed state has its first output again.

    python benches/jobs/recovery.py [--keys 16000000] [--runs 5] [--folder DIR]

A process fills a keyed count and sum, takes a checkpoint and is killed with SIGKILL. Then a new process runs the same job,
several times over; each tells the seconds from its start, imports included, to the first record at its sink.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTED = time.perf_counter()
THREADS = 2


def job(path: Path, keys: int, emit: str) -> tuple[object, list[float]]:
    """Start the job; give it and the times at which records came to the sink."""
    import millstream as mill
    from millstream import col

    number, seen = mill.index(), []
    records = mill.generate(key=(number * 7919) % keys, value=number % 1000)
    totals = records.key_by("key").agg(n=mill.count(), total=col("value").sum(), emit=emit)
    sink = totals.for_each_batch(lambda batch: seen.append(time.perf_counter()) if not seen else None)
    return mill.start(sink, checkpoint=mill.Checkpoint(path, every="1h", mode="at_least_once"), parallelism=THREADS), seen


def fill(path: Path, keys: int) -> None:
    """Give every key a row, take a checkpoint, die."""
    running, _ = job(path, keys, "1s")
    while running.metrics().rows_in < keys * 1.2:  # type: ignore[attr-defined]
        time.sleep(0.05)
    began = time.perf_counter()
    running.checkpoint()  # type: ignore[attr-defined]
    size = running.metrics().checkpoint_bytes  # type: ignore[attr-defined]
    print(f"{keys:,} keys: checkpoint of {size / 1e9:.2f} GB in {time.perf_counter() - began:.1f} s", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def resume(path: Path, keys: int) -> None:
    """Go on; print the seconds to the first output."""
    _, seen = job(path, keys, "20ms")
    while not seen:
        time.sleep(0.001)
    print(f"{seen[0] - STARTED:.3f}", flush=True)
    os._exit(0)


def main() -> None:
    """Fill, kill, resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=16_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the state is put; by default a temporary folder")
    parser.add_argument("--phase", choices=["fill", "resume"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase is not None:
        {"fill": fill, "resume": resume}[options.phase](options.folder, options.keys)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        command = [sys.executable, __file__, "--keys", str(options.keys), "--folder", f"{folder}/state", "--phase"]
        filled = subprocess.run([*command, "fill"], check=False)
        if filled.returncode != -signal.SIGKILL:
            sys.exit(f"the job was not killed but ended with {filled.returncode}")
        runs = [subprocess.run([*command, "resume"], check=True, capture_output=True, text=True) for _ in range(options.runs)]
        seconds = sorted(float(run.stdout) for run in runs)
        print(f"first output after {seconds[0]:.2f} to {seconds[-1]:.2f} s, median {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
