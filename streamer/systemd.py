"""What systemd wants to know of a ``Type=notify`` service: a datagram to the socket it names. Nothing elsewhere."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """``READY=1``, ``RELOADING=1``, ``STOPPING=1`` or ``WATCHDOG=1``, as in sd_notify(3); a failure is nobody's business."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
