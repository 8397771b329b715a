"""What is said on standard error, and in which form: of this process, and of those that it starts."""

from __future__ import annotations

import json
import logging
import threading
import time
from logging.handlers import QueueHandler
from queue import SimpleQueue


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(level: str, as_json: bool) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    handler.setFormatter(JsonLines() if as_json else plain)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.Formatter.converter = time.gmtime
    for name in ("obspy", "seedlink_client", "matplotlib"):  # their news of each connection is not ours
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = lambda fault: logging.critical(
        "thread %s ended by a fault", fault.thread, exc_info=fault.exc_value
    )


def as_here() -> tuple[str, bool]:
    """What `set_up` is to be given in another process."""
    root = logging.getLogger()
    return logging.getLevelName(root.level), any(isinstance(handler.formatter, JsonLines) for handler in root.handlers)


def collected(level: str) -> SimpleQueue[logging.LogRecord]:
    """As `set_up`, in a process on another machine: what it says comes to lie here, for its parent to say."""
    said = SimpleQueue[logging.LogRecord]()
    set_up(level, as_json=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[QueueHandler(said)], force=True)
    return said
