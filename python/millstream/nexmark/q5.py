"""Query 5: which auctions have had the most bids of the last ten seconds, every two seconds.

Sliding windows count the bids of each auction. The greatest count of each window is joined with the counts, so that all
auctions that share it are in the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col, count
from millstream.window import sliding, tumbling

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the auctions with the most bids, sliding 10 s by 2 s"
SQL = """
WITH windows AS (
    SELECT auction, count(*) AS num, time_bucket(INTERVAL 2 SECOND, date_time) - to_seconds(2 * step) AS starttime
    FROM bid, range(5) AS steps(step)
    GROUP BY ALL
)
SELECT auction, num, starttime, starttime + INTERVAL 10 SECOND AS endtime
FROM windows
QUALIFY num = max(num) OVER (PARTITION BY starttime)
"""


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``num``, ``starttime`` and ``endtime`` of the hot auctions of each window."""
    counts = events.bids.key_by("auction").window(sliding("10s", slide="2s")).agg(num=count())
    # The rows of a window have its last moment as their time, so two seconds hold those of one window.
    step = tumbling("2s")
    most = counts.window_all(step).agg(most=col("num").max()).select("most", "window_end")
    counts = counts.rename({"window_start": "starttime", "window_end": "endtime"})
    both = counts.join(most.rename({"window_end": "step_end"}), left_on="endtime", right_on="step_end", window=step)
    return both.filter(col("num") >= col("most")).select("auction", "num", "starttime", "endtime")
