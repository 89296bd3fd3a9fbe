"""What queries 15, 16 and 17 have in common: counts by the level of the price."""

from __future__ import annotations

from millstream.expr import Expr, col, count

__all__ = ["SQL_BIDS", "SQL_DISTINCT", "by_rank", "distinct"]

_LEVELS = {"rank1": "price < 10000", "rank2": "price >= 10000 AND price < 1000000", "rank3": "price >= 1000000"}
_FILTERS = {"total": ""} | {rank: f" FILTER (WHERE {level})" for rank, level in _LEVELS.items()}

SQL_BIDS = ", ".join(f"count(*){condition} AS {rank}_bids" for rank, condition in _FILTERS.items())

SQL_DISTINCT = ", ".join(
    f"count(DISTINCT {column}){condition} AS {rank}_{column}s"
    for column in ("bidder", "auction")
    for rank, condition in _FILTERS.items()
)


def _conditions() -> dict[str, Expr]:
    price = col("price")
    return {"rank1": price < 10_000, "rank2": (price >= 10_000) & (price < 1_000_000), "rank3": price >= 1_000_000}


def by_rank() -> list[Expr]:
    """Return the counts of bids."""
    return [
        count().alias("total_bids"),
        *(count().filter(level).alias(f"{rank}_bids") for rank, level in _conditions().items()),
    ]


def distinct() -> list[Expr]:
    """Return the counts of different bidders and auctions."""
    counts = []
    for column in ("bidder", "auction"):
        counts.append(col(column).n_unique().alias(f"total_{column}s"))
        counts.extend(col(column).n_unique().filter(level).alias(f"{rank}_{column}s") for rank, level in _conditions().items())
    return counts
