"""Another configuration without a restart: read, checked, its model loaded and warm before anything of the old one ends.

What is wrong with it is told, and the old one stays. `Budget` says how many faults are too many.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from streamer import systemd
from streamer.composition import Watch, prepare, warm_up
from streamer.config import Config, ConfigError
from streamer.hooks import Hooks

FIXED = ("mode", "state", "metrics")
"""Of the process: the lock, the port and the streams stay as they are until it is started anew."""

log = logging.getLogger(__name__)


class Budget:
    """So many faults within so long."""

    def __init__(self, most: int, within_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._most, self._within_s, self._clock_s = most, within_s, clock_s
        self._spent: deque[float] = deque()

    @property
    def left(self) -> tuple[int, float]:
        """How many more, within how long."""
        return self._most - len(self._spent), self._within_s

    def spend(self) -> bool:
        """One more fault; False where it is one too many."""
        now_s = self._clock_s()
        while self._spent and now_s - self._spent[0] > self._within_s:
            self._spent.popleft()
        self._spent.append(now_s)
        return len(self._spent) <= self._most


class Reload:
    """At most one attempt at a time, in a thread of its own: data are decided meanwhile."""

    def __init__(self, reread: Callable[[], Config], hooks: Hooks) -> None:
        self._reread, self._hooks = reread, hooks
        self._thread: threading.Thread | None = None
        self._found: Watch | None = None

    @property
    def is_due(self) -> bool:
        """Whether another configuration waits to be taken."""
        return self._found is not None

    def take(self) -> Watch | None:
        found, self._found = self._found, None
        if found is not None:
            self._hooks.reloaded("done")
        return found

    def attempt(self, present: Watch) -> None:
        """Begin to read the configuration anew; nothing where that is under way."""
        if self._thread is None or not self._thread.is_alive():
            systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._thread = threading.Thread(target=self._attempt, args=(present,), name="reload", daemon=True)
            self._thread.start()

    def _attempt(self, present: Watch) -> None:
        try:
            self._found = self._prepared(present)
        except ConfigError as error:
            log.error("reload refused, the configuration stays as it was: %s", error)
            self._refused()
        except Exception:
            log.exception("reload failed, the configuration stays as it was")
            self._refused()

    def _refused(self) -> None:
        systemd.notify("READY=1")
        self._hooks.reloaded("refused")

    def _prepared(self, present: Watch) -> Watch:
        config = self._reread()
        changed = [key for key in FIXED if getattr(config, key) != getattr(present.config, key)]
        if changed:
            raise ConfigError(f"{' and '.join(changed)} cannot change while the daemon runs: restart it")
        watch = prepare(config, present)
        warm_up(watch, present)
        return watch
