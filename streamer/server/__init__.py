"""A SeedLink 3 server that plays records back: for demonstrations, tests and drills.

`ReplayServer` is the part to use from Python, `quake-streamer replay` the one for the command line. It is no server for
an observatory: it keeps nothing, accepts no data, and neither authenticates nor encrypts.
"""

from .client import Sent
from .faults import Faults
from .records import Record, RecordError, read
from .ring import Numbering
from .server import Counters, Options, Server
from .threaded import ReplayServer

__all__ = [
    "Counters",
    "Faults",
    "Numbering",
    "Options",
    "Record",
    "RecordError",
    "ReplayServer",
    "Sent",
    "Server",
    "read",
]
