"""Stop the jobs at parallelism 2 in mid-run and resume them with 1, 3 and 8: the output must be the same.

python tests/crash/rescale.py
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import damage
import jobs
import kill


def main() -> None:
    """Run the harness."""
    dice = random.Random(1)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for job in ("flights", "count", "rows", "running"):
            calm = root / job / "calm"
            kill.finish(kill.start(job, calm, "exactly_once", 2, "20ms"))
            expected = jobs.committed(calm)
            for parallelism in (1, 3, 8):
                for attempt in range(3):
                    base = root / job / f"{parallelism}-{attempt}"
                    work = damage.interrupted(job, base, dice)
                    kill.finish(kill.start(job, work, "exactly_once", parallelism, "20ms"))
                    is_equal = jobs.committed(work) == expected
                    failed += not is_equal
                    print(f"{job}: 2 -> {parallelism}: {'equal' if is_equal else 'DIFFERENT'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
