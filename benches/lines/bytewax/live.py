"""How often each status came in each ten seconds, from a directory of logs that grow, as soon as the time has passed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators.windowing import EventClock, TumblingWindower
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LENGTH = timedelta(seconds=10)
LATE = timedelta(seconds=5)
PAUSE = timedelta(milliseconds=200)


class Logs(StatefulSourcePartition):
    """All files of a directory, each read on from where it was."""

    def __init__(self, read: dict) -> None:
        self.read = read
        self.awake = None

    def next_batch(self) -> list:
        items = []
        for path in sorted(Path("logs").glob("*.json")):
            with path.open("rb") as file:
                file.seek(self.read.get(path.name, 0))
                complete = file.read().rpartition(b"\n")[0]
            if complete:
                self.read[path.name] = self.read.get(path.name, 0) + len(complete) + 1
                items += [json.loads(line) for line in complete.splitlines()]
        if not items:
            self.awake = datetime.now(UTC) + PAUSE
        return items

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> dict:
        return dict(self.read)


class LogSource(FixedPartitionedSource):
    def list_parts(self) -> list:
        return ["logs"]

    def build_part(self, step_id: str, for_part: str, resume_state: dict | None) -> Logs:
        return Logs(resume_state or {})


flow = Dataflow("live")
lines = op.input("read", flow, LogSource())
counts = win.count_window(
    "count",
    lines,
    EventClock(ts_getter=lambda line: datetime.fromisoformat(line["at"] + "+00:00"), wait_for_system_duration=LATE),
    TumblingWindower(length=LENGTH, align_to=EPOCH),
    key=lambda line: str(line["status"]),
)
texts = op.map("text", counts.down, lambda item: f"{EPOCH + item[1][0] * LENGTH:%H:%M:%S} status={item[0]} n={item[1][1]}")
op.output("print", texts, StdOutSink())
Path("state").mkdir(exist_ok=True)
if not any(Path("state").iterdir()):
    init_db_dir("state", 1)
run_main(flow, recovery_config=RecoveryConfig("state"))
