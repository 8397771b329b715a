"""What Ray is given instead of a keeper of a real daemon."""

from __future__ import annotations

from streamer.keeper import Keeper, Plan


class EndingKeeper(Keeper):
    """Its daemon ends as soon as it is asked what it says."""

    def start(self, plan: Plan, index: int) -> str:
        return "nowhere"

    def said(self) -> tuple[list[str], int | None]:
        return [], 1
