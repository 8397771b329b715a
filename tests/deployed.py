"""What deploy/ says of the image and of what runs in it, as tests of deploy/ ask for it."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from streamer import cli
from streamer.config import MetricsConfig

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
PORT = MetricsConfig().port
SECRETS = "/run/secrets"


def instructions() -> dict[str, list[tuple[str, str]]]:
    """Of the Dockerfile's stages, by name, with those of the stages that they begin with."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, rest in re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE):
        if word == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = list(stages.get(base, []))
        stages[name].append((word, rest))
    return stages


IMAGE = instructions()["cpu"]
VARIABLES = dict(pair.split("=", 1) for word, rest in IMAGE if word == "ENV" for pair in rest.split())
COMMAND = next(json.loads(rest) for word, rest in IMAGE if word == "CMD")


def parsed(arguments: list[str]) -> argparse.Namespace:
    try:
        return cli.parser().parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"wrong usage: {arguments}") from None


def secret(folder: Path, name: str) -> str:
    return (folder / name).read_text().rstrip("\n")
