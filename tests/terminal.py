"""A terminal for tests: a process that has it, keys that are pressed, and what stands there to be read."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence

import pyte

LIMIT_S = 120.0
"""A loaded machine imports slowly."""


class Terminal:
    def __init__(self, columns: int = 160, lines: int = 40) -> None:
        self.leader, self.follower = pty.openpty()
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.read_on = threading.Event()
        self.read_on.set()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.read_on.set()
        for process in self._processes:
            process.kill()
            process.wait()
        os.close(self.follower)
        self._thread.join(LIMIT_S)
        os.close(self.leader)

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """In a session of its own, whose terminal this is."""
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        process = subprocess.Popen(
            command,
            env={**kept, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
        )
        self._processes.append(process)
        return process

    def press(self, keys: str) -> None:
        os.write(self.leader, keys.encode())

    @property
    def text(self) -> str:
        """What stands there."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def has_cursor(self) -> bool:
        return not self._screen.cursor.hidden

    def wait(self, look: Callable[[str], object]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not look(self.text):
            assert time.monotonic() < end_s, f"not in time; there stands\n{self.text}"
            time.sleep(0.02)

    def _read(self) -> None:
        try:
            while self.read_on.wait() and (part := os.read(self.leader, 4096)):
                with self._lock:
                    self._stream.feed(part)
        except OSError:
            """Nobody has it open any more."""
