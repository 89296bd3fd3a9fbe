"""The mean of each sensor and minute, from a CSV file to Parquet files. Needs the jars of the format in `jars`."""

from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

table = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
table.get_config().set("pipeline.jars", ";".join(path.absolute().as_uri() for path in Path("jars").iterdir()))
table.execute_sql("""
    CREATE TABLE readings (`at` TIMESTAMP(3), sensor STRING, `value` DOUBLE)
    WITH ('connector' = 'filesystem', 'path' = 'readings.csv', 'format' = 'csv', 'csv.ignore-parse-errors' = 'true')""")
table.execute_sql("""
    CREATE TABLE means (sensor STRING, `start` TIMESTAMP(3), mean DOUBLE)
    WITH ('connector' = 'filesystem', 'path' = 'means.parquet', 'format' = 'parquet')""")
# The line with the names of the columns is one of nulls.
table.execute_sql("""
    INSERT INTO means SELECT sensor, FLOOR(`at` TO MINUTE), avg(`value`) FROM readings
    WHERE `at` IS NOT NULL GROUP BY sensor, FLOOR(`at` TO MINUTE)""").wait()
