"""The bounded hand-over from the receiving threads to the one that reads: full means that the receivers wait.

Nothing is dropped here: a receiver that waits does not read its socket, so TCP holds the server back, and the server's
ring keeps what is to come. The buffer does not look at what it holds.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Buffer(Generic[T]):
    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._drained = threading.Condition(lock)

    def put(self, item: T) -> bool:
        """Waits for room; False when the buffer was closed, and the item is not taken."""
        with self._drained:
            while len(self._items) >= self._capacity and not self._closed:
                self._drained.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._filled.notify()
            return True

    def take(self, limit: int, timeout_s: float) -> list[T]:
        """Up to `limit` items, at once where there are any; [] after `timeout_s`, or when closed and empty."""
        with self._filled:
            self._filled.wait_for(lambda: self._items or self._closed, timeout_s)
            taken = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
            if taken:
                self._drained.notify_all()
            return taken

    def close(self) -> None:
        """Wakes everybody; what is in the buffer can still be taken."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._drained.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return len(self._items)
