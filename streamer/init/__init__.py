"""``quake-streamer init``: a new user's first configuration, from what a SeedLink server says it has.

`program` is the verb, `asking` speaks with servers, `choosing` takes stations and sensors, `text` writes them down; the last two
are pure. Whether data flow then is `streamer.flow`'s to say.
"""
