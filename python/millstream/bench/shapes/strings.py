"""Strings: filters and functions as log analysis has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import millstream as mill
from millstream import col
from millstream.bench.contest import Query
from millstream.bench.result import Settings
from millstream.bench.shapes.source import Tables, pl, pl_len

__all__ = ["NAME", "QUERIES", "queries"]

NAME = "strings"
QUERIES = ("s-contains", "s-starts", "s-upper", "s-regex", "s-group", "s-length", "s-split")


def _records(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(3)
    words = np.array(["search", "cart", "item", "login", "help", "news", "shop", "google"])
    paths = [
        f"https://{words[a]}.example.com/{words[b]}/{n}?user={n * 7919 % 100_000}&q={words[c]}"
        for n, (a, b, c) in enumerate(dice.integers(0, len(words), (min(rows, 200_000), 3)).tolist())
    ]
    return pa.table({"url": pa.array(paths).take(pa.array(dice.integers(0, len(paths), rows))), "status": dice.integers(200, 210, rows)})


def queries(rows: int, settings: Settings, folder: Path) -> Iterator[Query]:
    """Make the data, and return the questions over it."""
    tables = Tables(settings, {"x": _records(rows)})
    x = tables.stream()
    url = col("url")
    yield tables.query(
        "s-contains", "count URLs with a word", x.filter(url.str.contains("google", literal=True)).agg(n=mill.count()),
        "SELECT count(*) AS n FROM x WHERE contains(url, 'google')",
        lambda f: f.filter(pl("url").str.contains("google", literal=True)).select(n=pl_len()),
    )
    yield tables.query(
        "s-starts", "count by status where URLs begin so",
        x.filter(url.str.starts_with("https://cart")).key_by("status").agg(n=mill.count()),
        "SELECT status, count(*) AS n FROM x WHERE starts_with(url, 'https://cart') GROUP BY status",
        lambda f: f.filter(pl("url").str.starts_with("https://cart")).group_by("status").agg(n=pl_len()),
    )
    yield tables.query(
        "s-upper", "filter, then upper case", x.filter(col("status") < 205).select(u=url.str.to_uppercase()).agg(m=col("u").max()),
        "SELECT max(upper(url)) AS m FROM x WHERE status < 205",
        lambda f: f.filter(pl("status") < 205).select(m=pl("url").str.to_uppercase().max()),
    )
    yield tables.query(
        "s-regex", "count URLs that match", x.filter(url.str.contains(r"user=[0-9]*77&")).agg(n=mill.count()),
        "SELECT count(*) AS n FROM x WHERE regexp_matches(url, 'user=[0-9]*77&')",
        lambda f: f.filter(pl("url").str.contains(r"user=[0-9]*77&")).select(n=pl_len()),
    )
    yield tables.query(
        "s-group", "extract one group, count it",
        x.select(user=url.str.extract(r"user=([0-9]+)", 1)).key_by("user").agg(n=mill.count()),
        "SELECT regexp_extract(url, 'user=([0-9]+)', 1) AS user, count(*) AS n FROM x GROUP BY 1",
        lambda f: f.select(user=pl("url").str.extract(r"user=([0-9]+)", 1)).group_by("user").agg(n=pl_len()),
    )
    yield tables.query(
        "s-length", "mean length by status", x.key_by("status").agg(m=url.str.len_chars().mean()),
        "SELECT status, avg(length(url)) AS m FROM x GROUP BY status",
        lambda f: f.group_by("status").agg(m=pl("url").str.len_chars().mean()),
    )
    yield tables.query(
        "s-split", "split, count the fourth parts", x.select(p=url.str.split("/").list.get(3)).key_by("p").agg(n=mill.count()),
        "SELECT str_split(url, '/')[4] AS p, count(*) AS n FROM x GROUP BY 1",
        lambda f: f.select(p=pl("url").str.split("/").list.get(3)).group_by("p").agg(n=pl_len()),
    )
