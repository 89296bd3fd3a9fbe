"""Word count over the source text of Python's own standard library."""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import millstream as mill
from millstream.bench.contest import Query, contest
from millstream.bench.peers import duckdb_answers
from millstream.bench.result import Result, Settings, Workload
from millstream.expr import col

__all__ = ["WORKLOAD"]

_WORDS_DEFAULT = 3_000_000
_NO_SEPARATOR = "\x01"


def _text(folder: Path, words_min: int) -> tuple[Path, int]:
    """Write a file of at least so many words; give how many it has, as a plain loop counts them."""
    import re

    path, words = folder / "words.txt", 0
    token = re.compile(rb"[a-z']+")
    sources = [source.read_bytes() for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))]
    counts = [len(token.findall(source.lower())) for source in sources]
    with path.open("wb") as out:
        while words < words_min:
            for source, count in zip(sources, counts, strict=True):
                out.write(source)
                words += count
                if words >= words_min:
                    break
    return path, words


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    tell("wordcount: writing the text")
    with tempfile.TemporaryDirectory() as folder:
        path, words = _text(Path(folder), settings.rows or _WORDS_DEFAULT)
        counted = (
            mill.read_text(path)
            .select(word=col("line").str.to_lowercase().str.extract_all(r"[a-z']+"))
            .explode("word")
            .key_by("word")
            .agg(n=mill.count())
        )
        peers: dict[str, Callable[[], Any]] = {}
        if "duckdb" in settings.against:
            lines = f"read_csv('{path}', header=false, columns={{'line': 'VARCHAR'}}, delim='{_NO_SEPARATOR}', quote='', escape='', ignore_errors=true)"
            tokens = f"SELECT unnest(regexp_extract_all(lower(line), '[a-z'']+')) AS word FROM {lines}"
            peers["duckdb"] = duckdb_answers(None, settings.parallelism)(f"SELECT word, count(*) AS n FROM ({tokens}) GROUP BY word")
        if "polars" in settings.against:
            peers["polars"] = _polars(path)
        query = Query("wordcount", "count each word of a text file", words, lambda: counted.collect(parallelism=settings.parallelism), peers)
        size = path.stat().st_size / 1e6
        return contest(
            "wordcount", f"Word count, {size:,.0f} MB of text", "words", [query], settings, tell,
            ["the text is the source of this Python's standard library, as often as it takes"],
        )


def _polars(path: Path) -> Callable[[], Any]:
    import polars as pl

    lines = pl.scan_csv(path, has_header=False, new_columns=["line"], separator=_NO_SEPARATOR, quote_char=None)
    tokens = lines.select(pl.col("line").str.to_lowercase().str.extract_all("[a-z']+").alias("word")).explode("word").drop_nulls()
    counted = tokens.group_by("word").agg(pl.len().alias("n"))
    return lambda: counted.collect(engine="streaming")


WORKLOAD = Workload(
    "wordcount", "count the words of a text file", _run, ("runs", "parallelism", "against"), ("duckdb", "polars")
)
