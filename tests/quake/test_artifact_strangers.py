"""Model files of strangers: mutated within valid zips, and ones that end, hang or fill the process that opens them."""

from __future__ import annotations

import io
import random
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_artifact import WINDOWS, spec, toy

from quake import trial
from quake.artifact import CompiledModel, ModelError, compile_model
from quake.data.spectrogram import spectrogram

CODE = re.compile(r"/container(/___torch_mangle_\d+)?\.py$")
"""Of the network, which torch names otherwise once the process has made others."""


@pytest.fixture(scope="module")
def content() -> bytes:
    return compile_model(toy(), spec(), spectrogram(WINDOWS))


def remade(content: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The zip with other members, and their right checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return out.getvalue()


def with_code(content: bytes, old: bytes, new: bytes) -> bytes:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(old, new, 1) if CODE.search(name) else data

    made = remade(content, change)
    assert made != remade(content, lambda _, data: data)
    return made


def deep(content: bytes) -> bytes:
    """torch's parser calls itself for each bracket."""
    return with_code(content, b"    return", b"    x = " + b"(" * 200_000 + b"1" + b")" * 200_000 + b"\n    return")


def endless(content: bytes) -> bytes:
    return with_code(content, b"    return", b"    while True:\n      _7 = torch.add_(_6, 1.)\n    return")


def greedy(content: bytes) -> bytes:
    """6 GB."""
    more = b"return torch.add(_6, torch.sum(torch.ones([1500000000])))"
    return with_code(content, b"return _6", more)


class TestTrial:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "stranger.pt"

    def test_one_that_ends_the_process_ends_the_childs(self, file: Path, content: bytes) -> None:
        file.write_bytes(deep(content))
        with pytest.raises(ModelError, match=r"stranger\.pt: ended the process that opened it on trial \(SIG"):
            CompiledModel.load(file, "cpu", trial=True)

    def test_one_that_never_answers_is_given_up(
        self, file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trial, "TRIAL_S", 3.0)
        file.write_bytes(endless(content))
        begin_s = time.monotonic()
        with pytest.raises(ModelError, match="not opened within 3 s on trial"):
            CompiledModel.load(file, "cpu", trial=True)
        assert time.monotonic() - begin_s < 60

    def test_one_that_fills_memory_is_refused(self, file: Path, content: bytes) -> None:
        file.write_bytes(greedy(content))
        with pytest.raises(ModelError, match="the network refuses the spec's input"):
            CompiledModel.load(file, "cpu", trial=True)

    def test_a_good_one_is_loaded(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        assert CompiledModel.load(file, "cpu", trial=True).predict(WINDOWS).shape == (6, 2)

    def test_a_pinned_one_is_not_tried(self, file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        file.write_bytes(content)
        pin = CompiledModel.load(file, "cpu").sha256
        monkeypatch.setattr(trial.subprocess, "Popen", None)
        assert CompiledModel.load(file, "cpu", sha256=pin, trial=True).sha256 == pin


@pytest.mark.parametrize("seeds", [range(25), pytest.param(range(25, 400), marks=pytest.mark.drill)])
def test_mutated_members_are_refused_or_still_a_network(tmp_path: Path, content: bytes, seeds: range) -> None:
    """With right checksums: torch sees every one."""
    file, accepted = tmp_path / "mutated.pt", 0
    for seed in seeds:
        file.write_bytes(mutated(content, random.Random(seed)))
        try:
            accepted += CompiledModel.load(file, "cpu").device == "cpu"
        except ModelError:
            continue
    assert accepted < len(seeds)


def mutated(content: bytes, chance: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [item.filename for item in archive.infolist() if item.file_size and "quake.json" not in item.filename]
    chosen = chance.sample(names, chance.choice([1, 1, 2, 4]))

    def change(name: str, data: bytes) -> bytes:
        at = chance.randrange(len(data) or 1)
        if name not in chosen:
            return data
        come = chance.choice([chance.randbytes(1), b"\xff" * 4, bytes(4), data[at : at + 40], b"\x80\x02"])
        return data[:at] + come + data[at + chance.choice([0, len(come), 1_000_000]) :]

    return remade(content, change)


class TestStructure:
    """Refused before torch sees a byte."""

    @pytest.fixture
    def refuse(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, str], None]:
        def check(content: bytes, message: str) -> None:
            path = tmp_path / "bad.pt"
            path.write_bytes(content)
            monkeypatch.setattr("quake.artifact.importer", None)
            with pytest.raises(ModelError, match=message):
                CompiledModel.load(path, "cpu")

        return check

    def test_a_zip_bomb(self, refuse: Callable[[bytes, str], None], content: bytes) -> None:
        bomb = remade(content, lambda name, data: bytes(200 << 20) if name.endswith("data/0") else data, 8)
        assert len(bomb) < 1 << 20
        begin_s = time.monotonic()
        refuse(bomb, "not a TorchScript file: 23 members of 2097")
        assert time.monotonic() - begin_s < 1

    def test_broken_compression(self, refuse: Callable[[bytes, str], None], content: bytes) -> None:
        packed = bytearray(remade(content, lambda _, data: data, zipfile.ZIP_DEFLATED))
        (at,) = (item.header_offset for item in zipfile.ZipFile(io.BytesIO(packed)).infolist()[:1])
        name, extra = struct.unpack_from("<HH", packed, at + 26)
        packed[at + 30 + name + extra] = 0xFF
        refuse(bytes(packed), "not a TorchScript file, or truncated")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ('{"a":' + "[" * 100_000, "its spec is not JSON"),
            ("window_samples", "window_samples: Input should be less than or equal to"),
            ("image", "its spec is wrong: a window makes 50331648 pixels; 10000000 are the most"),
        ],
    )
    def test_a_spec_that_would_fill_memory(
        self, refuse: Callable[[bytes, str], None], content: bytes, changes: str, message: str
    ) -> None:
        made = spec(image={"height": 4096, "width": 4096}).model_dump_json()
        text = {
            "window_samples": spec().model_dump_json().replace('"window_samples":2080', '"window_samples":9000000000'),
            "image": made,
        }.get(changes, changes)
        refuse(remade(content, lambda name, data: text.encode() if "quake.json" in name else data), message)
