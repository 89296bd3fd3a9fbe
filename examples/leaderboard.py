"""Keep the three best scores of each game in SQLite as they change, and every change of them in CSV files.

A leaderboard is an updating stream, one row a game and rank. A table with a key takes it as it is; files only grow, so they
get the changes.

    python examples/leaderboard.py [--rows 1000000] [--database out/scores.db] [--changes out/changes] [--state state/scores]
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

import millstream as mill
from millstream import col


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", type=Path, default=Path("out/scores.db"))
    parser.add_argument("--changes", type=Path, default=Path("out/changes"))
    parser.add_argument("--state", type=Path, default=Path("state/scores"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    options.database.parent.mkdir(parents=True, exist_ok=True)
    scores = mill.generate(rows=options.rows, game=mill.index() % 5, player=mill.index() % 1009, score=mill.index() * 7919 % 100003)
    best = scores.key_by("game").top_n(3, by=[col("score"), col("player")], emit="checkpoint")
    report = mill.run(
        best.write_sqlite(options.database, "best", key=["game", "rank"]),
        best.to_changelog().write_csv(options.changes),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)
    with closing(sqlite3.connect(options.database)) as database:
        for game, rank, player, score in database.execute("SELECT game, rank, player, score FROM best ORDER BY game, rank"):
            print(f"game {game}, rank {rank}: player {player} with {score} points")


if __name__ == "__main__":
    main()
