"""The total of each customer, kept in a table of SQLite: computed from all orders each time."""

import sqlite3

import duckdb

totals = duckdb.sql("SELECT customer, sum(amount)::BIGINT FROM 'orders.csv' GROUP BY customer").fetchall()
with sqlite3.connect("totals.db") as db:
    db.execute("CREATE TABLE IF NOT EXISTS totals (customer TEXT PRIMARY KEY, total INTEGER)")
    upsert = "INSERT INTO totals VALUES (?, ?) ON CONFLICT DO UPDATE SET total = excluded.total"
    db.executemany(upsert, totals)
db.close()
