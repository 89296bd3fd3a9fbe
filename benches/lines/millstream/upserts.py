"""The running total of each customer, kept in a table of SQLite."""

import millstream as mill
from millstream import col

totals = mill.read_csv("orders.csv").key_by("customer").agg(total=col("amount").sum())
mill.run(totals.write_sqlite("totals.db", "totals", key="customer"), checkpoint="state")
