"""The total of each customer, kept in a table of SQLite: computed from all orders each time."""

import sqlite3

import polars as pl
from polars import col

totals = pl.scan_csv("orders.csv").group_by("customer").agg(total=col("amount").sum()).collect()
with sqlite3.connect("totals.db") as db:
    db.execute("CREATE TABLE IF NOT EXISTS totals (customer TEXT PRIMARY KEY, total INTEGER)")
    upsert = "INSERT INTO totals VALUES (?, ?) ON CONFLICT DO UPDATE SET total = excluded.total"
    db.executemany(upsert, totals.rows())
db.close()
