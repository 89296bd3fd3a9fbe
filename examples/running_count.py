"""Keep a running count a user in SQLite, exactly once: kill it, start it again, and the table is right.

The count is an updating stream, one row a user that changes; a table with a key takes it as it is.

    python examples/running_count.py [--rows 2000000] [--database out/counts.db] [--state state/counts]
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

import millstream as mill
from millstream import col


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--database", type=Path, default=Path("out/counts.db"))
    parser.add_argument("--state", type=Path, default=Path("state/counts"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    options.database.parent.mkdir(parents=True, exist_ok=True)
    counts = (
        mill.generate(rows=options.rows, user=mill.index() % 1000, amount=mill.index() % 97)
        .key_by("user")
        .agg(n=mill.count(), total=col("amount").sum(), emit="checkpoint")
    )
    report = mill.run(
        counts.write_sqlite(options.database, "counts", key=["user"]),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)
    with closing(sqlite3.connect(options.database)) as database:
        users, records = database.execute("SELECT count(*), sum(n) FROM counts").fetchone()
    print(f"{records:,} records of {users:,} users")


if __name__ == "__main__":
    main()
