"""``--version`` of both programs: what a report of a fault has to name. No runtime is imported for it.

What each number promises: docs/reference/versions.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnxruntime", "numpy", "obspy", "redis")
ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"
"""The shipped models, installed beside the programs: found by path, never imported."""


class Versions(argparse.Action):
    """Prints and ends. ``more``: numbers of the program's own."""

    def __init__(self, *, more: Mapping[str, str | int] | None = None, **options: Any) -> None:
        super().__init__(**{**options, "nargs": 0, "help": "the versions of the parts that matter"})
        self._more = more or {}

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        pairs = [("quake", version("quake")), *_parts(), *self._more.items(), *_models()]
        width = max(len(name) for name, _ in pairs)
        sys.stdout.write("".join(f"{name:<{width}} {number}\n" for name, number in pairs))
        parser.exit()


def _parts() -> Iterator[tuple[str, str]]:
    from quake.alerts import SCHEMA_VERSION
    from quake.data.spec_file import SPEC_VERSION

    yield "python", platform.python_version()
    yield from ((package, _installed(package)) for package in PACKAGES)
    yield "alert schema", SCHEMA_VERSION
    yield "model spec", str(SPEC_VERSION)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _models() -> Iterator[tuple[str, str]]:
    from quake.data.spec import ModelError
    from quake.data.spec_file import read_spec

    for path in sorted(ZOO.glob("*.pt"), key=lambda path: path.stem):
        try:
            yield f"model {path.stem}", read_spec(path).version
        except ModelError as error:
            yield f"model {path.stem}", str(error)
