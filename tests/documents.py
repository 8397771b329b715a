"""The code blocks of all documents, and what it takes to run or check one.

A TOML block's first line names its file: `# quake.toml` begins it, `# in quake.toml` is a part of it, put into the page's own
or else into the least that will do. `text` blocks are what a program says, `...` standing for anything.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import tomli_w

from streamer.cli import parser as streamer_parser
from streamer.config import resolve
from trainer.cli import parser as trainer_parser
from trainer.distillation.adapter import Adapter
from trainer.quantising import QuantisationRecipe
from trainer.recipe import read_recipe, read_table

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "models/zoo/*.md")
    for path in ROOT.glob(pattern)
)
SOURCE = {"source": [{"servers": ["seedlink://127.0.0.1:18000"], "select": ["*.*"]}]}
"""The least that a configuration has."""
BLOCK = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
SAYS_S = 90.0
"""Longest time for a program to say what its page says, or to end; a loaded machine imports torch slowly."""


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    info: str
    code: str

    @property
    def title(self) -> str:
        """Of a program that stays, and of what it says."""
        found = re.fullmatch(r' title="([^"]*)"', self.info)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}: {self.code.splitlines()[0]}"


def blocks(page: str) -> list[Block]:
    """Also those within lists."""
    found = BLOCK.findall((ROOT / page).read_text("utf-8"))
    return [Block(page, language, info, dedent(code)) for _, language, info, code in found]


def of(language: str, *pages: str) -> list[Block]:
    return [block for page in pages or PAGES for block in blocks(page) if block.language == language]


def lines(code: str) -> list[str]:
    """Commands of a block."""
    joined = code.replace("\\\n", "").splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def named(block: Block) -> tuple[str, bool]:
    """The file of a TOML or Python block, and whether it is a part of it."""
    match = re.match(r"# (in )?([\w-]+\.(?:toml|py))\b", block.code)
    assert match, f"{block}: the first line names no file"
    return match[2], bool(match[1])


def whole(page: str, name: str) -> dict[str, Any]:
    """A page's own file of that name, or the least."""
    own = [block for block in of("toml", page) if named(block) == (name, False)]
    return tomllib.loads(own[0].code) if own else dict(SOURCE)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``other`` stands above; lists are not joined."""
    inner = {key: merged(one[key], value) for key, value in other.items() if isinstance(one.get(key), dict)}
    return {**one, **other, **inner}


def write_files(page: str, folder: Path) -> None:
    """Every file that a page has whole."""
    for block in of("toml", page):
        name, is_part = named(block)
        if not is_part:
            (folder / name).write_text(block.code)


def read(path: Path, changes: Sequence[str] = ()) -> None:
    """As the program reads it that it is for, which its tables tell; errors are those of the product."""
    content = tomllib.loads(path.read_text())
    if "source" in content:
        resolve(content, path)
    elif "quantisation" in content:
        read_table(path, QuantisationRecipe, changes)
    elif isinstance(content.get("network"), str):
        read_table(path, Adapter)
    else:
        read_recipe(path, changes)


def check_toml(block: Block, folder: Path) -> None:
    """It is accepted by what reads it."""
    name, is_part = named(block)
    write_files(block.page, folder)
    if is_part:
        (folder / name).write_text(tomli_w.dumps(merged(whole(block.page, name), tomllib.loads(block.code))))
    read(folder / name)


def check_command(line: str, page: str, others: Mapping[str, str]) -> None:
    """Its program exists and takes these arguments; ``others``: programs that are not ours."""
    line = re.sub(r"\$\(.*\)", "SUBSTITUTED", re.sub(r" > .*", "", line))
    words = shlex.split(line, comments=True)
    while words and (re.fullmatch(r"[A-Z_]+=\S*", words[0]) or words[0] in ("sudo", "torchrun")):
        words = words[1:] if words[0] != "torchrun" else words[words.index("-m") - 1 :]
    program, arguments = re.sub(r"^(\.venv|/opt/quake)/bin/", "", words[0]), words[1:]
    if arguments[:2] == ["-m", "trainer.cli"]:
        program, arguments = "quake-trainer", arguments[2:]
    if program == "quake-streamer":
        _parse(streamer_parser(), arguments, line)
    elif program == "quake-trainer":
        chosen = _parse(trainer_parser(), arguments, line)
        if getattr(chosen, "recipe", None) is not None:
            _read_recipe(chosen, page)
    elif program == "make":
        targets = [word for word in arguments if "=" not in word]
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in targets), line
    elif program == "pip":
        _known_extras(arguments, line)
    elif program in ("python", "python3") and "-m" in arguments:
        assert importlib.util.find_spec(arguments[arguments.index("-m") + 1]), line
    elif program in ("python", "python3") and arguments:
        assert (ROOT / arguments[0]).is_file() or arguments[0] in files(page), line
    else:
        assert program in others, f"{page}: nobody knows whether this is right: {line}"


def files(page: str) -> set[str]:
    """What a page writes."""
    return {named(block)[0] for block in (*of("toml", page), *of("python", page)) if block.code.startswith("# ")}


def _parse(parser: Any, arguments: list[str], line: str) -> Any:
    if arguments == ["--version"]:
        return None
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"wrong usage: {line}") from None


def _read_recipe(chosen: Any, page: str) -> None:
    shipped = ROOT / chosen.recipe
    name = Path(chosen.recipe).name
    assert shipped.is_file() or name in files(page), f"{page}: no such recipe: {chosen.recipe}"
    if shipped.is_file():
        read(shipped, chosen.set)


def _known_extras(arguments: Sequence[str], line: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named_extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
    assert all(extra in known for extras in named_extras for extra in extras.split(",")), line


class Session:
    """A page's blocks in a folder of their own, one after the other, as a reader types them; ports and Redis are the test's."""

    def __init__(self, page: str, folder: Path, environment: Mapping[str, str], instead: Mapping[str, str]) -> None:
        self._page, self._folder, self._instead = page, folder, instead
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, **environment, "PATH": path, "PYTHONUNBUFFERED": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._last = ""
        """What the newest command that ended has said."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def run(self, skipped: Mapping[str, str]) -> int:
        """All of them; how many commands ran. ``skipped``: those that are only checked, and what they say is not looked at."""
        count, said = 0, True
        for block in blocks(self._page):
            if block.language in ("toml", "python"):
                (self._folder / named(block)[0]).write_text(self._ours(block.code))
            elif block.language == "text" and (said or block.title):
                self._says(block)
            elif block.language == "sh":
                commands = [line for line in lines(block.code) if line not in skipped]
                said = bool(commands)
                for line in commands:
                    self._start(block.title, line) if block.title else self._finish(line)
                count += len(commands)
        self._end()
        return count

    def _ours(self, code: str) -> str:
        for theirs, own in self._instead.items():
            code = code.replace(theirs, own)
        return code

    def _finish(self, line: str) -> None:
        options: dict[str, Any] = {"cwd": self._folder, "env": self._environment, "timeout": SAYS_S}
        ended = subprocess.run(["bash", "-c", self._ours(line)], capture_output=True, text=True, check=False, **options)
        self._last = ended.stdout + ended.stderr
        assert ended.returncode == 0, f"{self._page}: {line}\n{self._last}"

    def _start(self, title: str, line: str) -> None:
        self._stop(title)
        with (self._folder / title).open("wb") as sink:
            line = re.sub(r"^(?=[A-Z_]+=)", "env ", self._ours(line))
            self._running[title] = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],  # so that a signal reaches the program
                cwd=self._folder,
                env=self._environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def _says(self, block: Block) -> None:
        """Each line is said; of a program that stays, within a while."""
        wanted = [re.escape(line).replace(r"\.\.\.", ".*") for line in block.code.splitlines()]
        end_s = time.monotonic() + SAYS_S
        while missing := [line for line in wanted if not re.search(line, self._said(block.title))]:
            alive = block.title and self._running[block.title].poll() is None and time.monotonic() < end_s
            assert alive, f"{self._page}: {missing} is not in\n{self._said(block.title)[-3000:]}\n{self._others()}"
            time.sleep(0.05)

    def _said(self, title: str) -> str:
        return (self._folder / title).read_text() if title else self._last

    def _others(self) -> str:
        sizes = ", ".join(
            f"{path.name} {path.stat().st_size}" for path in sorted(self._folder.iterdir()) if path.is_file()
        )
        return "\n".join([f"files: {sizes}", *(f"{title}: {self._said(title)[-1500:]}" for title in self._running)])

    def _stop(self, title: str) -> None:
        """As Ctrl-C does; our programs end without a fault."""
        if process := self._running.pop(title, None):
            process.send_signal(signal.SIGINT)
            code = process.wait(SAYS_S)
            assert code in (0, 130, -signal.SIGINT), f"{self._page}: {title}: {code}\n{self._said(title)[-3000:]}"

    def _end(self) -> None:
        for title in reversed(list(self._running)):
            self._stop(title)
