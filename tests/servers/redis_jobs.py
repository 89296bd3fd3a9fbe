"""Jobs that a test starts as processes, to kill them.

    python redis_jobs.py entries URL STATE
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import millstream as mill
from millstream import col

TOTAL = 4000
KEYS = 30


def numbers(start: int) -> Iterator[dict[str, Any]]:
    """Numbers in small portions, so that many checkpoints come between them."""
    for n in range(start, TOTAL):
        if n % 10 == 0:
            time.sleep(0.001)
        yield {"n": n, "k": n * 7919 % KEYS}


def main() -> None:
    """Run a job."""
    job, url, state = sys.argv[1:]
    source = mill.from_iter(numbers, schema={"n": int, "k": int})
    if job == "entries":
        sink = source.write_redis(url, stream="entries")
    else:
        totals = source.key_by("k").agg(n=mill.count(), t=col("n").sum(), emit="each")
        sink = totals.filter(col("t") % 2 == 1).write_redis(url, hash="total:", key="k")
    print(mill.run(sink, checkpoint=mill.Checkpoint(state, every="10ms"), parallelism=2).status)


if __name__ == "__main__":
    main()
