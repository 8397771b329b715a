"""docs/how-to/train.md and docs/reference/recipe.md say what is so: every table, key, command, link and mark in them.

Nothing is fitted here. The figures and files of a run are `tests/trainer`'s.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

import numpy as np
import pytest
import tomli_w
from obspy import Stream, Trace, UTCDateTime
from obspy.core.event import Event, Pick, WaveformStreamID

from streamer.cli import parser as streamer_parser
from streamer.config import resolve
from trainer.cli import parser as trainer_parser
from trainer.data.finding import Reason
from trainer.data.marks import Mark
from trainer.distillation.adapter import Adapter
from trainer.quantising import QuantisationRecipe
from trainer.recipe import read_recipe, read_table
from trainer.reference import anchor, reference
from trainer.section import RecipeError

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "how-to" / "train.md"
REFERENCE = ROOT / "docs" / "reference" / "recipe.md"
RECIPES = {"my-network.toml", "student.toml"}


def blocks(language: str) -> list[str]:
    """Code blocks of the guide, also within lists."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [dedent(block) for block in found]


def named(block: str) -> tuple[str, bool]:
    """Its file, and whether it is a part of it: what the first line says."""
    match = re.match(r"# (in )?(\S+\.toml)\n", block)
    assert match, block
    return match[2], bool(match[1])


WHOLE: Mapping[str, str] = {named(block)[0]: block for block in blocks("toml") if not named(block)[1]}
PARTS = [block for block in blocks("toml") if named(block)[1]]


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``other`` stands above; lists are not joined."""
    inner = {key: merged(one[key], value) for key, value in other.items() if isinstance(one.get(key), dict)}
    return {**one, **other, **inner}


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line) for line in lines]


def of_trainer() -> list[list[str]]:
    """Arguments of every ``quake-trainer``, ``torchrun`` or not."""
    programs = {"quake-trainer", "trainer.cli"}
    begins = [(words, at + 1) for words in commands() for at, word in enumerate(words) if word in programs]
    return [words[begin:] for words, begin in begins]


def write(folder: Path) -> None:
    for name, block in WHOLE.items():
        (folder / name).write_text(block)


def read(path: Path, changes: list[str] | None = None) -> None:
    """As what its name says it is; errors are those of the product."""
    if path.name == "quake.toml":
        resolve(tomllib.loads(path.read_text()), path)
    elif path.name == "picker.toml":
        read_table(path, Adapter)
    elif path.name in {"int8.toml", "quantise.toml"}:
        read_table(path, QuantisationRecipe, changes or [])
    else:
        read_recipe(path, changes or [])


def test_the_reference_is_what_the_code_says() -> None:
    assert REFERENCE.read_text() == reference()  # python -m trainer.reference > docs/reference/recipe.md


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    read(tmp_path / name)


@pytest.mark.parametrize("block", PARTS)
def test_a_part_goes_into_its_file(block: str, tmp_path: Path) -> None:
    name, _ = named(block)
    assert name in RECIPES
    content = merged(tomllib.loads(WHOLE[name]), tomllib.loads(block))
    (tmp_path / name).write_text(tomli_w.dumps(content))
    read(tmp_path / name)


def test_a_wrong_key_in_a_block_would_be_seen(tmp_path: Path) -> None:
    for name in RECIPES:
        (tmp_path / name).write_text(WHOLE[name].replace("[network]", "[network]\ndebth = 4"))
        with pytest.raises(RecipeError, match="did you mean 'depth'"):
            read(tmp_path / name)


@pytest.mark.parametrize("arguments", of_trainer(), ids=" ".join)
def test_commands_of_the_trainer_are_right(arguments: list[str], tmp_path: Path) -> None:
    chosen = trainer_parser().parse_args(arguments)
    write(tmp_path)
    recipe = getattr(chosen, "recipe", None)
    if recipe is not None:
        shipped = ROOT / recipe
        read(shipped if shipped.exists() else tmp_path / recipe, chosen.set)


def test_other_commands_are_right() -> None:
    known = {"quake-trainer", "torchrun", "quake-streamer", "tensorboard"}
    assert {words[0] for words in commands()} == known
    for words in commands():
        if words[0] == "quake-streamer":
            streamer_parser().parse_args(words[1:])


def test_every_verb_and_every_option_of_evaluate_is_spoken_of() -> None:
    text = GUIDE.read_text()
    verbs = next(action.choices for action in trainer_parser()._actions if isinstance(action.choices, dict))
    assert [verb for verb in verbs if f"`{verb}`" not in text and f"quake-trainer {verb}" not in text] == []
    options = {name for action in verbs["evaluate"]._actions for name in action.option_strings}
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    spoken = {option for row in rows for option in re.findall(r"--[a-z-]+", row)}
    assert spoken == options - {"-h", "--help"}


def keys() -> set[str]:
    """Dotted, of a recipe, as the reference has them."""
    found, path = set(), ""
    for line in REFERENCE.read_text().split("## The adapter file")[0].splitlines():
        if line.startswith("#"):
            heading = re.match(r"### `\[+([\w.]+)\]+`", line)
            path = heading[1] + "." if heading else ""
        elif match := re.match(r"\| `(\w+)` \|", line):
            found.add(path + match[1])
    return found


def test_keys_that_are_named_in_sentences_are_keys() -> None:
    known = keys()
    tables = {key.split(".")[0] for key in known}
    spoken = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", re.sub(r"```.*?```", "", GUIDE.read_text(), flags=re.DOTALL)))
    dotted = {one for one in spoken if one.split(".")[0] in tables and not one.endswith((".pt", ".json", ".md"))}
    assert len(dotted) > 15
    assert dotted <= known


@pytest.mark.parametrize("document", [GUIDE, REFERENCE], ids=lambda path: path.stem)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        file, _, place = link.partition("#")
        target = document if not file else (document.parent / file).resolve()
        assert target.is_file(), link
        headings = re.findall(r"^#+ .*$", target.read_text(), re.MULTILINE)
        anchors = [anchor(heading) for heading in headings]
        assert not place or anchors.count(place) == 1, link


def test_files_that_are_named_are_there() -> None:
    named_files = re.findall(r"`((?:trainer|benchmarks)/[\w./-]+)`", GUIDE.read_text())
    assert len(named_files) >= 5
    assert [name for name in named_files if not (ROOT / name).exists()] == []


def test_marks_are_marks() -> None:
    lines = [line for block in blocks("json") for line in block.splitlines()]
    assert [Mark.model_validate_json(line).mark for line in lines] == ["earthquake", "false_alarm"]


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    start, rng = UTCDateTime(2026, 3, 1), np.random.default_rng(0)
    codes = {"network": "GE", "station": "APE", "starttime": start, "sampling_rate": 100.0}
    stream = Stream([Trace(rng.standard_normal(12000), {**codes, "channel": f"HH{one}"}) for one in "ZNE"])
    place = WaveformStreamID(network_code="GE", station_code="APE")
    event = Event(picks=[Pick(time=start + 60, phase_hint="P", waveform_id=place)])
    (code,) = blocks("python")
    exec(compile(code, str(GUIDE), "exec"), {"event": event, "stream": stream})
    assert "earthquake (3, 18000) 12000" in capsys.readouterr().out
    assert (tmp_path / "left-out.csv").read_text() == "source,trace,reason,detail\n"


def test_every_reason_for_leaving_out_is_explained() -> None:
    part = GUIDE.read_text().split("### What was left out\n")[1].split("\n#")[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row)} == set(get_args(Reason))
