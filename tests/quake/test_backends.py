"""The same network on torch and on ONNX Runtime, and boxes that have only the latter."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from quake.alerts import Alert, Kind, Status
from quake.artifact import (
    AZIMUTH_HEAD,
    MAGNITUDE_HEAD,
    CompiledModel,
    ModelError,
    ModelSpec,
    compile_model,
    export_onnx,
    read_spec,
)
from quake.data.onnx_metadata import append_metadata, find_metadata, without

ROOT = Path(__file__).parents[2]
DETECTOR = ROOT / "models" / "zoo" / "detector.pt"
HOP_NS = 1_000_000_000
WINDOWS = np.random.default_rng(3).standard_normal((5, 3, 2080)).astype(np.float32)
CHARACTERISER: dict[str, Any] = {
    "name": "toy-characteriser",
    "version": "0.1.0",
    "task": "characterise",
    "architecture": "one convolution, two heads",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 2080,
    "unit": "m/s",
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "normalisation": "demean",
    "representation": "cross_decibel",
    "decibels": {"floor": -180.0, "ceiling": 20.0},
    "image": {"height": 64, "width": 48},
    "heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD),
    "training_data": (),
}


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Conv2d(3, 8, 5, stride=4)
        self.magnitude = nn.Linear(8, 4)
        self.azimuth = nn.Linear(8, 9)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = torch.relu(self.first(images)).mean((2, 3))
        return self.magnitude(pooled), self.azimuth(pooled)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped detector for ONNX Runtime, and a characteriser for both."""
    where = tmp_path_factory.mktemp("both")
    (where / "detector.onnx").write_bytes(export_onnx(DETECTOR))
    spec = ModelSpec.model_validate(CHARACTERISER)
    images = np.random.default_rng(5).uniform(-1, 1, (4, *spec.input_shape)).astype(np.float32)
    (where / "characteriser.pt").write_bytes(compile_model(TwoHeads(), spec, images))
    (where / "characteriser.onnx").write_bytes(export_onnx(where / "characteriser.pt"))
    return where


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_shipped_detector_answers_alike(folder: Path, batch: int) -> None:
    windows = np.resize(WINDOWS, (batch, 3, 2080))
    torch_model, onnx_model = CompiledModel.load(DETECTOR, "cpu"), CompiledModel.load(folder / "detector.onnx", "cpu")
    np.testing.assert_allclose(onnx_model.predict(windows), torch_model.predict(windows), atol=1e-4)
    np.testing.assert_array_equal(onnx_model.transform(windows), torch_model.transform(windows))


def test_spec_travels_with_the_network(folder: Path) -> None:
    ours, theirs = read_spec(DETECTOR), read_spec(folder / "detector.onnx")
    assert ours.weights_sha256 != theirs.weights_sha256
    assert ours.probe is not None
    assert theirs.probe is not None
    np.testing.assert_allclose(theirs.probe.answers, ours.probe.answers, atol=1e-4)
    assert theirs.model_copy(update={"weights_sha256": ours.weights_sha256, "probe": ours.probe}) == ours


def test_two_heads_are_told_apart(folder: Path) -> None:
    windows = 1e-6 * WINDOWS
    answers = [CompiledModel.load(folder / f"characteriser.{end}", "cpu").predict(windows) for end in ("pt", "onnx")]
    spec = read_spec(folder / "characteriser.pt")
    assert answers[0].shape == (5, 13)
    np.testing.assert_allclose(*answers, atol=1e-4)
    heads = spec.by_head(answers[0])
    assert {name: part.shape for name, part in heads.items()} == {"magnitude": (5, 4), "azimuth": (5, 9)}
    for part in heads.values():
        np.testing.assert_allclose(part.sum(axis=1), 1, atol=1e-6)
    network = TwoHeads().eval()
    images = CompiledModel.load(folder / "characteriser.pt", "cpu").transform(windows)
    with torch.no_grad():
        magnitude, azimuth = (torch.softmax(logits, 1).numpy() for logits in network(torch.from_numpy(images)))
    np.testing.assert_allclose(heads["magnitude"], magnitude, atol=1e-3)
    np.testing.assert_allclose(heads["azimuth"], azimuth, atol=1e-3)


def test_heads_in_another_order_are_not_compiled() -> None:
    spec = ModelSpec.model_validate({**CHARACTERISER, "heads": (AZIMUTH_HEAD, MAGNITUDE_HEAD)})
    images = np.zeros((2, *spec.input_shape), np.float32)
    with pytest.raises(
        ModelError, match=r"answers \[\(4,\), \(9,\)\] a window, the spec's heads ask for \[\(9,\), \(4,\)\]"
    ):
        compile_model(TwoHeads(), spec, images)


class TestNotCompiled:
    """Networks whose file would answer otherwise than they do."""

    SPEC = ModelSpec.model_validate(CHARACTERISER)
    IMAGES = np.random.default_rng(8).uniform(-1, 1, (4, *SPEC.input_shape)).astype(np.float32)

    def refuse(self, network: nn.Module, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            compile_model(network, self.SPEC, self.IMAGES)

    def test_a_decision_that_tracing_would_freeze(self) -> None:
        class Decides(TwoHeads):
            def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return super().forward(images if float(images.max()) < 1.5 else -images)

        self.refuse(Decides(), "toy-characteriser: cannot be traced, method='script' may do: Converting a tensor")

    def test_a_batch_that_is_not_free(self) -> None:
        class Fours(TwoHeads):
            def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return super().forward(images.reshape(4, 3, 64, 48))

        self.refuse(Fours(), "the batch is not free")

    def test_an_answer_that_is_no_row_of_tensors(self) -> None:
        class Names(TwoHeads):
            def forward(self, images: torch.Tensor) -> Any:
                return dict(zip(("magnitude", "azimuth"), super().forward(images), strict=True))

        self.refuse(Names(), "the answer is a dict, not a tensor or a tuple of tensors")
        self.refuse(nn.Conv2d(5, 4, 3), r"does not answer images of shape \(4, 3, 64, 48\)")

    def test_wrong_examples_and_methods(self) -> None:
        with pytest.raises(ModelError, match="the example must be a float32 array of NumPy"):
            compile_model(TwoHeads(), self.SPEC, self.IMAGES.astype(np.float64))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="method 'Script' is none of trace, script"):
            compile_model(TwoHeads(), self.SPEC, self.IMAGES, "Script")  # type: ignore[arg-type]

    def test_a_head_called_as_the_input_is(self, tmp_path: Path) -> None:
        heads = (MAGNITUDE_HEAD.model_copy(update={"name": "spectrograms"}), AZIMUTH_HEAD)
        path = tmp_path / "named.pt"
        spec = ModelSpec.model_validate({**CHARACTERISER, "heads": heads})
        path.write_bytes(compile_model(TwoHeads(), spec, self.IMAGES))
        with pytest.raises(ModelError, match="a head cannot be called as the input is: spectrograms"):
            export_onnx(path)


def test_cuda_that_the_package_has_and_the_machine_lacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back to the CPU without a word; the device is what it really took."""
    monkeypatch.setattr("quake.backends.onnx._providers", lambda device: ["CPUExecutionProvider"])
    assert CompiledModel.load(folder / "detector.onnx", "auto").device == "cpu"
    with pytest.raises(ValueError, match="ONNX Runtime finds none"):
        CompiledModel.load(folder / "detector.onnx", "cuda")


def test_backend_goes_by_the_file_and_another_one_is_refused(folder: Path) -> None:
    assert CompiledModel.load(folder / "detector.onnx", "cpu", "onnxruntime").device == "cpu"
    with pytest.raises(ValueError, match="is for onnxruntime, not for torchscript"):
        CompiledModel.load(folder / "detector.onnx", "cpu", "torchscript")
    with pytest.raises(ValueError, match="is for torchscript, not for onnxruntime"):
        CompiledModel.load(DETECTOR, "cpu", "onnxruntime")
    with pytest.raises(ValueError, match="backend 'tensorrt' is none of torchscript, onnxruntime"):
        CompiledModel.load(DETECTOR, "cpu", "tensorrt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ONNX Runtime finds none"):
        CompiledModel.load(folder / "detector.onnx", "cuda")


def test_script_and_trace_answer_alike(tmp_path: Path) -> None:
    spec = ModelSpec.model_validate(CHARACTERISER)
    images = np.random.default_rng(6).uniform(-1, 1, (3, *spec.input_shape)).astype(np.float32)
    answers = []
    for method in ("trace", "script"):
        path = tmp_path / f"{method}.pt"
        path.write_bytes(compile_model(TwoHeads(), spec, images, method))  # type: ignore[arg-type]
        model = CompiledModel.load(path, "cpu")
        assert model.spec.compilation is not None
        assert model.spec.compilation.method == method
        assert 0 < model.spec.compilation.difference_real < 1e-3
        assert 0 < model.spec.compilation.difference_random < 1e-3
        answers.append(model.score(images))
    np.testing.assert_allclose(*answers, atol=1e-6)


class TestRefused:
    @pytest.fixture
    def refuse(self, tmp_path: Path) -> Any:
        def check(content: bytes, message: str) -> None:
            path = tmp_path / "bad.onnx"
            path.write_bytes(content)
            with pytest.raises(ModelError, match=message) as caught:
                CompiledModel.load(path, "cpu")
            assert str(path) in str(caught.value)

        return check

    @pytest.fixture
    def content(self, folder: Path) -> bytes:
        return (folder / "characteriser.onnx").read_bytes()

    def with_spec(self, content: bytes, spec: ModelSpec) -> bytes:
        (entry,) = find_metadata(content, "quake.json")
        return append_metadata(without(content, entry), "quake.json", spec.model_dump_json().encode())

    def test_truncated(self, refuse: Any, content: bytes) -> None:
        refuse(content[:-1], "neither a TorchScript nor an ONNX file, or truncated")
        refuse(b"", "neither a TorchScript nor an ONNX file")

    def test_no_spec_or_two(self, refuse: Any, content: bytes) -> None:
        (entry,) = find_metadata(content, "quake.json")
        refuse(without(content, entry), r"has no spec \(one metadata entry quake.json was expected, 0 found\)")
        refuse(append_metadata(content, "quake.json", b"{}"), r"expected, 2 found\)")

    def test_damaged(self, refuse: Any, content: bytes) -> None:
        middle = len(content) // 4
        refuse(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], "its weights have sha256")

    def test_spec_of_another_input(self, refuse: Any, content: bytes, folder: Path) -> None:
        spec = read_spec(folder / "characteriser.onnx")
        other = spec.model_copy(update={"heads": (AZIMUTH_HEAD, MAGNITUDE_HEAD)})
        refuse(self.with_spec(content, other), r"answers \[\(1, 4\), \(1, 9\)\], the spec's classes ask for \[\(1, 9\)")
        smaller = ModelSpec.model_validate({**spec.model_dump(), "image": {"height": 4, "width": 4}})
        refuse(self.with_spec(content, smaller), r"refuses the spec's input of shape \(3, 4, 4\)")

    def test_metadata_without_a_network(self, refuse: Any, content: bytes) -> None:
        spec = read_spec(DETECTOR).model_copy(update={"weights_sha256": hashlib.sha256(b"").hexdigest()})
        refuse(append_metadata(b"", "quake.json", spec.model_dump_json().encode()), "ONNX Runtime cannot load it")

    def test_weights_in_another_file(self, refuse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An ONNX file may point at other files, and so at any file of the machine."""
        (tmp_path / "weights").write_bytes(np.ones((3 * 33 * 64, 2), np.float32).tobytes())
        monkeypatch.chdir(tmp_path)
        weights = onnx.TensorProto(name="w", dims=[3 * 33 * 64, 2], data_type=onnx.TensorProto.FLOAT)
        weights.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(3 * 33 * 64 * 2 * 4))):
            weights.external_data.add(key=key, value=value)
        read = helper.make_tensor_value_info("spectrograms", onnx.TensorProto.FLOAT, ["b", 3, 33, 64])
        answered = helper.make_tensor_value_info("event", onnx.TensorProto.FLOAT, ["b", 2])
        nodes = [
            helper.make_node("Flatten", ["spectrograms"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["event"]),
        ]
        graph = helper.make_graph(nodes, "g", [read], [answered], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        bare = model.SerializeToString()
        spec = read_spec(DETECTOR).model_copy(update={"weights_sha256": hashlib.sha256(bare).hexdigest()})
        refuse(append_metadata(bare, "quake.json", spec.model_dump_json().encode()), "ONNX Runtime cannot load it")

    def test_only_torchscript_is_exported(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"detector\.onnx: not a TorchScript file"):
            export_onnx(folder / "detector.onnx")


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "timm", "torchvision", "pandas", "onnx"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
from streamer.cli import main
sys.exit(main(sys.argv[1:]))
"""


def scan(program: list[str], model: Path, folder: Path) -> list[Alert]:
    """The alerts of the recording of 27 May 2010 that ObsPy carries."""
    config = folder / "config.toml"
    config.write_text(f'[model]\npath = "{model}"\n[[source]]\nservers = ["seedlink://x"]\nselect = ["*.*"]\n')
    recording = sorted((Path(obspy.__file__).parent / "signal" / "tests" / "data").glob("BW.UH*.cut.slist.gz"))
    command = [*program, "scan", "--json", "--log-level", "error", "--config", str(config), *map(str, recording)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [Alert.model_validate_json(line) for line in done.stdout.splitlines()]


def test_a_box_without_torch_raises_the_same_alerts(folder: Path, tmp_path: Path) -> None:
    """A process in which torch cannot be imported, against one with it: the same openings, within a hop."""
    small = scan([sys.executable, "-c", WITHOUT_TORCH], folder / "detector.onnx", tmp_path)
    large = scan([sys.executable, "-m", "streamer.cli"], DETECTOR, tmp_path)
    for kind in Kind:
        ours, theirs = (
            [alert for alert in alerts if alert.kind is kind and alert.status is Status.OPEN]
            for alerts in (small, large)
        )
        assert len(ours) == len(theirs) >= 2
        for one, other in zip(ours, theirs, strict=True):
            assert [station.source_id for station in one.stations] == [station.source_id for station in other.stations]
            assert abs(one.onset - other.onset) <= HOP_NS


def test_a_model_for_torch_says_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[[source]]\nservers = ["seedlink://x"]\nselect = ["*.*"]\n')
    command = [sys.executable, "-c", WITHOUT_TORCH, "check", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "model: torch is not installed: pip install 'quake[torch]'" in done.stdout + done.stderr


def test_onnx_runtime_tells_nobody_of_this_machine(tmp_path: Path) -> None:
    """With its telemetry on it writes an id for it into the cache as soon as it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import quake.backends.onnx"], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
