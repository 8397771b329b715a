"""The rules: each fires and is silent when it should, by its own test; what they and the dashboard name is what the daemon exports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.association.metrics import AssociatorMetrics
from streamer.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FOLDER = DEPLOY / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "quake-rules.yml").read_text())
TESTS: dict[str, Any] = yaml.safe_load((FOLDER / "quake-rules.test.yml").read_text())
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "night-watch.json"
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
PANELS = {panel["title"]: panel for panel in json.loads(DASHBOARD.read_text())["panels"]}
NEVER, ALWAYS = "vector(1) > 1", 'label_replace(vector(1), "instance", "a", "", "")'


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "Debian's package prometheus is missing"
        pytest.skip("no promtool here:  apt-get install prometheus")
    command = ["promtool", *arguments]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
    )


def altered(folder: Path, alert: str, expression: str) -> str:
    """The tests that wait for the alert, with a rule that says something else."""
    rule, name = ALERTS[alert], f"{alert}.{'never' if expression is NEVER else 'always'}"
    kept, rule["expr"] = rule["expr"], expression
    (folder / f"{name}.rules.yml").write_text(yaml.safe_dump(RULES))
    rule["expr"] = kept
    its = [test for test in TESTS["tests"] if f'alertname="{alert}"' in str(test["promql_expr_test"])]
    (folder / f"{name}.yml").write_text(yaml.safe_dump({**TESTS, "rule_files": [f"{name}.rules.yml"], "tests": its}))
    return str(folder / f"{name}.yml")


def test_each_rule_has_a_test_that_fails_without_it(tmp_path: Path) -> None:
    files = [altered(tmp_path, alert, expression) for alert in ALERTS for expression in (NEVER, ALWAYS)]
    told = promtool("test", "rules", *files)
    ended = re.findall(r"Unit Testing:\s+(\S+)\s+(SUCCESS|FAILED)", told.stdout)
    assert [file for file, _ in ended] == files, told.stdout
    assert [file for file, outcome in ended if outcome == "SUCCESS"] == [], "their tests are content with any rule"


@pytest.mark.parametrize("alert", ALERTS)
def test_who_is_woken_is_told_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 100
    for title in re.findall(r'panel "([^"]+)"', rule["annotations"]["description"]):
        assert title in PANELS


def expressions() -> Iterator[str]:
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in PANELS.values():
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_metrics_that_are_named_are_exported() -> None:
    exported = set()
    registries = Metrics(max_stations=1).registry, AssociatorMetrics().registry
    for family in (family for registry in registries for family in registry.collect()):
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
        exported |= {family.name + ending for ending in endings.get(family.type, ("",))}
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    named = {name for text in expressions() for name in re.findall(r"\b(?:quake|process)[_:][a-z0-9_:]+", text)}
    assert len(named) > 20
    assert named <= exported | recorded


def test_daemons_that_do_not_answer_are_one_tile(tmp_path: Path) -> None:
    """Another label would be another series, and its last value would stand beside for the three hours that are shown."""
    (target,) = PANELS["Daemons that do not answer"]["targets"]
    shown = [(0, 1), (5, 0), (10, 1)]  # nobody looks for one yet; it answers; it does not
    test = {
        "interval": "1m",
        "input_series": [{"series": 'up{job="quake", instance="a"}', "values": "_x4 1x4 0x4"}],
        "promql_expr_test": [
            {"expr": target["expr"], "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": value}]}
            for at, value in shown
        ],
    }
    (tmp_path / "tile.yml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    told = promtool("test", "rules", str(tmp_path / "tile.yml"))
    assert told.returncode == 0, told.stdout


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS.values()]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in PANELS.values()]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
