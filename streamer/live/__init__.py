"""What the daemon tells the web page, by way of Redis: states of stations, and samples while somebody looks.

`decimation` thins a channel out for the eye, `view` keeps the newest minutes of every station, `feed` takes from the
pipeline without ever waiting and writes from a thread of its own. Nothing here decides anything: without it, and without
Redis, the daemon does the same. The keys are `quake.alerts.Keys`'.
"""

from streamer.live.feed import Feed, feeding

__all__ = ["Feed", "feeding"]
