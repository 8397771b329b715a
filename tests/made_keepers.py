"""What Ray is given instead of a keeper of a real daemon."""

from __future__ import annotations

import time

from streamer.keeper import Plan, Said
from streamer.run_ray import Kept


class Well(Kept):
    """A daemon that is at work and says nothing."""

    def start(self, plan: Plan, index: int) -> str:
        self.plan, self.index, self.is_stopped = plan, index, False
        return "nowhere, process 1"

    def said(self) -> Said:
        time.sleep(0.1)
        return Said((), True, 0 if self.is_stopped else None)

    def stop(self) -> None:
        self.is_stopped = True


class Ending(Well):
    """It ends as soon as it is asked what it says."""

    def said(self) -> Said:
        return Said((f"shard {self.index} says this",), False, 1)


class OneEnding(Ending):
    """Of shard 0; the other one is well."""

    def said(self) -> Said:
        return Ending.said(self) if self.index == 0 else Well.said(self)


class Silent(Well):
    """The keeper of shard 0 hangs in its first life."""

    def said(self) -> Said:
        mark = self.plan.config.with_name("silent")
        if self.index == 0 and not mark.exists():
            mark.touch()
            time.sleep(600)
        return super().said()


class Slow(Well):
    """It is started, and never at work."""

    def said(self) -> Said:
        time.sleep(0.1)
        return Said((), False, 0 if self.is_stopped else None)
