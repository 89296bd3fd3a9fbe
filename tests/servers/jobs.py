"""Jobs that a test starts as processes, to kill them.

    python jobs.py squares BROKER IN OUT STATE --parallelism 2
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import millstream as mill
from millstream import col


def squares(given: argparse.Namespace) -> mill.Sink:
    """Numbers in, squares out."""
    numbers = mill.read_kafka(
        given.broker, given.source, format="json", schema={"n": int}, start=given.start, until=given.until, options=given.options
    )
    return numbers.select(n=col("n"), square=col("n") * col("n")).write_kafka(
        given.broker, given.target, format="json", key="n", delivery=given.delivery, options=given.options
    )


def main() -> None:
    """Run a job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["squares"])
    for name in ("broker", "source", "target", "state"):
        parser.add_argument(name)
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="50ms")
    parser.add_argument("--mode", default="exactly_once")
    parser.add_argument("--delivery")
    parser.add_argument("--start", default="earliest")
    parser.add_argument("--restore-from")
    parser.add_argument("--endless", dest="until", action="store_const", const=None, default="end")
    parser.add_argument("--restarts", type=int, help="how often it is started again after a failure, each a second later")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE")
    given = parser.parse_args()
    given.options = dict(option.split("=", 1) for option in given.option)
    sink = squares(given)
    checkpoint = mill.Checkpoint(given.state, every=given.every, mode=given.mode, restore_from=given.restore_from)
    restart = None if given.restarts is None else mill.Restart.fixed_delay(given.restarts, "1s")
    print(mill.run(sink, checkpoint=checkpoint, parallelism=given.parallelism, restart=restart).status)


if __name__ == "__main__":
    main()
