"""Jobs that read, write and keep their checkpoints in one store, which a test starts as processes, to kill them.

    python store_jobs.py ROOT OPTIONS IN OUT STATE --rows 3000 --parallelism 2

ROOT is what the options are for, as in ``hdfs://host:port``; OPTIONS are a JSON. IN may be ``-``, for numbers that are made.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from s3_state_jobs import slowly, sums

import millstream as mill


def main() -> None:
    """Sum up numbers into JSON, or copy them."""
    parser = argparse.ArgumentParser()
    for name in ("root", "options", "source", "target", "state"):
        parser.add_argument(name)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="20ms")
    given = parser.parse_args()
    mill.storage(json.loads(given.options), url=given.root)
    if given.source == "-":
        sink = sums(mill.generate(rows=given.rows, n=mill.index()).map_batches(slowly)).write_json(given.target)
    else:
        sink = mill.read_csv(given.source, schema={"n": int, "text": str}).map_batches(slowly).write_json(given.target)
    print(mill.run(sink, checkpoint=mill.Checkpoint(given.state, every=given.every), parallelism=given.parallelism).status)


if __name__ == "__main__":
    main()
