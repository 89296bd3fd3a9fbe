"""Python functions at every height: a column, a record, a batch; and what becomes of a record that fails.

    python examples/functions.py
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import millstream as mill
from millstream import col

READINGS = [
    {"sensor": "attic", "celsius": "21.5"},
    {"sensor": "cellar", "celsius": "9"},
    {"sensor": "garden", "celsius": "broken"},
    {"sensor": "attic", "celsius": "22.25"},
]


@mill.udf(returns=float)
def to_fahrenheit(celsius: float) -> float:
    """Work on one value; called from inside an expression."""
    return celsius * 9 / 5 + 32


def parse(row: Any) -> dict[str, Any]:
    """Work on one record; raises where the text is no number."""
    return {"sensor": row.sensor, "celsius": float(row.celsius)}


def round_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Work on a whole batch of Arrow columns."""
    rounded = pc.round(batch.column("fahrenheit"), 1)  # pyright: ignore[reportAttributeAccessIssue]
    return batch.set_column(batch.schema.get_field_index("fahrenheit"), "fahrenheit", rounded)


def main() -> None:
    parsed = mill.from_iter(READINGS).map(parse, schema={"sensor": str, "celsius": float})
    warm = (
        parsed.with_columns(fahrenheit=to_fahrenheit(col("celsius")))
        .map_batches(round_batch, schema={"sensor": str, "celsius": float, "fahrenheit": float})
        .filter(lambda row: row.celsius > 10)
    )
    mill.run(warm.print(), warm.all_errors.for_each(lambda row: print("failed:", row.error, row.record)), on_error="route")


if __name__ == "__main__":
    main()
