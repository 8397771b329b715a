"""The second model: asked in its own unit, and null with a reason wherever it may not speak."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from made_scorer import SERVERS
from numpy.typing import NDArray

from quake.artifact import export_onnx
from quake.characterisation import NO_GAIN, NOT_WHOLE
from quake.data.spec_file import read_spec
from quake.versions import ZOO
from streamer import characteriser, loading
from streamer.characteriser import FAILED, NO_ANSWER, NO_TORCH, SHIPPED, Characteriser, load_characteriser
from streamer.composition import model_path
from streamer.config import Config, ConfigError, resolve
from streamer.grid import Grid
from streamer.inventory import Gain, Stations
from streamer.stages import Window

SUBJECT = "FDSN:XX_ABC__H_H"
GRID = Grid.of(100.0, 2080, 1.0)
SPEC = read_spec(ZOO / SHIPPED)
ANSWER = np.array([0.1, 0.2, 0.3, 0.4, *[0.05] * 4, 0.6, *[0.05] * 4], np.float32)


@dataclass
class Asked:
    """A compiled model's face."""

    spec = SPEC
    answer: NDArray[np.float32] = field(default_factory=lambda: ANSWER)
    windows: list[NDArray[np.float32]] = field(default_factory=list)

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.windows.append(windows)
        return windows

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.answer[None]


KNOWN = Stations(
    {}, {}, {SUBJECT: {code: [Gain(0, None, gain)] for code, gain in zip("ZNE", (2e9, 4e9, 1e9), strict=True)}}
)


def asking(model: Asked, stations: Stations = KNOWN) -> Characteriser:
    return Characteriser(model, SPEC, stations, GRID)  # type: ignore[arg-type]


def window(components: str = "ZNE", *, complete: bool = True) -> Window:
    samples = np.full((3, 2080), 8.0, np.float32)
    return Window(SUBJECT, 1_600_000_000, samples, components, complete, 0)


def test_it_is_asked_in_its_unit_each_component_by_its_own_gain() -> None:
    model = Asked()
    said = asking(model).ask(window())
    assert said.magnitude == pytest.approx({"Large": 0.1, "Medium": 0.2, "Moderate": 0.3, "Normal": 0.4})
    assert (said.azimuth, list(said.unknown)) == (None, ["azimuth"])
    (ground,) = model.windows
    assert ground.shape == (1, 3, 2080)
    assert ground.dtype == np.float32
    np.testing.assert_allclose(ground[0, :, 0], [4.0, 2.0, 8.0])  # nm/s


@pytest.mark.parametrize(
    ("known", "of", "reason"),
    [
        (Stations({}, {}), window(), NO_GAIN),
        (KNOWN, window("Z"), NOT_WHOLE),
        (KNOWN, window(complete=False), NOT_WHOLE),
    ],
)
def test_where_it_may_not_speak_it_is_not_asked(known: Stations, of: Window, reason: str) -> None:
    model = Asked()
    said = asking(model, known).ask(of)
    assert (said.magnitude, said.unknown["magnitude"]) == (None, reason)
    assert not model.windows


class Broken(Asked):
    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")


def test_a_window_without_an_answer_costs_that_window_alone() -> None:
    model = Asked(ANSWER * np.float32("nan"))
    one = asking(model)
    said = one.ask(window())
    assert (said.magnitude, said.unknown["magnitude"]) == (None, NO_ANSWER)
    assert "better than chance" in said.unknown["azimuth"]
    model.answer = ANSWER
    assert one.ask(window()).magnitude is not None


def test_a_fault_of_it_costs_the_answer_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Broken()
    one = asking(model)
    for _ in range(3):
        said = one.ask(window())
        assert (said.magnitude, said.unknown["magnitude"]) == (None, FAILED)
    assert len(model.windows) == 1
    assert caplog.text.count("the characteriser failed") == 1


def settings(**changes: object) -> Config:
    return resolve({**SERVERS, **changes}, Path("quake.toml"))


def test_without_a_known_gain_the_model_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(characteriser, "load_compiled", never)
    one = load_characteriser(settings(), Stations({}, {}), GRID)
    assert one is not None
    assert str(one).startswith("not asked")
    assert one.ask(window()).unknown["magnitude"] == NO_GAIN


def test_a_detector_that_does_without_torch_is_not_made_to_load_it(tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    small.write_bytes(b"\x08\x07 a graph")
    one = load_characteriser(settings(model={"path": str(small)}), Stations({}, {}, given={"XX_ABC": 1e9}), GRID)
    assert one is not None
    assert str(one) == f"not asked, so alerts tell no magnitude: {NO_TORCH}"
    assert one.ask(window()).unknown["magnitude"] == NO_TORCH


def test_exports_beside_the_shipped_models_are_taken_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image without torch."""
    monkeypatch.setattr(loading, "ZOO", tmp_path)
    assert model_path(settings()) == tmp_path / "detector.pt"
    small = tmp_path / "detector.onnx"
    small.write_bytes(b"\x08\x07 a graph")
    assert model_path(settings()) == small
    exported = (tmp_path / SHIPPED).with_suffix(".onnx")
    exported.write_bytes(b"\x08\x07 a graph, too")
    taken: list[Path] = []

    def load_compiled(_: str, path: Path, **named: object) -> Asked:
        taken.append(path)
        return Asked()

    monkeypatch.setattr(characteriser, "read_spec", lambda _: SPEC)
    monkeypatch.setattr(characteriser, "load_compiled", load_compiled)
    for detector in ({}, {"path": str(small)}):
        load_characteriser(settings(model=detector), Stations({}, {}, given={"XX_ABC": 1e9}), GRID)
    assert taken == [exported, exported]


@pytest.mark.drill
def test_the_shipped_one_can_be_exported_and_asked(tmp_path: Path) -> None:
    """deploy/Dockerfile does so."""
    exported = tmp_path / "characteriser.onnx"
    exported.write_bytes(export_onnx(ZOO / SHIPPED))
    changes = {"characteriser": {"path": str(exported)}}
    one = load_characteriser(settings(**changes), Stations({}, {}, given={"XX_ABC": 1e9}), GRID)
    assert one is not None
    assert one.ask(window()).magnitude is not None


@pytest.mark.parametrize("grid", [Grid.of(50.0, 1040, 1.0), Grid.of(20.0, 416, 1.0), Grid.of(100.0, 3000, 1.0)])
def test_a_detector_that_reads_other_windows_does_without_the_shipped_one(grid: Grid) -> None:
    for stations in (Stations({}, {}), Stations({}, {}, given={"XX_ABC": 1e9})):
        one = load_characteriser(settings(), stations, grid)
        assert one is not None
        assert one.ask(window()).magnitude is None
    assert one.ask(window()).unknown["magnitude"].startswith("characteriser.pt reads")


def test_the_shipped_one_tells_loud_from_quiet() -> None:
    """Ground that moves by centimetres a second, and by micrometres."""
    one = load_characteriser(settings(), Stations({}, {}, given={"XX_ABC": 1e9}), GRID)
    assert one is not None
    assert str(one) == f"{SPEC.name} {SPEC.version}, at stations of a known gain"
    time_s = np.arange(2080) / 100
    shake = np.where(time_s > 10, np.sin(2 * np.pi * 2 * time_s), 0) * np.exp(-np.maximum(time_s - 10, 0) / 8)

    def likeliest(counts: float) -> str:
        samples = np.stack([counts * shake, counts * shake, counts * shake]).astype(np.float32)
        said = one.ask(Window(SUBJECT, 1_600_000_000, samples, "ZNE", True, 0))
        assert said.magnitude is not None
        return max(said.magnitude, key=lambda name: said.magnitude[name])  # type: ignore[index]

    assert (likeliest(1e8), likeliest(1e3)) == ("Large", "Normal")


def test_it_can_be_left_out() -> None:
    assert load_characteriser(settings(characteriser={"enabled": False}), Stations({}, {}), GRID) is None


@pytest.mark.parametrize(
    ("changes", "grid", "fault"),
    [
        ({"path": str(ZOO / "detector.pt")}, GRID, "has the heads magnitude, azimuth, not event"),
        ({"path": "/nowhere.pt"}, GRID, "/nowhere.pt: cannot be read"),
        ({"path": str(ZOO / SHIPPED)}, Grid.of(50.0, 1040, 1.0), "the detector's windows are"),
        ({"path": str(ZOO / SHIPPED), "sha256": 64 * "0"}, GRID, "sha256"),
    ],
)
def test_what_cannot_be_used_is_a_fault_of_the_configuration(
    changes: dict[str, object], grid: Grid, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_characteriser(settings(characteriser=changes), Stations({}, {}, given={"XX_ABC": 1e9}), grid)


def test_it_must_be_pinned_where_the_detector_must() -> None:
    with pytest.raises(ConfigError, match=r"characteriser\.sha256 is not given"):
        settings(model={"require_pin": True}, characteriser={"path": "mine.pt"})
