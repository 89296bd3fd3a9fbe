"""The running total of each customer, kept in a table of SQLite."""

import sqlite3
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.files import CSVSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

UPSERT = "INSERT INTO totals VALUES (?, ?) ON CONFLICT DO UPDATE SET total = excluded.total"


class Totals(StatefulSinkPartition):
    def __init__(self) -> None:
        self.db = sqlite3.connect("totals.db")
        self.db.execute("CREATE TABLE IF NOT EXISTS totals (customer TEXT PRIMARY KEY, total INTEGER)")

    def write_batch(self, values: list) -> None:
        with self.db:
            self.db.executemany(UPSERT, values)

    def snapshot(self) -> None:
        return None

    def close(self) -> None:
        self.db.close()


class TotalsSink(FixedPartitionedSink):
    def list_parts(self) -> list:
        return ["totals"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Totals:
        return Totals()


flow = Dataflow("upserts")
lines = op.input("read", flow, CSVSource("orders.csv"))
keyed = op.map("key", lines, lambda line: (line["customer"], int(line["amount"])))
totals = op.stateful_map("total", keyed, lambda total, amount: ((total or 0) + amount,) * 2)
op.output("write", op.map("row", totals, lambda item: ("totals", item)), TotalsSink())
Path("state").mkdir(exist_ok=True)
if not any(Path("state").iterdir()):
    init_db_dir("state", 1)
run_main(flow, recovery_config=RecoveryConfig("state"))
