"""Count words from one Kafka topic into another, exactly once: kill it as often as you like, and start it again.

    python examples/kafka_wordcount.py localhost:9092 lines words --state state/

Lines are JSON, {"line": "some text"}. For each word that comes the topic of words gets its new count, with the word as the key, so
a compacted topic keeps the latest. Read it with isolation.level=read_committed.
"""

import argparse

import millstream as mill
from millstream import col


def count_words(brokers: str, lines: str, words: str, *, is_bounded: bool) -> mill.Output:
    """Give the sink of the job."""
    return (
        mill.read_kafka(brokers, lines, format="json", schema={"line": str}, until="end" if is_bounded else None)
        .select(word=col("line").str.to_lowercase().str.extract_all(r"[a-z']+"))
        .explode("word")
        .key_by("word")
        .agg(n=mill.count(), emit="each")
        .write_kafka(brokers, words, format="json", key="word")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers", help="host:port, several with commas")
    parser.add_argument("lines", help="the topic to read")
    parser.add_argument("words", help="the topic to write")
    parser.add_argument("--state", default="state/", help="where checkpoints are kept")
    parser.add_argument("--every", default="5s", help="how often one is taken")
    parser.add_argument("--parallelism", type=int, help="how many tasks; by default one a core")
    parser.add_argument("--bounded", action="store_true", help="end where the topic ends now")
    options = parser.parse_args()

    sink = count_words(options.brokers, options.lines, options.words, is_bounded=options.bounded)
    checkpoint = mill.Checkpoint(options.state, every=options.every)
    report = mill.run(sink, checkpoint=checkpoint, parallelism=options.parallelism)
    print(report.status)


if __name__ == "__main__":
    main()
