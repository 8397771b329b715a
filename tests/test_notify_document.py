"""docs/how-to/notify.md says what is so: every table, key, command, field and metric in it; its receiver is run."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import tomli_w
from made_alerts import alert
from notify_servers import free_port, until
from pydantic import TypeAdapter

from quake.alerts import Mode, Status
from streamer.cli import parser
from streamer.config import ConfigError
from streamer.notify.config import AnySink, NotifyConfig, load
from streamer.notify.deciding import LeftOut, Wants
from streamer.notify.metrics import FAILURES, NotifierMetrics
from streamer.notify.sink import DeferredError, Sink, Telling
from streamer.notify.webhook import REFUSALS
from streamer.notify.wording import FIELDS, TEXT, TITLE, of_alert

GUIDE = Path(__file__).parents[1] / "docs" / "how-to" / "notify.md"
GUIDE_TEXT = GUIDE.read_text()
SECRET = base64.b64encode(bytes(32)).decode()
KINDS: dict[str, type[Sink]] = {
    get_args(one.model_fields["kind"].annotation)[0]: one for one in get_args(get_args(AnySink)[0])
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE_TEXT, re.DOTALL | re.MULTILINE)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: merged(one[key], value) for key, value in other.items() if isinstance(one.get(key), dict)}
    return {**one, **other, **inner}


def rows(heading: str) -> dict[str, str]:
    """First cell -> the rest, of the table below a line that begins so."""
    table = GUIDE_TEXT.split(heading)[1].split("\n\n")[0]
    return {
        line.split("|")[1].strip(): "|".join(line.split("|")[2:])
        for line in table.splitlines()
        if line.startswith("| `")
    }


def names(cells: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cells))


@pytest.fixture(autouse=True)
def _secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the guide's first commands set them."""
    (tmp_path / "password").write_text("x\n")
    monkeypatch.setenv("QUAKE_TO__SIREN__SECRET", SECRET)
    monkeypatch.setenv("QUAKE_TO__NIGHT__PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.delenv("QUAKE_REDIS_URL", raising=False)


def read(folder: Path, content: Mapping[str, Any]) -> NotifyConfig:
    (folder / "notify.toml").write_text(tomli_w.dumps(content))
    return load(folder / "notify.toml")


def test_the_configuration_and_all_its_parts_are_read(tmp_path: Path) -> None:
    whole, *parts = map(tomllib.loads, blocks("toml"))
    assert all(block.startswith("# in notify.toml\n") for block in blocks("toml")[1:])
    assert len(parts) == 3
    for content in (whole, *(merged(whole, part) for part in parts)):
        assert set(read(tmp_path, content).to) == {"siren", "night"}
    assert read(tmp_path, merged(whole, parts[0])).to["night"].quiet is not None
    with pytest.raises(ConfigError, match="did you mean 'zone'"):
        read(tmp_path, merged(whole, {"to": {"night": {"quiet": {"zoen": "UTC"}}}}))


def test_commands_are_right(tmp_path: Path) -> None:
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    programs = [words for words in lines if words[0] == "quake-streamer"]
    assert [parser().parse_args(words[1:]).test for words in programs] == [True, False]
    variables = {words[1].partition("=")[0] for words in lines if words[0] == "export"}
    assert variables == {name for name in os.environ if name.startswith("QUAKE_TO__")}


def test_keys_of_all_sinks_are_spoken_of() -> None:
    common = rows("besides its own:\n")
    told = {name for cell in common for name in names(cell)}
    assert told == {*Wants.model_fields, *Sink.model_fields, *Telling.model_fields}
    own = rows("| `kind` | its own keys | |\n")
    assert {cell.strip("`") for cell in own} == set(KINDS)
    for cell, rest in own.items():
        assert names(rest.split("|")[0]) == set(KINDS[cell.strip("`")].model_fields) - told - {"kind"}, cell
    hearing = re.search(r"of (`webhook`.*?):", common["`heartbeat`"])
    assert hearing
    assert names(hearing[1]) == {kind for kind, one in KINDS.items() if issubclass(one, Telling)}


def test_defaults_are_right() -> None:
    cells = {name: rest.split("|")[0].strip() for name, rest in rows("besides its own:\n").items()}
    sink = TypeAdapter(AnySink).validate_python(
        {"kind": "mail", "host": "h", "sender": "a@b.c", "recipients": ["a@b.c"]}
    )
    assert tuple(Status(one) for one in json.loads(cells["`statuses`"].strip("`"))) == sink.statuses
    assert sink.mode is Mode(json.loads(cells["`mode`"].strip("`")))
    assert float(cells["`give_up_s`"]) == sink.give_up_s
    assert sink.rate is not None
    assert (sink.rate.burst, sink.rate.every_s) == (10, 60.0)  # "10 at once, then one a minute"
    defaults = {name: field.default for name, field in NotifyConfig.model_fields.items()}
    assert f"`heartbeat_s` ({defaults['heartbeat_s']:.0f} s by default" in GUIDE_TEXT


def test_fields_reasons_and_metrics_are_those_there_are() -> None:
    line = next(line for line in GUIDE_TEXT.splitlines() if line.startswith("`$headline`"))
    assert set(re.findall(r"`\$(\w+)`", line)) == set(FIELDS)
    told = rows("| metric | |\n")
    metrics = NotifierMetrics(["siren"], lambda: True, lambda: False)
    samples = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert {re.sub(r"\{.*", "", cell.strip("`")) for cell in told} == {n for n in samples if not n.endswith("_created")}
    assert names(told["`quake_notify_left_out_total{to, reason}`"]) == set(map(str, LeftOut))
    assert names(told["`quake_notify_failed_total{to, reason}`"]) - {"give_up_s"} == set(FAILURES)
    (refused,) = re.findall(r"delivered; ([\d, and]+) as refused", GUIDE_TEXT)
    assert set(map(int, re.findall(r"\d+", refused))) == REFUSALS


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", GUIDE_TEXT):
        file, _, place = link.partition("#")
        if not file.startswith("https://"):
            assert not file or (GUIDE.parent / file).is_file(), link
            headings = re.findall(r"^#+ (.*)$", GUIDE_TEXT, re.MULTILINE)
            assert not place or place in {heading.lower().replace(" ", "-") for heading in headings}, link


def test_the_receiver_takes_what_is_ours_once_and_nothing_else(tmp_path: Path) -> None:
    (code,), port = blocks("python"), free_port()
    log = tmp_path / "log"
    with log.open("wb") as out, subprocess.Popen(
        [sys.executable, "-c", code.replace("8080", str(port))],
        env={**os.environ, "SECRET": SECRET}, stdout=out, stderr=subprocess.DEVNULL,
    ) as receiver:  # fmt: skip
        try:
            keys = {"kind": "webhook", "url": f"http://127.0.0.1:{port}/"}
            sink = TypeAdapter(AnySink).validate_python({**keys, "secret": SECRET})
            forger = TypeAdapter(AnySink).validate_python({**keys, "secret": base64.b64encode(b"x" * 32).decode()})
            told, forged = (of_alert(TITLE, TEXT, alert(name, mode=Mode.EXERCISE)) for name in "ab")
            until(lambda: _sent(sink, told))
            assert not _sent(forger, forged)
            assert _sent(sink, told)
        finally:
            receiver.kill()
    assert log.read_text().splitlines() == [f"alert.open EXERCISE {told.title}"]
    (shown,) = map(json.loads, blocks("json"))
    assert (set(shown), set(shown["data"])) == (
        {"type", "timestamp", "data"},
        {"mark", "title", "text", "left_out", "alert"},
    )


def _sent(sink: Sink, notice: Any) -> bool:
    try:
        sink.send(notice, time.time_ns())
    except DeferredError:
        return False
    return True
