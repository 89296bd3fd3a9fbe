"""What queries 15, 16 and 17 have in common: counts by the level of the price."""

from __future__ import annotations

from millstream.expr import Expr, col, count

__all__ = ["SQL_BIDS", "SQL_DISTINCT", "by_rank", "distinct"]

_LEVELS = {"rank1": "price < 10000", "rank2": "price >= 10000 AND price < 1000000", "rank3": "price >= 1000000"}

SQL_BIDS = "count(*) AS total_bids, " + ", ".join(
    f"count(*) FILTER (WHERE {level}) AS {rank}_bids" for rank, level in _LEVELS.items()
)

SQL_DISTINCT = ", ".join(
    [f"count(DISTINCT {column}) AS total_{column}s, " + ", ".join(
        f"count(DISTINCT {column}) FILTER (WHERE {level}) AS {rank}_{column}s" for rank, level in _LEVELS.items()
    ) for column in ("bidder", "auction")]
)


def _conditions() -> dict[str, Expr]:
    price = col("price")
    return {"rank1": price < 10_000, "rank2": (price >= 10_000) & (price < 1_000_000), "rank3": price >= 1_000_000}


def by_rank() -> dict[str, Expr]:
    """Return the counts of bids."""
    return {"total_bids": count()} | {f"{rank}_bids": count().filter(level) for rank, level in _conditions().items()}


def distinct() -> dict[str, Expr]:
    """Return the counts of different bidders and auctions."""
    counts: dict[str, Expr] = {}
    for column in ("bidder", "auction"):
        counts[f"total_{column}s"] = col(column).n_unique()
        counts.update({f"{rank}_{column}s": col(column).n_unique().filter(level) for rank, level in _conditions().items()})
    return counts
