"""The mean of each sensor and minute, from a CSV file to a Parquet file."""

from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.connectors.files import CSVSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SCHEMA = pa.schema([("sensor", pa.string()), ("start", pa.timestamp("us")), ("mean", pa.float64())])


class ParquetPartition(StatelessSinkPartition):
    def __init__(self, path: str) -> None:
        self.writer = pq.ParquetWriter(path, SCHEMA)

    def write_batch(self, items: list) -> None:
        self.writer.write_batch(pa.RecordBatch.from_pylist(items, SCHEMA))

    def close(self) -> None:
        self.writer.close()


class ParquetSink(DynamicSink):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> ParquetPartition:
        return ParquetPartition("means.parquet")


def row(item: tuple) -> dict:
    sensor, (window, (total, count)) = item
    return {"sensor": sensor, "start": (EPOCH + window * MINUTE).replace(tzinfo=None), "mean": total / count}


flow = Dataflow("means")
lines = op.input("read", flow, CSVSource("readings.csv"))
times = op.map("parse", lines, lambda line: line | {"at": datetime.fromisoformat(line["at"] + "+00:00")})
keyed = op.key_on("key", times, lambda line: line["sensor"])
sums = win.fold_window(
    "sum",
    keyed,
    EventClock(ts_getter=lambda line: line["at"], wait_for_system_duration=timedelta(0)),
    TumblingWindower(length=MINUTE, align_to=EPOCH),
    builder=lambda: (0.0, 0),
    folder=lambda sum, line: (sum[0] + float(line["value"]), sum[1] + 1),
    merger=lambda a, b: (a[0] + b[0], a[1] + b[1]),
)
op.output("write", op.map("row", sums.down, row), ParquetSink())
run_main(flow)
