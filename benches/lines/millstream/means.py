"""The mean of each sensor and minute, from a CSV file to a Parquet file."""

import millstream as mill
from millstream import col

means = (
    mill.read_csv("readings.csv")
    .event_time("at", watermark="0s")
    .key_by("sensor")
    .window(mill.tumbling("1m"))
    .agg(mean=col("value").mean())
)
mill.run(means.select("sensor", col("window_start").alias("start"), "mean").write_parquet("means.parquet"))
