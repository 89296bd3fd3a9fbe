"""The mean of each sensor and minute, from a CSV file to a Parquet file."""

import duckdb

duckdb.sql("""
    SELECT sensor, date_trunc('minute', "at") AS start, avg(value) AS mean
    FROM 'readings.csv'
    GROUP BY ALL
""").write_parquet("means.parquet")
