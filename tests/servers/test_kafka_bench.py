"""``benches/jobs/kafka.py`` checks what it measures, and prints both ways beside the client's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kafka
from conftest import skip_if_missing

PROGRAM = Path(__file__).parents[2] / "benches" / "jobs" / "kafka.py"


def test_it_reads_and_sends_all_messages() -> None:
    skip_if_missing(kafka.missing())
    # Not a whole number of the chunks in which they are made.
    command = [sys.executable, str(PROGRAM), "--messages", "150_001", "--runs", "1", "--partitions", "3"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout
    names = [line.split("|")[1].strip() for line in printed.splitlines()]
    assert names[0] == "from Kafka, 150,001 messages"
    for name in ("millstream", "confluent_kafka", "to Kafka, 150,001 messages", "millstream at least once", "millstream exactly once"):
        assert name in names
