"""How the stations are, from what daemons wrote of them and operators muted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamer.mutes import Mute

QUIET_S = 60.0
"""Without a new record for this long, a station is silent."""
LATE_S = 60.0
"""Live data older than this are late."""
UNSCORED_S = 60.0
"""Data that came, and no window of them was scored for this long: they are not used."""
RECENT_S = 60.0
"""A reason is told for this long after it last applied."""
EVERYDAY = ("overlap", "phase")
"""Reasons that a server's repeats or a digitiser's clock give every day."""


def described(
    states: Iterable[Mapping[str, Any]], mutes: Mapping[str, Mute], now_s: float
) -> dict[str, dict[str, Any]]:
    """Every station of the daemons' ``states``, as the page shows it; of one that two daemons watch, the fresher."""
    stations: dict[str, dict[str, Any]] = {}
    for state in states:
        for name, told in state["stations"].items():
            one = _described(told, state, now_s)
            if name not in stations or (one["scored_s"] or 0) > (stations[name]["scored_s"] or 0):
                stations[name] = one
    for name, mute in mutes.items():
        if name in stations:
            stations[name]["muted"] = mute.model_dump(mode="json")
    return dict(sorted(stations.items()))


def _described(told: Mapping[str, Any], state: Mapping[str, Any], now_s: float) -> dict[str, Any]:
    is_live, written_ago_s = state["mode"] == "live", max(0.0, now_s - state["written_s"])
    condition = _condition(told, written_ago_s, now_s if is_live else None, state["window_s"])
    return {
        "condition": condition,
        "latency_s": round(now_s - told["newest_s"], 1) if is_live and told["newest_s"] else None,
        "quiet_s": round(told["quiet_s"] + written_ago_s, 1),
        "reasons": _reasons(told["unused"], written_ago_s),
        "unused": {reason: count for reason, (count, _) in told["unused"].items()},
        "muted": None,
        **{key: told[key] for key in ("newest_s", "scored_s", "fill", "probability", "latitude", "longitude")},
    }


def _condition(told: Mapping[str, Any], written_ago_s: float, now_s: float | None, window_s: float) -> str:
    """``now_s``: None where the data are not live, and their age says nothing."""
    if not told["newest_s"]:
        return "waiting"
    if told["connected"] is False:
        return "disconnected"
    if told["quiet_s"] + written_ago_s > QUIET_S:
        return "silent"
    if now_s is not None and now_s - told["newest_s"] > LATE_S:
        return "late"
    if told["newest_s"] - (told["scored_s"] or 0.0) > window_s + UNSCORED_S:
        return "unused" if told["scored_s"] or told["unused"] else "waiting"
    return "ok"


def _reasons(unused: Mapping[str, tuple[int, float]], written_ago_s: float) -> list[str]:
    """Why something of the station was not used lately, the newest first."""
    lately = [(ago_s, reason) for reason, (_, ago_s) in unused.items() if ago_s + written_ago_s < RECENT_S]
    return [reason for _, reason in sorted(lately) if reason not in EVERYDAY]
