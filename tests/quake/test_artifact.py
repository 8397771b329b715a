"""The compiled model: its spec, the round trip, and every file that must be refused."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import with_spec_text
from pydantic import ValidationError
from torch import nn

from quake.artifact import (
    AZIMUTH_HEAD,
    MAGNITUDE_HEAD,
    CompiledModel,
    ModelError,
    ModelSpec,
    compile_model,
    read_spec,
)
from quake.data.spectrogram import spectrogram
from quake.models import HybridViT

ROOT = Path(__file__).parents[2]
FIELDS: dict[str, Any] = {
    "name": "toy",
    "version": "1.2.3",
    "task": "detect",
    "architecture": "one convolution",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 2080,
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "gain": 1e5,
    "heads": ({"name": "event", "classes": ("noise", "earthquake")},),
    "thresholds": {"on": 0.9, "off": 0.5},
    "training_data": (),
}
DECIBEL = {"representation": "decibel", "decibels": {"floor": -180, "ceiling": -60}}
WINDOWS = np.random.default_rng(1).standard_normal((6, 3, 2080)).astype(np.float32)


def toy(classes: int = 2) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def spec(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate({**FIELDS, **changes})


@pytest.fixture(scope="module")
def content() -> bytes:
    return compile_model(toy(), spec(), spectrogram(WINDOWS))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> CompiledModel:
    path = tmp_path_factory.mktemp("models") / "toy.pt"
    path.write_bytes(content)
    return CompiledModel.load(path, "cpu")


@pytest.fixture
def model_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "toy.pt"
    path.write_bytes(content)
    return path


def changed(content: bytes, **changes: object) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        raw = json.loads(archive.read("archive/extra/quake.json"))
    return with_spec_text(content, json.dumps({**raw, **changes}))


class TestSpec:
    def test_survives_json(self) -> None:
        assert ModelSpec.model_validate_json(spec().model_dump_json()) == spec()

    def test_knows_its_shapes(self) -> None:
        assert spec().window_shape == (3, 2080)
        assert spec().input_shape == (3, 33, 64)
        assert spec().classes == ("noise", "earthquake")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"colour": "red"}, "colour"),
            ({"spec_version": 2}, "spec_version"),
            ({"version": "1.2"}, "version"),
            ({"task": "predict"}, "task"),
            ({"thresholds": {"on": 0.2, "off": 0.3}}, "off 0.3 is above on 0.2"),
            ({"thresholds": {"on": 1.2, "off": 0.3}}, "thresholds.on"),
            ({"stft": {"nperseg": 64, "hop": 32, "window": "hann", "padding": 3}}, "stft.padding"),
            ({"sampling_rate_hz": float("nan")}, "sampling_rate_hz"),
            ({"calibration": {"method": "temperature", "temperature": 0}}, "calibration.temperature"),
            ({"representation": "db"}, "representation"),
            ({"representation": "decibel"}, "representation decibel and a range in decibels do not go together"),
            ({"decibels": {"floor": -180, "ceiling": -60}}, "do not go together"),
            (DECIBEL, "decibels need samples in a unit, not zscore_component of any"),
            ({**DECIBEL, "unit": "m/s"}, "decibels need samples in a unit, not zscore_component of m/s"),
            (
                {**DECIBEL, "unit": "m/s", "normalisation": "demean", "components": ("E", "N", "Z")}
                | {"representation": "cross_decibel"},
                "cross_decibel reads Z/N/E, not E/N/Z",
            ),
            ({"components": ("Z", "Z", "E")}, "a component stands twice: Z/Z/E"),
            ({"calibration": {"temperature": 5}}, "calibration none with the temperature 5"),
            ({"decibels": {"floor": -60, "ceiling": -60}}, "ceiling -60.0 is not above floor -60.0"),
            ({"thresholds": None}, "a detector has thresholds and one head"),
            ({"heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD)}, "a detector has thresholds and one head"),
            ({"heads": (MAGNITUDE_HEAD, MAGNITUDE_HEAD), "task": "characterise"}, "a head stands twice: magnitude"),
            ({"heads": ({"name": "a", "classes": ("x", "x")},)}, "a class stands twice in a"),
            (
                {"heads": ({"name": "a", "classes": ("x", "y"), "lower_bounds": (1, 0)},)},
                "2 lower bounds for 2 classes",
            ),
            ({"heads": ({"name": "a", "classes": ("x", "y", "z"), "lower_bounds": (1, 1)},)}, "of a do not fall"),
            ({"weights_sha256": "abc"}, "weights_sha256"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            spec(**changes)

    def test_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            spec().name = "other"  # type: ignore[misc]


class TestRoundTrip:
    def test_file_holds_the_spec_and_answers_as_the_network(self, model_file: Path, content: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = CompiledModel.load(model_file, "cpu")
        network = toy().eval()
        with torch.no_grad():
            expected = torch.softmax(network(torch.from_numpy(spectrogram(WINDOWS))), 1).numpy()
        answer = model.predict(WINDOWS)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=0.01)
        np.testing.assert_array_equal(answer, model.score(model.transform(WINDOWS)))
        assert model.sha256 == hashlib.sha256(content).hexdigest()
        assert (model.path, model.device) == (model_file, "cpu")
        assert model.spec == read_spec(model_file)
        assert model.spec.built_with["torch"] == torch.__version__.split("+")[0]

    def test_hybrid_vit_survives_float16(self, tmp_path: Path) -> None:
        torch.manual_seed(2)
        network = HybridViT(depth=2, pretrained=False).eval()
        images = spectrogram(WINDOWS)
        with torch.no_grad():
            network(torch.from_numpy(images))
            expected = torch.softmax(network(torch.from_numpy(images)), 1).numpy()
        path = tmp_path / "vit.pt"
        path.write_bytes(compile_model(network, spec(), images))
        model = CompiledModel.load(path, "cpu", threads=1)
        for batch in (1, 4, 6):
            np.testing.assert_allclose(model.score(images[:batch]), expected[:batch], atol=1e-3)
        assert path.stat().st_size < 2.2 * sum(p.numel() for p in network.parameters()) + 100_000

    def test_the_given_network_is_left_as_it_was(self) -> None:
        network = toy().train()
        compile_model(network, spec(), spectrogram(WINDOWS))
        assert network.training
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}

    def test_file_names_no_path_of_this_machine(self, content: bytes) -> None:
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content

    def test_temperature_calibrates(self, tmp_path: Path, content: bytes) -> None:
        answers = []
        for temperature in (1.0, 4.0):
            path = tmp_path / f"{temperature}.pt"
            path.write_bytes(
                changed(content, calibration={"method": "temperature", "temperature": temperature}, probe=None)
            )
            answers.append(CompiledModel.load(path, "cpu").predict(WINDOWS))
        cold, warm = (np.log(answer[:, 1] / answer[:, 0]) for answer in answers)
        np.testing.assert_allclose(cold, 4 * warm, atol=1e-4)

    def test_a_network_that_does_not_fit_is_not_compiled(self) -> None:
        with pytest.raises(ModelError, match=r"toy: the network answers \[\(3,\)\] a window, .* ask for \[\(2,\)\]"):
            compile_model(toy(classes=3), spec(), spectrogram(WINDOWS))
        with pytest.raises(ModelError, match=r"example has shape \(3, 33, 10\)"):
            compile_model(toy(), spec(), spectrogram(WINDOWS)[..., :10])
        with pytest.raises(ModelError, match="one window cannot show that the batch is free"):
            compile_model(toy(), spec(), spectrogram(WINDOWS[:1]))

    def test_a_network_that_float16_breaks_is_not_compiled(self) -> None:
        network = toy()
        with torch.no_grad():
            network[0].weight *= 1e6  # type: ignore[index]  # beyond float16: infinite
        with pytest.raises(ModelError, match="compiled answers differ by nan from eager ones"):
            compile_model(network, spec(), spectrogram(WINDOWS))


class TestRefused:
    @pytest.fixture
    def refuse(self, tmp_path: Path) -> Any:
        def check(content: bytes, message: str, **options: Any) -> None:
            path = tmp_path / "bad.pt"
            path.write_bytes(content)
            with pytest.raises(ModelError, match=message) as caught:
                CompiledModel.load(path, "cpu", **options)
            assert str(path) in str(caught.value)

        return check

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"none\.pt: cannot be read: No such file"):
            CompiledModel.load(tmp_path / "none.pt")

    @pytest.mark.parametrize("share", [0.3, 0.999])
    def test_truncated(self, refuse: Any, content: bytes, share: float) -> None:
        refuse(content[: int(len(content) * share)], "not a TorchScript file, or truncated")

    def test_not_a_zip(self, refuse: Any) -> None:
        refuse(b"weights " * 1000, "neither a TorchScript nor an ONNX file, or truncated")
        refuse(b"", "neither a TorchScript nor an ONNX file")

    def test_damaged(self, refuse: Any, content: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            item = next(i for i in archive.infolist() if "/data/" in i.filename)
        at = item.header_offset + 30 + len(item.filename) + 1
        refuse(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :], "damaged: archive/data/")

    def test_no_spec(self, refuse: Any, content: bytes) -> None:
        refuse(
            with_spec_text(content, None), r"has no spec \(one member extra/quake.json was expected, 0 usable found\)"
        )

    def test_spec_not_json(self, refuse: Any, content: bytes) -> None:
        refuse(with_spec_text(content, "{"), "its spec is not JSON")

    def test_unknown_version(self, refuse: Any, content: bytes) -> None:
        refuse(changed(content, spec_version=7), r"spec version 7 is not known \(this program reads 1\)")
        refuse(with_spec_text(content, "[]"), "spec version None is not known")

    def test_unknown_key(self, refuse: Any, content: bytes) -> None:
        refuse(changed(content, colour="red"), "its spec is wrong: colour: Extra inputs")

    def test_unknown_taper_and_short_window(self, refuse: Any, content: bytes) -> None:
        refuse(changed(content, stft={"nperseg": 64, "hop": 32, "window": "hand"}), "its spec is wrong: .*window.*hand")
        refuse(changed(content, window_samples=63), "63 samples are fewer than one frame")

    def test_other_pin(self, refuse: Any, content: bytes) -> None:
        refuse(content, f"sha256 is {hashlib.sha256(content).hexdigest()}, pinned is {'0' * 64}", sha256="0" * 64)

    def test_pin_is_checked_before_anything_is_parsed(self, refuse: Any) -> None:
        refuse(b"not a zip", "pinned is", sha256="0" * 64)

    def test_other_weights(self, refuse: Any, content: bytes) -> None:
        refuse(changed(content, weights_sha256="0" * 64), "its weights have sha256 .*, the spec says 0000")
        refuse(changed(content, weights_sha256=""), "the spec says none")

    def test_components_the_network_does_not_read(self, refuse: Any, content: bytes) -> None:
        refuse(changed(content, components=["Z"]), r"the network refuses the spec's input of shape \(1, 33, 64\)")

    def test_classes_the_network_does_not_answer(self, refuse: Any, content: bytes) -> None:
        heads = [{"name": "event", "classes": ["noise", "earthquake", "blast"]}]
        refuse(
            changed(content, heads=heads, probe=None), r"answers \[\(1, 2\)\], the spec's classes ask for \[\(1, 3\)\]"
        )

    def test_zip_that_is_no_network(self, refuse: Any, content: bytes) -> None:
        text = spec(weights_sha256="0" * 64).model_dump_json()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/extra/quake.json", text)
        refuse(buffer.getvalue(), "torch cannot load it")


class TestInput:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, model: CompiledModel, value: float) -> None:
        windows = WINDOWS.copy()
        windows[4, 1, 77] = value
        with pytest.raises(ValueError, match="windows hold NaN or infinity, first in entry 4 of 6"):
            model.transform(windows)
        images = spectrogram(WINDOWS)
        images[2, 0, 0, 0] = value
        with pytest.raises(ValueError, match="spectrograms hold NaN or infinity, first in entry 2 of 6"):
            model.score(images)

    def test_too_large_to_add_up(self, model: CompiledModel) -> None:
        with pytest.raises(ValueError, match="spectrograms are beyond"):
            model.score(np.full((1, 3, 33, 64), 3e38, np.float32))

    @pytest.mark.parametrize("shape", [(3, 2080), (1, 3, 2079), (1, 2, 2080), (0, 3, 2080)])
    def test_wrong_shape(self, model: CompiledModel, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"windows must have the shape \(B, 3, 2080\)"):
            model.predict(np.zeros(shape, np.float32))

    def test_wrong_dtype(self, model: CompiledModel) -> None:
        with pytest.raises(ValueError, match="windows must be float32, not int32"):
            model.predict(np.zeros((1, 3, 2080), np.int32))  # type: ignore[arg-type]

    def test_components_in_another_order(self, model: CompiledModel) -> None:
        np.testing.assert_array_equal(model.predict(WINDOWS, "ZNE"), model.predict(WINDOWS))
        with pytest.raises(ValueError, match="windows are E/N/Z, the model reads Z/N/E"):
            model.predict(WINDOWS, ("E", "N", "Z"))

    def test_what_does_not_vary_is_as_good_as_missing(self, model: CompiledModel) -> None:
        windows = WINDOWS.copy()
        windows[:, 1] = 0
        stuck = windows.copy()
        stuck[:, 1] = 8_388_607
        np.testing.assert_array_equal(model.predict(stuck), model.predict(windows))
        assert np.isfinite(model.predict(np.zeros((1, 3, 2080), np.float32))).all()

    def test_read_only_and_reversed_memory(self, model: CompiledModel) -> None:
        images = model.transform(WINDOWS)
        images.flags.writeable = False
        np.testing.assert_allclose(model.score(images[::-1]), model.score(images)[::-1], atol=1e-6)

    def test_warm_up_takes_any_batch(self, model: CompiledModel) -> None:
        model.warm_up([1, 5])
        assert model.predict(WINDOWS[:5]).shape == (5, 2)


def test_unknown_or_absent_device(model_file: Path) -> None:
    with pytest.raises(ValueError, match="device 'tpu' is none of auto, cpu, cuda"):
        CompiledModel.load(model_file, "tpu")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda was asked for"):
            CompiledModel.load(model_file, "cuda")
        assert CompiledModel.load(model_file, "auto").device == "cpu"


def test_loading_needs_neither_timm_nor_torchvision_and_a_spec_not_even_torch(model_file: Path) -> None:
    program = f"""
import sys, warnings
warnings.simplefilter("error")
from quake.artifact import CompiledModel, read_spec
read_spec({str(model_file)!r})
assert "torch" not in sys.modules
CompiledModel.load({str(model_file)!r}, "cpu").warm_up([1])
print(sorted({{"timm", "torchvision", "models", "pandas", "h5py"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
