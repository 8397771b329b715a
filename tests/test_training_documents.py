"""docs/how-to/train.md and docs/reference/recipe.md say what is so: every key, verb, mark and file that they name.

Nothing is fitted here; tables, commands and links are `test_documents.py`'s. The figures and files of a run are `tests/trainer`'s.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from documents import ROOT, of, read, write_files
from obspy import Stream, Trace, UTCDateTime
from obspy.core.event import Event, Pick, WaveformStreamID

from trainer.cli import parser as trainer_parser
from trainer.data.finding import Reason
from trainer.data.marks import Mark
from trainer.reference import reference
from trainer.section import RecipeError

PAGE = "docs/how-to/train.md"
GUIDE = ROOT / PAGE
REFERENCE = ROOT / "docs" / "reference" / "recipe.md"
RECIPES = {"my-network.toml", "student.toml"}


def test_the_reference_is_what_the_code_says() -> None:
    assert REFERENCE.read_text() == reference()  # python -m trainer.reference > docs/reference/recipe.md


def test_a_wrong_key_in_a_block_would_be_seen(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    for name in RECIPES:
        path = tmp_path / name
        path.write_text(path.read_text().replace("[network]", "[network]\ndebth = 4"))
        with pytest.raises(RecipeError, match="did you mean 'depth'"):
            read(tmp_path / name)


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


def test_files_that_are_named_are_there() -> None:
    named_files = re.findall(r"`((?:trainer|benchmarks)/[\w./-]+)`", GUIDE.read_text())
    assert len(named_files) >= 5
    assert [name for name in named_files if not (ROOT / name).exists()] == []


def test_marks_are_marks() -> None:
    lines = [line for block in of("json", PAGE) for line in block.code.splitlines()]
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
    (block,) = of("python", PAGE)
    exec(compile(block.code, str(GUIDE), "exec"), {"event": event, "stream": stream})
    assert "earthquake (3, 18000) 12000" in capsys.readouterr().out
    assert (tmp_path / "left-out.csv").read_text() == "source,trace,reason,detail\n"


def test_every_reason_for_leaving_out_is_explained() -> None:
    part = GUIDE.read_text().split("### What was left out\n")[1].split("\n#")[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row)} == set(get_args(Reason))
