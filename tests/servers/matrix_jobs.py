"""The jobs of the crash matrix with servers, and what each of them must show in the end, by plain counting.

========  =======================================================================================
copy      Kafka → Kafka: every number with its square, long enough to wait in files
window    Kafka → sums by key and minute → Kafka
append    Kafka → sums by key and minute → a table of PostgreSQL
upsert    Kafka → running sums by key, some of them withdrawn → a table with a key
prepared  the former two with ``via="two_phase"``
cdc       changes of a table → another table, by its key, or as a log of the changes
files     CSV files → objects of S3, JSON or Parquet; CSV objects → JSON objects
state     numbers → files, objects, a table or a topic, with checkpoints in S3
delta     Kafka → a Delta table, appended or merged
========  =======================================================================================

A job has variants. Sources are slow, so that even a small job has several checkpoints.
"""

from __future__ import annotations

import collections
import io
import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import deltalake  # noqa: F401 - so that the jobs need not, which are killed early otherwise
import psycopg
import pyarrow.parquet as pq
import s3
from matrix_servers import Servers, apart, wait_until

import millstream as mill
from millstream import col

if TYPE_CHECKING:
    from matrix_faults import Run

ROWS = 900
KEYS = 7
MANY_KEYS = 40
SECONDS_PER_ROW = 0.0004
START = datetime(2024, 1, 1)
LEFT_SECONDS = 10.0
"""Within how many seconds a server must have forgotten what a dead client had open."""

Rows = list[tuple[Any, ...]]


def slowly(batch: Any) -> Any:
    """Take so long that a run has several checkpoints."""
    time.sleep(len(batch) * SECONDS_PER_ROW)
    return batch


# -- streams, and what they lead to --------------------------------------------------------------------------------------


def numbers_topic(servers: Servers) -> str:
    """Return the topic that all jobs of a worker read; it is made once."""

    def make() -> str:
        cluster = servers.cluster()
        topic = cluster.topic("numbers", 3)
        cluster.send(topic, [{"n": n} for n in range(ROWS)])
        return topic

    servers.kafka
    if "numbers" not in servers.made:
        servers.made["numbers"] = apart(make)
    return servers.made["numbers"]


def from_topic(run: Run) -> mill.Stream:
    """Numbers of the topic."""
    topic = run.servers.made["numbers"]
    numbers = mill.read_kafka(run.address("kafka"), topic, format="json", schema={"n": int}, until="end", options=kafka_options(run))
    return timed(numbers).map_batches(slowly)


def timed(numbers: mill.Stream) -> mill.Stream:
    """Give numbers a time: a second each."""
    return numbers.with_columns(t=mill.lit(START) + col("n") * mill.lit(timedelta(seconds=1))).event_time("t", watermark="10s")


def kafka_options(run: Run) -> dict[str, Any]:
    """Options that let a run be over soon: clients try often, and transactions time out early where that is the fault."""
    return {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}


def kafka_sink_options(run: Run) -> dict[str, Any]:
    return kafka_options(run) | ({"transaction.timeout.ms": 1000} if run.has_short_timeouts else {})


def sums(stream: mill.Stream) -> mill.Stream:
    """Sums by key and minute."""
    windows = stream.key_by(k=col("n") % KEYS).window(mill.tumbling("1m"))
    return windows.agg(least=col("n").min(), count=mill.count(), total=col("n").sum()).select("least", "count", "total")


def expected_sums() -> Rows:
    found = collections.defaultdict(list)
    for n in range(ROWS):
        found[n % KEYS, n // 60].append(n)
    return sorted((numbers[0], len(numbers), sum(numbers)) for numbers in found.values())


def running(stream: mill.Stream) -> mill.Stream:
    """Running sums by key; those whose count is a multiple of 5 are withdrawn."""
    return stream.key_by(k=col("n") % MANY_KEYS).agg(count=mill.count(), total=col("n").sum(), emit="each").filter(col("count") % 5 != 0)


def expected_running() -> Rows:
    found = collections.defaultdict(list)
    for n in range(ROWS):
        found[n % MANY_KEYS].append(n)
    return sorted((k, len(numbers), sum(numbers)) for k, numbers in found.items() if len(numbers) % 5)


def wide(stream: mill.Stream) -> mill.Stream:
    """Rows so long that those of an epoch wait in a file."""
    return stream.select(n=col("n"), square=col("n") * col("n"), text=mill.lit("x" * 600))


def expected_squares() -> Rows:
    return [(n, n * n) for n in range(ROWS)]


def compared(found: Rows, expected: Rows) -> str:
    """Say how rows differ, each counted."""
    there, wanted = collections.Counter(found), collections.Counter(expected)
    surplus, missing = there - wanted, wanted - there
    if not surplus and not missing:
        return ""
    return f"{sum(missing.values())} of {len(expected)} rows are missing, such as {list(missing)[:3]}, {sum(surplus.values())} are surplus, such as {list(surplus)[:3]}"


# -- jobs ----------------------------------------------------------------------------------------------------------------


class Plan:
    """A job of the matrix."""

    variants = 1
    is_endless = False

    def kinds(self, variant: int) -> tuple[str, ...]:
        """The servers that it needs."""
        raise NotImplementedError

    def prepare(self, run: Run) -> None:
        """Make what it writes into."""

    def declare(self, run: Run) -> mill.Output:
        """Declare it, in its own process."""
        raise NotImplementedError

    def nudge(self, run: Run) -> None:
        """Do what happens while it runs."""

    def is_done(self, run: Run) -> bool:
        """Whether an endless job has shown all there is."""
        return True

    def is_open(self, run: Run) -> bool:
        """Whether a transaction of its output is open. Called in a process of its own."""
        return False

    def time_out(self, run: Run) -> None:
        """Do to an open transaction what the server does later than a run can wait."""

    def wrong(self, run: Run) -> str:
        """Say what is wrong with what it shows. Called in a process of its own, like the next one."""
        raise NotImplementedError

    def left(self, run: Run) -> str:
        """Say what it has left over."""
        return ""

    def clean(self, run: Run) -> None:
        """Remove what it has made on servers."""


class ToKafka(Plan):
    """Into a topic."""

    def kinds(self, variant: int) -> tuple[str, ...]:
        return ("kafka",)

    def prepare(self, run: Run) -> None:
        numbers_topic(run.servers)
        run.target = apart(lambda: run.servers.cluster().topic(run.name, 2))

    def is_open(self, run: Run) -> bool:
        return run.servers.cluster().hidden(run.target) > 0

    def wrong(self, run: Run) -> str:
        began = time.monotonic()
        cluster = run.servers.cluster()
        held = wait_until(lambda: cluster.hidden(run.target) == 0, LEFT_SECONDS)
        if held == float("inf"):
            return f"{cluster.hidden(run.target)} offsets are hidden by an open transaction {LEFT_SECONDS} s after the end"
        found = cluster.rows(run.target)
        (run.work / "held").write_text(f"{time.monotonic() - began:.3f}")
        return compared([tuple(row[name] for name in self.columns(run)) for row in found], self.expected(run))

    def columns(self, run: Run) -> tuple[str, ...]:
        return ("n", "square")

    def expected(self, run: Run) -> Rows:
        return expected_squares()

    def left(self, run: Run) -> str:
        return files_left(run, "*.messages")

    def clean(self, run: Run) -> None:
        run.servers.cluster().delete(run.target)


class Copy(ToKafka):
    def declare(self, run: Run) -> mill.Output:
        return wide(from_topic(run)).write_kafka(run.address("kafka"), run.target, format="json", key="n", options=kafka_sink_options(run))


class Window(ToKafka):
    def declare(self, run: Run) -> mill.Output:
        return sums(from_topic(run)).write_kafka(run.address("kafka"), run.target, format="json", key="least", options=kafka_sink_options(run))

    def columns(self, run: Run) -> tuple[str, ...]:
        return ("least", "count", "total")

    def expected(self, run: Run) -> Rows:
        return expected_sums()


class ToPostgres(Plan):
    """From Kafka into a table; variant 1 has a key."""

    def __init__(self, variants: tuple[int, ...], via: str = "auto") -> None:
        self._kinds, self._via = variants, via
        self.variants = len(variants)

    def kinds(self, variant: int) -> tuple[str, ...]:
        return ("kafka", "postgres")

    def prepare(self, run: Run) -> None:
        numbers_topic(run.servers)
        make_schema(run)

    def _has_key(self, run: Run) -> bool:
        return self._kinds[run.variant] == 1

    def declare(self, run: Run) -> mill.Output:
        options: Any = {"via": self._via}
        if self._has_key(run):
            return running(from_topic(run)).write_postgres(postgres_url(run), run.target, key="k", **options)
        return sums(from_topic(run)).write_postgres(postgres_url(run), run.target, **options)

    def is_open(self, run: Run) -> bool:
        return is_idle_in_transaction(run)

    def time_out(self, run: Run) -> None:
        end_idle_in_transaction(run)

    def wrong(self, run: Run) -> str:
        if self._has_key(run):
            return compared(run.servers.postgres.rows(f"select k, count, total from {run.target}"), expected_running())
        return compared(run.servers.postgres.rows(f"select least, count, total from {run.target}"), expected_sums())

    def left(self, run: Run) -> str:
        return files_left(run, "*.rows") or postgres_left(run)

    def clean(self, run: Run) -> None:
        drop_schema(run)


class Changes(Plan):
    """Changes of a table that is changed at random: variant 0 into another one with its key, 1 as a log of the changes."""

    variants = 2
    is_endless = True
    rows = 300

    def kinds(self, variant: int) -> tuple[str, ...]:
        return ("postgres",)

    def prepare(self, run: Run) -> None:
        make_schema(run)
        name, database = run.name, run.servers.postgres
        database.execute(f"create table {name}.t (id int primary key, n int, x text)")
        database.execute(f"insert into {name}.t select n, 0, 'first' from generate_series(0, {self.rows - 1}) as n")
        database.execute(f"create publication {name} for table {name}.t")
        database.execute(f"create table {name}.log (op text, id int, n int, x text, seq bigserial)")
        run.counts = {}

    def declare(self, run: Run) -> mill.Output:
        stream = mill.read_postgres_changes(postgres_url(run), run.name, run.name)
        if run.variant == 0:
            return stream.write_postgres(postgres_url(run), f"{run.name}.out", key="id")
        return stream.to_changelog().write_postgres(postgres_url(run), f"{run.name}.log")

    def nudge(self, run: Run) -> None:
        """Change the table in one transaction. Each change of a key counts up its ``n``."""
        dice = run.dice
        before = dict(run.counts)
        try:
            with psycopg.connect(run.servers.postgres.url, autocommit=True, connect_timeout=5) as connection:
                with connection.transaction(force_rollback=dice.random() < 0.1) as transaction:
                    for _ in range(dice.choice([1, 1, 2, 40])):
                        key = dice.randrange(self.rows)
                        n = run.counts.get(key, 0) + 1
                        if dice.random() < 0.2:
                            if not connection.execute(f"delete from {run.name}.t where id = %s".encode(), (key,)).rowcount:
                                continue
                        else:
                            sql = f"insert into {run.name}.t values (%s, %s, %s) on conflict (id) do update set n = excluded.n, x = excluded.x"
                            connection.execute(sql.encode(), (key, n, "é" * dice.randrange(5)))
                        run.counts[key] = n
                if transaction.force_rollback:
                    run.counts = before
        except psycopg.OperationalError:
            run.counts = before

    def is_done(self, run: Run) -> bool:
        database = run.servers.postgres
        wanted = database.rows(f"select id, n, x from {run.name}.t order by 1")
        if run.variant == 1:
            return self._logged(run)[0] == wanted
        if not database.rows(f"select to_regclass('{run.name}.out') is not null")[0][0]:
            return False
        return bool(database.rows(f"select id, n, x from {run.name}.out order by 1") == wanted)

    def _logged(self, run: Run) -> tuple[Rows, str]:
        """What the log of the changes leads to, and what is wrong with it: none may be missing, be there twice or go back."""
        kept: dict[int, tuple[int, str]] = {}
        newest: dict[int, int] = {}
        for op, key, n, x in run.servers.postgres.rows(f"select op, id, n, x from {run.name}.log order by seq"):
            if (op == "insert") == (key in kept):
                return [], f"{op} of {key}, which is {'' if key in kept else 'not '}there"
            if op == "delete":
                if kept.pop(key) != (n, x):
                    return [], f"a deletion of {key} with other values"
                newest[key] += 1
            else:
                # What was before the rows were read is not known.
                if n != newest.get(key, n - 1) + 1:
                    return [], f"{op} of {key} has n = {n} after {newest[key]}"
                newest[key] = n
                kept[key] = (n, x)
        return sorted((key, *row) for key, row in kept.items()), ""

    def is_open(self, run: Run) -> bool:
        return is_idle_in_transaction(run)

    def time_out(self, run: Run) -> None:
        end_idle_in_transaction(run)

    def wrong(self, run: Run) -> str:
        if run.variant == 1:
            found, wrong = self._logged(run)
            return wrong or compared(found, run.servers.postgres.rows(f"select id, n, x from {run.name}.t"))
        database = run.servers.postgres
        return compared(database.rows(f"select id, n, x from {run.name}.out"), database.rows(f"select id, n, x from {run.name}.t"))

    def left(self, run: Run) -> str:
        temporary = "select slot_name from pg_replication_slots where temporary"
        if wait_until(lambda: not run.servers.postgres.rows(temporary), LEFT_SECONDS) == float("inf"):
            return f"temporary slots: {run.servers.postgres.rows(temporary)}"
        return files_left(run, "*.rows") or postgres_left(run)

    def clean(self, run: Run) -> None:
        drop = f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{run.name}' and not active"
        wait_until(lambda: bool(run.servers.postgres.rows(drop)), LEFT_SECONDS)
        run.servers.postgres.execute(f"drop publication {run.name}")
        drop_schema(run)


class Files(Plan):
    """Files into objects, as JSON or Parquet; in variant 2 the files are objects, too."""

    variants = 3

    def kinds(self, variant: int) -> tuple[str, ...]:
        return ("s3",)

    def prepare(self, run: Run) -> None:
        run.servers.s3
        run.target = run.servers.s3.url(f"{run.name}/out/")
        folder = run.servers.folder / "csv"
        if not folder.exists():
            folder.mkdir()
            for part in range(6):
                text = "n\n" + "".join(f"{n}\n" for n in range(part, ROWS, 6))
                (folder / f"{part}.csv").write_text(text)
                run.servers.s3.put(f"csv/{part}.csv", text.encode())

    def declare(self, run: Run) -> mill.Output:
        source = run.servers.s3.url("csv/*.csv") if run.variant == 2 else run.servers.folder / "csv" / "*.csv"
        stream = wide(mill.read_csv(source, schema={"n": int}).map_batches(slowly))
        return stream.write_parquet(run.target) if run.variant == 1 else stream.write_json(run.target)

    def wrong(self, run: Run) -> str:
        return compared(read_objects(run), expected_squares())

    def left(self, run: Run) -> str:
        return uploads_left(run)

    def clean(self, run: Run) -> None:
        drop_objects(run)


class State(Plan):
    """Checkpoints in the store: variant 0 writes files, 1 objects, 2 a table, 3 a topic."""

    variants = 4

    def kinds(self, variant: int) -> tuple[str, ...]:
        return (("s3",), ("s3",), ("s3", "postgres"), ("s3", "kafka"))[variant]

    def prepare(self, run: Run) -> None:
        run.servers.s3
        run.state = run.servers.s3.url(f"{run.name}/state")
        if run.variant == 1:
            run.target = run.servers.s3.url(f"{run.name}/out/")
        elif run.variant == 2:
            make_schema(run)
        elif run.variant == 3:
            run.servers.kafka
            run.target = apart(lambda: run.servers.cluster().topic(run.name, 2))

    def declare(self, run: Run) -> mill.Output:
        numbers = timed(mill.generate(rows=ROWS, n=mill.index())).map_batches(slowly)
        if run.variant < 2:
            return sums(numbers).write_json(run.target if run.variant == 1 else run.work / "out")
        if run.variant == 2:
            return wide(numbers).write_postgres(postgres_url(run), run.target)
        return wide(numbers).write_kafka(run.address("kafka"), run.target, format="json", options=kafka_sink_options(run))

    def is_open(self, run: Run) -> bool:
        return is_idle_in_transaction(run) if run.variant == 2 else run.variant == 3 and Copy().is_open(run)

    def time_out(self, run: Run) -> None:
        if run.variant == 2:
            end_idle_in_transaction(run)

    def wrong(self, run: Run) -> str:
        mill.storage({**s3.OPTIONS, "aws_endpoint": run.servers.address("s3", False)})
        from millstream.state import verify

        damaged = [(number, text) for number, text in verify(run.state)[0] if text is not None]
        if damaged:
            return f"checkpoints are damaged: {damaged}"
        if run.variant == 2:
            return compared(run.servers.postgres.rows(f"select n, square from {run.target}"), expected_squares())
        if run.variant == 3:
            return Copy().wrong(run)
        if run.variant == 1:
            return compared(read_objects(run), expected_sums())
        lines = [line for path in (run.work / "out").glob("*.json") for line in path.read_text().splitlines()]
        return compared([tuple(json.loads(line).values()) for line in lines], expected_sums())

    def left(self, run: Run) -> str:
        head = head_of(run)
        if head["lease"] is not None:
            return f"the lease was not given back: {head['lease']}"
        return uploads_left(run) or (postgres_left(run) if run.variant == 2 else "")

    def clean(self, run: Run) -> None:
        drop_objects(run)
        if run.variant == 2:
            drop_schema(run)
        elif run.variant == 3:
            run.servers.cluster().delete(run.target)


class Delta(Plan):
    """Into a Delta table: variant 0 appends, 1 merges."""

    variants = 2

    def kinds(self, variant: int) -> tuple[str, ...]:
        return ("kafka",)

    def prepare(self, run: Run) -> None:
        numbers_topic(run.servers)
        run.target = str((run.full or run.work) / "table")

    def declare(self, run: Run) -> mill.Output:
        stream = from_topic(run)
        if run.variant == 0:
            return stream.select(n=col("n"), square=col("n") * col("n"), part=col("n") % 3).write_delta(run.target, partition_by="part")
        return running(stream).write_delta(run.target, key="k")

    def wrong(self, run: Run) -> str:
        import duckdb

        files: set[str] = set()
        newest: dict[str, int] = {}
        for entry in sorted((Path(run.target) / "_delta_log").glob("*.json")):
            for line in entry.read_text().splitlines():
                action = json.loads(line)
                if "add" in action:
                    if action["add"]["path"] in files:
                        return f"{action['add']['path']} was added twice"
                    files.add(action["add"]["path"])
                if "remove" in action:
                    files.remove(action["remove"]["path"])
                if "txn" in action:
                    mark = action["txn"]
                    if mark["version"] <= newest.get(mark["appId"], 0):
                        return f"the log has {mark} twice"
                    newest[mark["appId"]] = mark["version"]
        paths = [str(Path(run.target) / unquote(path)) for path in files]
        columns = "n, square" if run.variant == 0 else "k, count, total"
        found = duckdb.sql(f"select {columns} from read_parquet({paths!r}, hive_partitioning=false)").fetchall() if paths else []
        return compared(found, expected_squares() if run.variant == 0 else expected_running())


PLANS: dict[str, Plan] = {
    "copy": Copy(),
    "window": Window(),
    "append": ToPostgres((0,)),
    "upsert": ToPostgres((1,)),
    "prepared": ToPostgres((0, 1), "two_phase"),
    "cdc": Changes(),
    "files": Files(),
    "state": State(),
    "delta": Delta(),
}


# -- servers -------------------------------------------------------------------------------------------------------------


def postgres_url(run: Run) -> str:
    """Where the database is; with short timeouts where that is the fault, of those that the engine leaves as they are."""
    settings = ["idle_in_transaction_session_timeout%3D500", "lock_timeout%3D700", "statement_timeout%3D1500"] if run.has_short_timeouts else []
    options = "%20".join(f"-c%20{setting}" for setting in settings)
    return run.address("postgres") + (f"?options={options}" if options else "")


def make_schema(run: Run) -> None:
    run.servers.postgres.execute(f"create schema {run.name}")
    run.target = f"{run.name}.out"


def drop_schema(run: Run) -> None:
    run.servers.postgres.execute(f"drop schema {run.name} cascade")


def is_idle_in_transaction(run: Run) -> bool:
    """Whether the server waits for the next statement of a transaction."""
    sql = "select 1 from pg_stat_activity where application_name = 'millstream' and state like 'idle in transaction%'"
    return bool(run.servers.postgres.rows(sql))


def end_idle_in_transaction(run: Run) -> None:
    """End sessions as `idle_in_transaction_session_timeout` does: the sink sets it to a minute, which is too long for a run."""
    sql = "select pg_terminate_backend(pid, 2000) from pg_stat_activity where application_name = 'millstream' and state like 'idle in transaction%'"
    run.servers.postgres.rows(sql)


def postgres_left(run: Run) -> str:
    """No transaction is prepared or open, and no table of an unfinished epoch is there."""
    database = run.servers.postgres
    prepared = database.rows("select gid from pg_prepared_xacts")
    if prepared:
        for (name,) in prepared:
            database.execute(f"rollback prepared '{name}'")
        return f"prepared transactions: {prepared}"
    is_open = "select pid, state, query from pg_stat_activity where application_name = 'millstream' and state <> 'idle'"
    if wait_until(lambda: not database.rows(is_open), LEFT_SECONDS) == float("inf"):
        return f"sessions: {database.rows(is_open)}"
    tables = database.rows(f"select relname from pg_class where relnamespace = '{run.name}'::regnamespace and relname like '%stage%'")
    return f"tables: {tables}" if tables else ""


def read_objects(run: Run) -> Rows:
    """The rows of JSON or Parquet objects, without the long text."""
    bucket = run.servers.s3
    rows: Rows = []
    for key in bucket.keys(f"{run.name}/out/"):
        data = bucket.get(key)
        if key.endswith(".parquet"):
            made = pq.read_table(io.BytesIO(data)).to_pylist()
        else:
            made = [json.loads(line) for line in data.splitlines()]
        rows += [tuple(value for name, value in row.items() if name != "text") for row in made]
    return rows


def uploads_left(run: Run) -> str:
    """Uploads that are not complete: a death leaves those that had just begun."""
    if run.cell.fault == "lease":
        # What a machine has begun is noted there; if another one continues, it is left to the rules of the bucket.
        return ""
    bucket = run.servers.s3
    pending = [upload for upload in bucket.pending() if upload[0].startswith(f"{run.name}/")]
    parts = {upload: bucket.parts(*upload) for upload in pending}
    return f"uploads with parts: {parts}" if any(parts.values()) else ""


def drop_objects(run: Run) -> None:
    bucket = run.servers.s3
    for key, upload in bucket.pending():
        if key.startswith(f"{run.name}/"):
            bucket.give_up(key, upload)
    for key in bucket.keys(f"{run.name}/"):
        bucket.delete(key)


def head_of(run: Run) -> dict[str, Any]:
    """The head of the checkpoints in the store."""
    head: dict[str, Any] = json.loads(b"\n".join(run.servers.s3.get(f"{run.name}/state/MILLSTREAM").split(b"\n")[1:-2]))
    return head


def files_left(run: Run, pattern: str) -> str:
    """Files of rows or messages that wait for nothing any more."""
    found = [path.name for path in Path(run.state).rglob(pattern)]
    return f"files: {found}" if found else ""


