"""Flink by PyFlink: SQL that runs in the JVM, with Flink's Kafka connector, whose jar the environment variable ``KAFKA_JAR`` names.

The seconds are those that Flink reports of the job, without the start of its cluster in the process. Messages are made by its ``datagen``
connector; the sink writes at least once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from messages import DIGITS, SIZE, Found, Task, main
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

THREADS = 2
OPTIONS = {
    "pipeline.object-reuse": "true",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": "20000",
    "parallelism.default": str(THREADS),
    # A cluster of its own in the process asks for this much of the JVM's memory.
    "taskmanager.memory.managed.size": "128m",
}


def environment() -> Any:
    """Make an environment with the connector."""
    options = Configuration()
    for name, value in OPTIONS.items():
        options.set_string(name, value)
    options.set_string("pipeline.jars", Path(os.environ["KAFKA_JAR"]).as_uri())
    return StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(options))


def topic(task: Task, more: str) -> str:
    """Declare the topic as a table of one column of text."""
    return f"""CREATE TEMPORARY TABLE messages (`value` STRING) WITH (
        'connector' = 'kafka', 'topic' = '{task.topic}', 'properties.bootstrap.servers' = '{task.address}', 'format' = 'raw', {more})"""


def seconds(result: Any) -> float:
    """Wait for a job; return its time as Flink has measured it."""
    result.wait()
    done = result.get_job_client().get_job_execution_result().result()
    return float(done.get_net_runtime()) / 1000


def read(task: Task) -> tuple[Found, float]:
    """Count and sum what a topic has: the last line of the changing result counts."""
    tables = environment()
    tables.execute_sql(
        topic(
            task,
            "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset', 'properties.group.id' = 'flink'",
        )
    )
    result = tables.execute_sql(
        f"SELECT COUNT(*) AS n, SUM(CAST(SUBSTRING(`value`, 1, {DIGITS}) AS BIGINT)) AS total FROM messages"
    )
    found = Found()
    with result.collect() as rows:
        for row in rows:
            found = Found(row[0] or 0, row[1] or 0)
    done = result.get_job_client().get_job_execution_result().result()
    return found, float(done.get_net_runtime()) / 1000


def write(task: Task) -> tuple[Found, float]:
    """Send messages with a number each, from 0."""
    tables = environment()
    tables.execute_sql(
        f"""CREATE TEMPORARY TABLE numbers (n BIGINT) WITH (
            'connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '{task.count - 1}',
            'rows-per-second' = '100000000')"""
    )
    tables.execute_sql(
        topic(
            task,
            "'sink.delivery-guarantee' = 'at-least-once', 'properties.linger.ms' = '20', 'properties.batch.size' = '1000000', "
            "'properties.buffer.memory' = '268435456'",
        )
    )
    rest = "x" * (SIZE - DIGITS)
    result = tables.execute_sql(
        f"INSERT INTO messages SELECT LPAD(CAST(n AS STRING), {DIGITS}, '0') || '{rest}' FROM numbers"
    )
    return Found(), seconds(result)


if __name__ == "__main__":
    main({"from": read, "to": write})
