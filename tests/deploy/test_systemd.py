"""The units are such that systemd takes without a word, and keep their promise of little exposure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from deployed import parsed
from documents import lines, of

from streamer.config import Config, load
from streamer.notify.config import NotifyConfig
from streamer.notify.config import load as load_notifier

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "quake-streamer.service"
EXPOSED = 2.5
"""Of ten, as systemd-analyze counts; measured 1.7 of the daemon, 1.6 of the page."""


def analyse(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing"
        pytest.skip("no systemd-analyze here")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=["quake-streamer", "quake-associator", "quake-dashboard"])
def unit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """With a program that is there: systemd looks."""
    source = FOLDER / f"{request.param}.service"
    made = tmp_path / source.name
    made.write_text(source.read_text().replace("/opt/quake/bin/quake-streamer", "/bin/true"))
    return made


def test_systemd_takes_it(unit: Path) -> None:
    ended = analyse("verify", str(unit))
    assert ended.returncode == 0
    assert unit.name not in ended.stderr


def test_it_is_exposed_to_little(unit: Path) -> None:
    ended = analyse("security", "--offline=yes", f"--threshold={EXPOSED * 10:.0f}", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", ended.stdout)
    assert found, ended.stdout + ended.stderr
    assert float(found[1]) <= EXPOSED, ended.stdout


def settings(unit: str, name: str) -> list[str]:
    """In the order in which systemd applies them."""
    return re.findall(rf"^{name}=(.*)$", (FOLDER / f"{unit}.service").read_text(), re.MULTILINE)


def test_all_of_them_run_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each listens at a port of its own, with the same configuration and what its unit says."""
    daemons, notifiers = tmp_path / "quake.toml", tmp_path / "notify.toml"
    daemons.write_text('[[source]]\nservers = ["seedlink://x"]\nselect = ["*.*"]\n')
    notifiers.write_text('[to.siren]\nkind = "webhook"\nurl = "https://siren.example.org/quake"\n')

    def port(unit: str, load: Callable[[Path], Config | NotifyConfig], path: Path) -> int:
        with monkeypatch.context() as context:
            for name, value in (line.split("=") for line in settings(unit, "Environment")):
                context.setenv(name, value)
            return load(path).metrics.port

    monkeypatch.delenv("QUAKE_METRICS__PORT", raising=False)
    monkeypatch.setenv("QUAKE_TO__SIREN__SECRET", "b" * 44)
    ports = [
        port("quake-streamer", load, daemons),
        parsed(["dashboard"]).port,
        port("quake-notify", load_notifier, notifiers),
        port("quake-associator", load, daemons),
    ]
    assert ports == [9108, 9109, 9110, 9111]
    page = " ".join((ROOT / "docs/how-to/install.md").read_text().split())
    assert (
        "port 9108, the page at 9109, the notifier's metrics at 9110 and an [associator](shards.md)'s at 9111" in page
    )


@pytest.mark.parametrize("unit", ["quake-streamer", "quake-associator"])
def test_restarts_are_seen(unit: str) -> None:
    """When the process started is exported only by one that can read /proc/stat."""
    assert settings(unit, "ProcSubset") == []
    assert settings(unit, "ProtectProc") == ["invisible"]


def test_the_clock_may_be_read() -> None:
    """By the system call that glibc's adjtimex() makes, on 64 and on 32 bits, and by the old one."""
    *_, forbidden, allowed = settings("quake-streamer", "SystemCallFilter")
    assert forbidden == "~@privileged", "@clock is among them"
    assert set(allowed.split()) == {"adjtimex", "clock_adjtime", "clock_adjtime64"}
    assert settings("quake-streamer", "ProtectClock") == []


def test_a_wrong_configuration_is_not_tried_again() -> None:
    """Exit code 2 of the program; the watchdog is fed oftener than systemd asks for."""
    from streamer.watchdog import FED_S

    text = UNIT.read_text()
    assert "RestartPreventExitStatus=2\n" in text
    assert "Type=notify\n" in text
    assert int(re.search(r"WatchdogSec=(\d+)", text)[1]) > 20 * FED_S  # type: ignore[index]


def test_the_lines_that_install_it_put_everything_where_the_unit_looks(tmp_path: Path) -> None:
    """Those that copy are run; the others need root."""
    (block,) = of("sh", "docs/how-to/install.md")
    told = lines(block.code)
    venv = next(line.split()[-1] for line in told if " -m venv " in line)
    assert f"sudo {venv}/bin/pip install -c constraints.txt '.[torch]'" in told
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    (tmp_path / "quake.toml").touch()
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    for line in (line for line in told if line.startswith("sudo install ")):
        command = line.removeprefix("sudo ").replace(" /etc/", f" {tmp_path}/etc/")
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=30)
    unit = tmp_path / "etc" / "systemd" / "system" / UNIT.name
    (program, config) = re.search(r"^ExecStart=(\S+) run (\S+)$", unit.read_text(), re.MULTILINE).groups()  # type: ignore[union-attr]
    assert program == f"{venv}/bin/quake-streamer"
    assert (tmp_path / config.lstrip("/")).is_file()
    assert f"sudo systemctl enable --now {unit.stem}" in told
