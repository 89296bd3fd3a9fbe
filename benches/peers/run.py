"""The same jobs on Millstream and on others, each in an environment of its own, checked and then timed in turns.

    python benches/peers/run.py [--jobs a,b] [--peers x,y] [--runs 3] [--rows 10000000] [--threads 2]
                                [--markdown] [--json FILE] [--svg FILE]

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# Beside this file there is a `polars.py`; what is imported here is to be Polars.
sys.path[0] = str(HERE / "harness")

import data  # noqa: E402
import report  # noqa: E402
from contest import ROWS_DEFAULT, Contest  # noqa: E402
from environment import CannotInstall, cache, environment  # noqa: E402
from jobs import JOBS  # noqa: E402
from worker import Failed, Worker  # noqa: E402

PEERS = ("millstream", "loop", "timely", "duckdb", "polars", "flink", "pathway", "bytewax", "laminardb")


def names(known: tuple[str, ...]) -> type:
    """Give what reads a list of names with commas."""

    def read(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return found

    return read  # type: ignore[return-value]


def tell(text: str) -> None:
    """Say how far it is."""
    print(text, file=sys.stderr, flush=True)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    peers = tuple(peer for peer in PEERS if (HERE / f"{peer}.py").exists())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=names(tuple(JOBS)), default=list(JOBS), help=f"of {', '.join(JOBS)}")
    parser.add_argument("--peers", type=names(peers), default=list(peers), help=f"of {', '.join(peers)}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=ROWS_DEFAULT, help="of the records; slow peers get fewer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--here", type=names(peers), default=[], help="peers that are installed for this Python, and need no environment")
    parser.add_argument("--log", type=Path, help="a file for what the peers print")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    return parser.parse_args()


def main() -> None:
    """Make environments and records, run the jobs, say what came of it."""
    arguments = read_arguments()
    folder = cache() / "records" / str(arguments.rows)
    data.make(folder, arguments.rows)
    workers: list[Worker] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        log = arguments.log or Path(scratch) / "log"
        for peer in arguments.peers:
            try:
                worker = Worker(peer, environment(peer, peer in arguments.here, tell), arguments.threads, log)
            except CannotInstall as reason:
                failed[peer] = str(reason)
                worker = Worker(peer, environment("millstream", True, tell), arguments.threads, log)
            workers.append(worker)
            try:
                if peer not in failed:
                    worker.start()
            except Failed as reason:
                failed[peer] = str(reason)
        contest = Contest(folder, Path(scratch), arguments.rows, arguments.threads, arguments.runs, tell)
        rows = []
        try:
            for job in (JOBS[name] for name in arguments.jobs):
                tell(f"{job.name}: {job.about}")
                rows.append((job, contest.run(job, workers, failed)))
        except KeyboardInterrupt:
            if not rows:
                raise
            tell("stopped: these are the jobs that are done")
        finally:
            for worker in workers:
                worker.close()
    found = report.facts(contest, {worker.name: worker.hello.get("versions", {}) for worker in workers})
    print(report.as_markdown(found, rows) if arguments.markdown else report.as_text(found, rows))
    if arguments.json:
        arguments.json.write_text(report.as_json(found, rows), encoding="utf-8")
    if arguments.svg:
        arguments.svg.write_text(report.as_chart(found, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
