"""scripts/audit: what it says of known vulnerabilities, of a service that is not there, and of an incomplete bill."""

from __future__ import annotations

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "audit"
FOUND = {
    "dependencies": [
        {"name": "numpy", "version": "2.0.0", "vulns": []},
        {"name": "redis", "version": "4.0.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["4.5.5"]}]},
        {"name": "torch", "version": "2.0.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
        {"name": "private", "skip_reason": "not on PyPI"},
    ]
}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a bill of materials that is complete."""
    loader = SourceFileLoader("audit", str(SCRIPT))
    module = module_from_spec(spec_from_loader("audit", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    monkeypatch.setattr(module, "bill_of_materials", list)
    return module


def pip_audit(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """A service that is reached, and a pip-audit that does what ``script`` says."""
    fake = folder / "pip-audit"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(audit, "unreachable", lambda: None)
    monkeypatch.setattr(audit, "tool", lambda name: str(folder / name))


def test_known_vulnerabilities_fail_and_are_named(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(FOUND))
    pip_audit(audit, monkeypatch, tmp_path, f"cat {tmp_path / 'report.json'}; exit 1")
    assert audit.main([]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == ["redis 4.0.0: PYSEC-1, mended in 4.5.5", "torch 2.0.0: PYSEC-2, mended in none yet"]


def test_nothing_known_passes(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip_audit(audit, monkeypatch, tmp_path, """echo '{"dependencies": []}'""")
    assert audit.main([]) == 0


def test_service_that_fails_half_way_is_told_as_skipped(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_audit(audit, monkeypatch, tmp_path, "echo 'connection reset' >&2; exit 1")
    assert audit.main([]) == 0
    assert capsys.readouterr().out == "vulnerabilities: skipped: connection reset\n"


def test_no_service_is_told_as_skipped(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "SERVICE", "http://127.0.0.1:1")
    assert audit.main([]) == 0
    assert "skipped: the vulnerability service is not reached" in capsys.readouterr().out


def test_dependency_that_the_bill_lacks_is_named(audit: ModuleType) -> None:
    sbom = {"components": [{"name": "NumPy", "version": "2.0"}, {"name": "redis"}]}
    project = {"project": {"dependencies": ["numpy>=2", "redis[hiredis]>=5", "prometheus_client"]}}
    told = [line.split(": ")[1].split()[0] for line in audit.missing(sbom, project)]
    assert told == ["redis", "prometheus-client"]
