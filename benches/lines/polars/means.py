"""The mean of each sensor and minute, from a CSV file to a Parquet file."""

import polars as pl
from polars import col

means = (
    pl.scan_csv("readings.csv", try_parse_dates=True)
    .group_by("sensor", col("at").dt.truncate("1m").alias("start"))
    .agg(mean=col("value").mean())
)
means.sink_parquet("means.parquet")
