"""The records: made once into a folder, the same for all peers.

Bids are on one of the latest hundred auctions, which move on (600,000 over 10 million bids, a hundred bids a millisecond of
event time); `drawn` has a million keys drawn evenly. The first N rows do not depend on how many follow. The text is the source
of Python's standard library, as often as it takes. Peers that take fewer rows of a file get a file of the first rows.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

__all__ = ["TEXT_BYTES_PER_ROW", "lines_of", "make", "shorten"]

KEYS_EVEN = 1_000_000
TEXT_BYTES_PER_ROW = 10
BEGIN = np.datetime64("2026-01-01", "ms").astype(np.int64)


def dice(rows: int) -> np.ndarray:
    """Pseudo-random numbers (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def bids(rows: int) -> pa.Table:
    """Bids as Nexmark has them."""
    index, drawn = np.arange(rows, dtype=np.int64), dice(rows)
    return pa.table(
        {
            "auction": np.maximum(index * 6 // 100 - (drawn % np.uint64(100)).astype(np.int64), 0),
            "bidder": (drawn >> np.uint64(20)).astype(np.int64) % 1_000_000,
            "price": (drawn >> np.uint64(40)).astype(np.int64) % 10_000,
            "at": pa.array(BEGIN + index // 100).cast(pa.timestamp("ms")),
        }
    )


def drawn(rows: int) -> pa.Table:
    """Bids on any of a million auctions."""
    numbers = dice(rows)
    return pa.table({"auction": (numbers % np.uint64(KEYS_EVEN)).astype(np.int64), "price": (numbers >> np.uint64(40)).astype(np.int64) % 10_000})


def make(folder: Path, rows: int) -> None:
    """Write the records, unless they are there."""
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    records = bids(rows)
    for name, table in {"bids": records, "drawn": drawn(rows)}.items():
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=250_000)
        # The programs in Rust read these: a column a file, 64 bits a value.
        for column in table.column_names:
            np.asarray(table[column].combine_chunks().cast(pa.int64())).tofile(folder / f"{name}.{column}.i64")
    as_text = records.set_column(3, "at", pa.compute.strftime(records["at"], format="%Y-%m-%dT%H:%M:%S"))
    pyarrow.csv.write_csv(as_text, folder / "bids.csv", pyarrow.csv.WriteOptions(quoting_style="none", include_header=True))
    write_text(folder / "words.txt", rows * TEXT_BYTES_PER_ROW)
    done.touch()


def write_text(path: Path, size: int) -> None:
    """Write about so many bytes of text."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = [source.read_bytes() for source in sorted(library.rglob("*.py")) if "site-packages" not in source.parts]
    # What is not ASCII or ends lines in another way is read or lower-cased differently by each engine.
    text = b"".join(source for source in sources if source.isascii() and b"\r" not in source and b"\0" not in source and b"\1" not in source)
    with path.open("wb") as out:
        while out.tell() < size:
            out.write(text[: size - out.tell()].rpartition(b"\n")[0] + b"\n")


def lines_of(path: Path) -> int:
    """Count the lines of a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def shorten(folder: Path, name: str, rows: int) -> Path:
    """Make the file of the first rows of another, unless it is there."""
    stem, _, suffix = name.partition(".")
    path, whole = folder / f"{stem}-{rows}.{suffix}", folder / name
    if path.exists():
        return path
    unfinished = path.with_suffix(".part")
    if suffix == "parquet":
        table = pyarrow.parquet.read_table(whole).slice(0, rows)
        pyarrow.parquet.write_table(table, unfinished, row_group_size=250_000)
    else:
        with whole.open("rb") as source, unfinished.open("wb") as out:
            for _ in range(rows + (suffix == "csv")):
                out.write(source.readline())
    unfinished.rename(path)
    return path
