"""How often each status came in each ten seconds, from a directory of logs that grow, as soon as the time has passed."""

import millstream as mill

counts = (
    mill.read_json("logs", follow=True)
    .event_time("at", watermark="5s")
    .key_by("status")
    .window(mill.tumbling("10s"))
    .agg(n=mill.count())
)
mill.run(counts.print(), checkpoint=mill.Checkpoint("state", mode="at_least_once"))
