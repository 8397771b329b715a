"""Debian's Chromium, headless, and the page's program as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium")
# No sandbox: tests run as root in containers. The others keep it from asking the network for anything.
OPTIONS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "chromium is missing"
        pytest.skip("no chromium to look with:  apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


class Dashboard:
    """``quake-streamer dashboard``; may be killed and started again on the same port."""

    def __init__(self, *arguments: str) -> None:
        self._arguments, self.address, self._port = arguments, "", "0"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streamer", "dashboard", "--port", self._port, *self._arguments]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        self.address = line.rpartition("page at ")[2].strip()
        assert self.address, line
        self._port = self.address.rstrip("/").rpartition(":")[2]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
