"""Count the words of any text; by default the source of Python's own standard library.

    python examples/wordcount.py [PATH ...] [--top 20]
"""

import argparse
import sysconfig
from pathlib import Path

import millstream as mill
from millstream import col


def count_words(paths: list[str]) -> mill.Stream:
    """Give each word and how often it occurs."""
    return (
        mill.read_text(paths)
        .select(word=col("line").str.to_lowercase().str.extract_all(r"[a-z']+"))
        .explode("word")
        .key_by("word")
        .agg(n=mill.count())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files, globs or directories")
    parser.add_argument("--top", type=int, default=20, help="how many words to show")
    options = parser.parse_args()

    paths = options.paths or [str(Path(sysconfig.get_paths()["stdlib"]) / "*.py")]
    words = count_words(paths).collect().to_pylist()
    words.sort(key=lambda row: (-row["n"], row["word"]))
    for row in words[: options.top]:
        print(f"{row['n']:>10,}  {row['word']}")
    print(f"{sum(row['n'] for row in words):>10,}  words, {len(words):,} different ones")


if __name__ == "__main__":
    main()
