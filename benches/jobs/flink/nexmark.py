"""Queries of Nexmark in Flink SQL, run in the JVM: one request a line in, one reply a line out, both JSON.

    PYTHON nexmark.py JARS PARALLELISM

It runs in a Python that has PyFlink; ``benches/jobs/nexmark.py --flink`` starts it. A request has the folder of the events, in which
each of ``person``, ``auction`` and ``bid`` is a folder of Parquet files, and the name of a query. With a folder for the result, the rows
that are left when all changes have been applied are written there. Otherwise the result goes to the ``blackhole`` sink, and the reply has
the seconds that Flink reports for the job, and the processor seconds of the JVM meanwhile.

The options are those of ``benches/peers/flink.py``. Each file is read by one task in the order in which it was written, so there is a file a
task, and events are late within it by no more than they were made.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyflink.common import Configuration, RowKind
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, TableDescriptor

QUERIES = {
    "q0": "SELECT auction, bidder, price, date_time, extra FROM bid",
    "q1": "SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
    "q3": """
        SELECT P.name, P.city, P.state, A.id
        FROM auction A JOIN person P ON A.seller = P.id
        WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA')""",
    "q4": """
        SELECT category, SUM(winning) / COUNT(*) AS `final`
        FROM (
            SELECT A.id, A.category, MAX(B.price) AS winning
            FROM auction A JOIN bid B ON A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
            GROUP BY A.id, A.category
        )
        GROUP BY category""",
    "q5": """
        WITH counts AS (
            SELECT auction, COUNT(*) AS num, window_start, window_end
            FROM HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND)
            GROUP BY auction, window_start, window_end
        ), most AS (
            SELECT MAX(num) AS most, window_start, window_end FROM counts GROUP BY window_start, window_end
        )
        SELECT counts.auction, counts.num, counts.window_start AS starttime, counts.window_end AS endtime
        FROM counts JOIN most
        ON counts.window_start = most.window_start AND counts.window_end = most.window_end AND counts.num >= most.most""",
    # The time of a window's row is one millisecond before its end. An interval join forgets bids that are too old; a regular one takes as long.
    "q7": """
        WITH highest AS (
            SELECT MAX(price) AS most, window_time AS `at`
            FROM TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10' SECOND)
            GROUP BY window_start, window_end, window_time
        )
        SELECT bid.auction, bid.price, bid.bidder, bid.date_time, bid.extra
        FROM bid JOIN highest
        ON bid.price = highest.most AND bid.date_time BETWEEN highest.`at` - INTERVAL '9.999' SECOND AND highest.`at` + INTERVAL '0.001' SECOND""",
    "q8": """
        WITH persons AS (
            SELECT id, name, window_start, window_end
            FROM TUMBLE(TABLE person, DESCRIPTOR(date_time), INTERVAL '10' SECOND)
            GROUP BY id, name, window_start, window_end
        ), sellers AS (
            SELECT seller, window_start, window_end
            FROM TUMBLE(TABLE auction, DESCRIPTOR(date_time), INTERVAL '10' SECOND)
            GROUP BY seller, window_start, window_end
        )
        SELECT persons.id, persons.name, persons.window_start AS starttime
        FROM persons JOIN sellers
        ON persons.id = sellers.seller AND persons.window_start = sellers.window_start AND persons.window_end = sellers.window_end""",
}
_OPTIONS = {
    "pipeline.object-reuse": "true",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": "20000",
    "table.local-time-zone": "UTC",
    "python.executable": sys.executable,
}
# Flink fires a window when the watermark is its last millisecond; a record that is late by exactly the delay must come before that.
_DELAY = "INTERVAL '3.001' SECOND"
_TYPES = {pa.int64(): "BIGINT", pa.string(): "STRING", pa.timestamp("ms"): "TIMESTAMP(3)"}


def environment(jars: Path, parallelism: int) -> StreamTableEnvironment:
    """Return an environment for streams."""
    options = Configuration()
    for name, value in _OPTIONS.items():
        options.set_string(name, value)
    options.set_string("parallelism.default", str(parallelism))
    options.set_string("pipeline.jars", ";".join(path.absolute().as_uri() for path in sorted(jars.glob("*.jar"))))
    return StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(options))


def declare(tables: StreamTableEnvironment, folder: Path) -> None:
    """Declare the events, with their times and watermarks."""
    for events in sorted(folder.iterdir()):
        schema = pq.read_schema(min(events.glob("*.parquet")))
        columns = ", ".join(f"`{field.name}` {_TYPES[field.type]}" for field in schema)
        tables.execute_sql(f"DROP TEMPORARY TABLE IF EXISTS `{events.name}`")
        tables.execute_sql(
            f"CREATE TEMPORARY TABLE `{events.name}` ({columns}, WATERMARK FOR date_time AS date_time - {_DELAY}) "
            f"WITH ('connector'='filesystem', 'path'='{events.as_uri()}', 'format'='parquet', 'parquet.utc-timezone'='true')"
        )


def write(tables: StreamTableEnvironment, query: str, folder: Path) -> None:
    """Write the rows that are left when all changes have been applied, as Parquet files."""
    if query != QUERIES["q4"]:
        sink = (
            TableDescriptor.for_connector("filesystem")
            .format("parquet")
            .option("path", folder.as_uri())
            .option("parquet.utc-timezone", "true")
        )
        tables.sql_query(query).execute_insert(sink.build()).wait()
        return
    # No file takes changes. PyFlink hands over rows one by one, which takes milliseconds each.
    result = tables.execute_sql(query)
    left: Counter[tuple[Any, ...]] = Counter()
    with result.collect() as rows:
        for row in rows:
            left[tuple(row)] += 1 if row.get_row_kind() in (RowKind.INSERT, RowKind.UPDATE_AFTER) else -1
    columns = zip(*left.elements(), strict=True)
    folder.mkdir()
    pq.write_table(
        pa.table([pa.array(column) for column in columns], names=result.get_table_schema().get_field_names()),
        folder / "rows",
    )


def measure(tables: StreamTableEnvironment, query: str, pid: int) -> dict[str, float]:
    """Run a query into a sink that forgets."""
    before = processor_seconds(pid)
    client = tables.sql_query(query).execute_insert(TableDescriptor.for_connector("blackhole").build()).get_job_client()
    assert client
    seconds = client.get_job_execution_result().result().get_net_runtime() / 1000
    return {"seconds": seconds, "processor_seconds": processor_seconds(pid) - before}


def processor_seconds(pid: int) -> float:
    """Return the processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(jars: str, parallelism: str) -> None:
    """Answer requests until there are no more."""
    # What Java prints must not come between the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    java = get_gateway().jvm
    pid = java.java.lang.ProcessHandle.current().pid()
    tables = environment(Path(jars), int(parallelism))
    versions = {"apache-flink": version("apache-flink"), "java": java.java.lang.System.getProperty("java.version")}
    print(json.dumps({**versions, "queries": list(QUERIES)}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        declare(tables, Path(request["events"]))
        query = QUERIES[request["query"]]
        reply = write(tables, query, Path(request["result"])) if "result" in request else measure(tables, query, pid)
        print(json.dumps(reply or {}), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
