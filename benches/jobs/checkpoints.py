"""What a checkpoint a second costs, as a share of the throughput of the same job without any.

    python benches/jobs/checkpoints.py --shares 0.01 0.1 1 --turns 20

Two processes run the same job, counts and sums over a million keys of which a share keeps changing: one without
checkpoints, one with one a second. They take turns of three seconds, the other one stopped meanwhile, so that both see the
same weather on a machine whose speed changes by the minute. Each tells twenty times a second how many records it has taken;
of a turn all counts but the first fifth of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

_TURN_SECONDS = 3.0
_SKIPPED_SECONDS = 0.2
_TOLD_SECONDS = 0.05


def serve(keys: int, share: float, folder: str) -> None:
    """Run the job and tell how far it is, until killed."""
    import millstream as mill
    from millstream.bench.checkpoint import changing_totals

    totals = changing_totals(keys, share)
    checkpoint = mill.Checkpoint(folder, every="1s", mode="at_least_once") if folder else None
    with mill.start(totals.for_each_batch(lambda batch: None), checkpoint=checkpoint, parallelism=2) as job:
        while job.metrics().rows_in < 2 * keys:
            time.sleep(_TOLD_SECONDS)
        if folder:
            job.checkpoint()
            job.checkpoint()
        while True:
            metrics = job.metrics()
            print(json.dumps([time.monotonic(), metrics.rows_in, metrics.checkpoints_taken]), flush=True)
            time.sleep(_TOLD_SECONDS)


class Runner:
    """A process with the job."""

    def __init__(self, keys: int, share: float, folder: str) -> None:
        command = [sys.executable, __file__, "--serve", folder, "--keys", str(keys), "--shares", str(share)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._told: list[tuple[float, int, int]] = []
        self._is_ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._is_ready.wait(120):
            raise SystemExit("the job did not begin")
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._told.append(tuple(json.loads(line)))
            self._is_ready.set()

    def stop(self) -> None:
        """Let it stand still."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def turn(self) -> tuple[float, int]:
        """Let it run for a turn; give its records a second, and how many checkpoints it took."""
        began = time.monotonic()
        os.kill(self._process.pid, signal.SIGCONT)
        time.sleep(_TURN_SECONDS)
        self.stop()
        time.sleep(0.05)
        told = [entry for entry in self._told if began + _SKIPPED_SECONDS < entry[0] < began + _TURN_SECONDS]
        (first, rows_before, taken_before), (last, rows, taken) = told[0], told[-1]
        return (rows - rows_before) / (last - first), taken - taken_before

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def measure(keys: int, share: float, turns: int) -> dict[str, Any]:
    """Give the ratio of each pair of turns, and the rates."""
    with tempfile.TemporaryDirectory() as folder:
        plain, saved = Runner(keys, share, ""), Runner(keys, share, folder + "/state")
        try:
            pairs, checkpoints = [], 0
            for turn in range(turns):
                first, second = (plain, saved) if turn % 2 else (saved, plain)
                a, b = first.turn(), second.turn()
                without, with_ = (a, b) if turn % 2 else (b, a)
                pairs.append((without[0], with_[0]))
                checkpoints += with_[1]
        finally:
            plain.kill()
            saved.kill()
    ratios = sorted(with_ / without for without, with_ in pairs)
    return {
        "share": share,
        "without": statistics.mean(without for without, _ in pairs),
        "with": statistics.mean(with_ for _, with_ in pairs),
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "checkpoints": checkpoints,
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.serve is not None:
        serve(settings.keys, settings.shares[0], settings.serve)
        return
    print("| keys that change | M rows/s without | with | ratio, median of pairs | quartiles | checkpoints |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for share in settings.shares:
        found = measure(settings.keys, share, settings.turns)
        low, high = found["quartiles"]
        print(
            f"| {share:.1%} | {found['without'] / 1e6:.1f} | {found['with'] / 1e6:.1f} | {found['ratio']:.3f} "
            f"| {low:.3f} to {high:.3f} | {found['checkpoints']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
