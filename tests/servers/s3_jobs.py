"""Jobs that a test starts as processes, to kill them.

    python s3_jobs.py ENDPOINT IN OUT STATE --parallelism 2
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import s3

import millstream as mill


def slowly(batch: Any) -> Any:
    """Take so long that a run has several checkpoints."""
    time.sleep(0.02)
    return batch


def main() -> None:
    """Copy CSV into JSON."""
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "source", "target", "state"):
        parser.add_argument(name)
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="20ms")
    given = parser.parse_args()
    mill.storage({**s3.OPTIONS, "aws_endpoint": given.endpoint})
    numbers = mill.read_csv(given.source, schema={"n": int, "text": str}).map_batches(slowly)
    checkpoint = mill.Checkpoint(given.state, every=given.every)
    print(mill.run(numbers.write_json(given.target), checkpoint=checkpoint, parallelism=given.parallelism).status)


if __name__ == "__main__":
    main()
