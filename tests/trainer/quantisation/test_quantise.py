"""Compiled models in int8: near to float, smaller, described, and refused where they lose too much."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from toy_network import SPEC, Toy, compiled, questions

from quake.artifact import AZIMUTH_HEAD, MAGNITUDE_HEAD, CompiledModel, ModelError, ModelSpec, read_spec
from quake.data.seisbench import SeisBenchDataset
from quake.data.spectrogram import spectrogram
from quake.models import ConvNeXtMultiTask, EfficientNet
from quake.probe import INT8_TOLERANCE
from trainer.quantisation import quantise as quantising
from trainer.quantisation.quantise import Measure, Quantisation, QuantisationError, Result, quantise
from trainer.quantisation.speed import Speed, windows_per_second
from trainer.section import RecipeError

ROOT = Path(__file__).parents[3]
DETECTOR = ROOT / "models" / "zoo" / "detector.pt"
NOTHING = Measure("toys", "nothing", lambda model: 1.0)
IMAGES = questions(3, 32)[0]


@pytest.fixture
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is not what the test is about."""
    monkeypatch.setattr(quantising, "windows_per_second", lambda models, images: [Speed(100.0, 200.0)] * 2)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(Toy(), tmp_path_factory.mktemp("toy") / "toy.pt")


def weights(path: Path) -> dict[str, Any]:
    """By name, of the ONNX file's initialisers that are matrices."""
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer if len(one.dims) > 1}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("method", "largest", "mean"),
    [
        pytest.param("dynamic", 0.03, 0.002, id="dynamic", marks=pytest.mark.drill),
        pytest.param("static", 0.25, 0.02, id="static"),
    ],
)
def test_the_shipped_detector_stays_near(
    method: Any, largest: float, mean: float, shared: Path, tmp_path: Path
) -> None:
    calibration, _ = real_windows(shared, "train")
    windows, is_event = real_windows(shared, "dev")
    measure = Measure("windows/dev", "accuracy", lambda model: accuracy(model, windows, is_event))
    config = Quantisation(model=DETECTOR, method=method, largest_loss=0.02)
    result = quantise(config, tmp_path, spectrogram(calibration, read_spec(DETECTOR).spectrogram), measure)
    assert result.before.skill > 0.85
    assert 0 < result.mean_difference < mean
    assert result.mean_difference < result.largest_difference < largest
    assert result.after.size_bytes < 0.4 * result.before.size_bytes
    float_, int8 = CompiledModel.load(DETECTOR, "cpu"), CompiledModel.load(result.path, "cpu")
    differences = np.abs(float_.predict(windows) - int8.predict(windows)).max(axis=1)
    assert differences.max() < largest
    assert differences.mean() < mean


@pytest.mark.usefixtures("_unmeasured")
@pytest.mark.drill
def test_efficientnet_with_all_its_operators(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"window_samples": 2080})
    images = np.random.default_rng(6).standard_normal((32, *spec.input_shape)).astype(np.float32)
    network = EfficientNet(pretrained=False)
    torch.manual_seed(7)
    for _ in range(8):
        network.train()(torch.from_numpy(images))  # norms learn what comes in
    network.eval()
    with torch.no_grad():
        answers = network(torch.from_numpy(images))
        network.backbone.classifier[1].weight.mul_(1 / answers.std())
    operators = ("Conv", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "GlobalAveragePool")
    config = Quantisation(model=compiled(network, tmp_path / "b0.pt", spec), operators=operators)
    result = quantise(config, tmp_path, images, NOTHING)
    assert result.largest_difference < 0.3
    assert 0 < result.mean_difference < 0.08
    assert {array.dtype for array in weights(result.path).values()} == {np.dtype(np.int8)}


@pytest.mark.usefixtures("_unmeasured")
@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_a_characteriser_keeps_its_two_heads(method: Any, tmp_path: Path) -> None:
    heads = {"heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD), "image": {"height": 32, "width": 32}}
    spec = ModelSpec.model_validate({**SPEC.model_dump(), **heads, "task": "characterise", "thresholds": None})
    torch.manual_seed(8)
    network = ConvNeXtMultiTask("atto", pretrained=False, layer_scale=0.5).eval()
    config = Quantisation(model=compiled(network, tmp_path / "atto.pt", spec), method=method)
    images = np.random.default_rng(9).standard_normal((16, 3, 32, 32)).astype(np.float32)
    result = quantise(config, tmp_path, images, NOTHING)
    assert 0 < result.mean_difference <= result.largest_difference < 0.02
    answers = CompiledModel.load(result.path).spec.by_head(CompiledModel.load(result.path).score(images))
    assert {name: part.shape for name, part in answers.items()} == {"magnitude": (16, 4), "azimuth": (16, 9)}
    assert any(array.dtype == np.int8 for array in weights(result.path).values())


@pytest.fixture(scope="module")
def result(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    skills = iter([0.8, 0.795])
    config = Quantisation(model=toy, largest_loss=0.01)
    folder = tmp_path_factory.mktemp("described") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantising, "windows_per_second", lambda models, images: [Speed(10.0, 20.0), Speed(30.0, 40.0)])
        return quantise(config, folder, IMAGES, Measure("toys", "accuracy", lambda model: next(skills)))


class TestDescribed:
    """What the file says of itself."""

    def test_skill_and_speed_before_and_after(self, result: Result) -> None:
        spec = CompiledModel.load(result.path).spec
        rows = [(skill.measure, skill.value, skill.note.split(";")[0].split(", ONNX")[0]) for skill in spec.skill]
        assert rows[:7] == [
            ("recall", 0.5, "float"),
            ("accuracy", 0.8, "float"),
            ("windows a second in batches of 1", 10.0, "float"),
            ("windows a second in batches of 8", 20.0, "float"),
            ("accuracy", 0.795, "int8, static"),
            ("windows a second in batches of 1", 30.0, "int8, static"),
            ("windows a second in batches of 8", 40.0, "int8, static"),
        ]
        assert [skill.value for skill in spec.skill[7:]] == [result.largest_difference, result.mean_difference]
        assert (result.before.skill, result.after.skill) == (0.8, 0.795)

    def test_the_rest_of_the_spec(self, result: Result, toy: Path) -> None:
        ours, theirs = read_spec(result.path), read_spec(toy)
        assert ours.weights_sha256 != theirs.weights_sha256
        assert ours.architecture == "toy; int8 (static)"
        assert ours.compilation is None
        assert {"onnx", "onnxruntime", "torch"} <= ours.built_with.keys()
        assert ours.probe is not None
        assert ours.probe.tolerance == INT8_TOLERANCE
        assert theirs.probe is not None
        assert ours.probe.answers != theirs.probe.answers  # the int8 network's own
        other = {"weights_sha256", "architecture", "compilation", "built_with", "skill", "probe"}
        same = ours.model_fields_set - other
        assert ours.model_dump(include=same) == theirs.model_dump(include=same)

    def test_card_and_folder(self, result: Result) -> None:
        card = result.card.read_text()
        assert hashlib.sha256(result.path.read_bytes()).hexdigest() in card
        assert "| toys | accuracy (int8, static, ONNX Runtime) | 0.795 |" in card
        assert "windows a second in batches of 8 (float; one thread of " in card
        assert sorted(path.name for path in result.path.parent.iterdir()) == ["toy-int8.md", "toy-int8.onnx"]

    def test_loads_without_torch(self, result: Result) -> None:
        program = f"""
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "timm", "torchvision", "pandas", "onnx"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent)
import numpy as np
from quake.artifact import CompiledModel
from quake.probe import INT8_TOLERANCE
windows = np.random.default_rng(1).standard_normal((2, 3, 1056)).astype(np.float32)
print(CompiledModel.load({str(result.path)!r}).predict(windows).tolist())
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        windows = np.random.default_rng(1).standard_normal((2, 3, 1056)).astype(np.float32)
        assert done.stdout.strip() == str(CompiledModel.load(result.path, "cpu").predict(windows).tolist())


@pytest.mark.usefixtures("_unmeasured")
def test_the_same_images_give_the_same_weights(toy: Path, tmp_path: Path) -> None:
    for name, images in (("one", IMAGES), ("two", IMAGES), ("three", 2 * IMAGES)):
        quantise(Quantisation(model=toy), tmp_path / name, images, NOTHING)
    digests = [read_spec(tmp_path / name / "toy-int8.onnx").weights_sha256 for name in ("one", "two", "three")]
    assert digests[0] == digests[1] != digests[2]


class Loud(nn.Module):
    """Answers by what is in Z; a weight a million times larger waits for E, where nothing comes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 1, bias=False)
        self.last = nn.Linear(2, 2, bias=False)
        self.first.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1e4]]).reshape(2, 3, 1, 1)
        self.last.weight.data = torch.tensor([[-5.0, 0.0], [5.0, 0.0]])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.last(torch.relu(self.first(images)).mean((2, 3)))
        return answers


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(Loud(), tmp_path_factory.mktemp("loud") / "loud.pt")


@pytest.mark.usefixtures("_unmeasured")
class TestDestroyed:
    """With one step for all channels the weight that matters becomes zero."""

    @pytest.fixture
    def images(self) -> np.ndarray:
        images = np.full((8, *SPEC.input_shape), 0.5, np.float32)
        images[:, 2] = 0
        return images

    @pytest.fixture
    def measure(self, images: np.ndarray) -> Measure:
        return Measure("toys", "certainty", lambda model: float(model.score(images)[:, 1].mean()))

    def test_refused_and_nothing_is_left(
        self, loud: Path, images: np.ndarray, measure: Measure, tmp_path: Path
    ) -> None:
        config = Quantisation(model=loud, per_channel=False, largest_loss=0.4)
        message = r"loud\.pt: certainty on toys is 0\.5 in int8 \(static\), was 0\.9933; .* a loss of 0\.4"
        with pytest.raises(QuantisationError, match=message):
            quantise(config, tmp_path, images, measure)
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_file_stays(self, loud: Path, images: np.ndarray, measure: Measure, tmp_path: Path) -> None:
        earlier = quantise(Quantisation(model=loud), tmp_path, images, measure)
        content = earlier.path.read_bytes()
        with pytest.raises(QuantisationError):
            quantise(Quantisation(model=loud, per_channel=False), tmp_path, images, measure)
        assert earlier.path.read_bytes() == content

    def test_a_disk_that_fills(
        self, loud: Path, images: np.ndarray, measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            quantise(Quantisation(model=loud), tmp_path, images, measure)
        assert not list(tmp_path.glob("*.onnx")) + list(tmp_path.glob("*.tmp"))

    def test_as_much_as_the_recipe_allows(
        self, loud: Path, images: np.ndarray, measure: Measure, tmp_path: Path
    ) -> None:
        config = Quantisation(model=loud, per_channel=False, largest_loss=0.5)
        assert quantise(config, tmp_path, images, measure).after.skill == pytest.approx(0.5)

    @pytest.mark.parametrize(
        "how", [{"per_channel": True}, {"exclude": ("Conv",)}, {"exclude": ("/Conv",)}, {"operators": ("MatMul",)}]
    )
    def test_what_saves_it(
        self, how: dict[str, Any], loud: Path, images: np.ndarray, measure: Measure, tmp_path: Path
    ) -> None:
        result = quantise(Quantisation(model=loud, **{"per_channel": False, **how}), tmp_path, images, measure)
        assert result.after.skill == pytest.approx(result.before.skill, abs=0.005)
        kinds = {array.ndim: array.dtype for array in weights(result.path).values()}
        assert kinds == {4: np.dtype(np.int8 if how.get("per_channel") else np.float32), 2: np.dtype(np.int8)}

    def test_a_skill_that_is_no_number(self, loud: Path, images: np.ndarray, tmp_path: Path) -> None:
        measure = Measure("toys", "certainty", lambda model: float("nan"))
        with pytest.raises(QuantisationError, match="is nan in int8"):
            quantise(Quantisation(model=loud), tmp_path, images, measure)


class TestWrongInput:
    def test_settings(self, toy: Path, tmp_path: Path) -> None:
        message = "quantisation.exclude: /Comv, Conw: the network has no such node, nor type of nodes"
        with pytest.raises(RecipeError, match=message):
            quantise(Quantisation(model=toy, exclude=("Conw", "/Comv", "Conv")), tmp_path, IMAGES, NOTHING)
        for method, operators in (("static", ("Mul",)), ("dynamic", ("Conv",))):
            config = Quantisation(model=toy, method=method, operators=operators)
            with pytest.raises(RecipeError, match=r"nothing is left to quantise; the network has Conv, .*Relu"):
                quantise(config, tmp_path, IMAGES, NOTHING)
        with pytest.raises(ValidationError, match="perchannel"):
            Quantisation.model_validate({"model": str(toy), "perchannel": True})

    def test_images(self, toy: Path, tmp_path: Path) -> None:
        config = Quantisation(model=toy)
        for images in (IMAGES[:, :, :, :-1], IMAGES.astype(np.float64), IMAGES[:0]):
            with pytest.raises(ModelError, match=r"toy\.pt: reads float32 of shape \(N, \*\(3, 33, 32\)\); the images"):
                quantise(config, tmp_path, images, NOTHING)
        broken = IMAGES.copy()
        broken[3, 1, 2, 2] = np.nan
        with pytest.raises(ModelError, match="the images to calibrate with hold NaN or infinity"):
            quantise(config, tmp_path, broken, NOTHING)

    def test_models(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"absent\.pt: cannot be read"):
            quantise(Quantisation(model=tmp_path / "absent.pt"), tmp_path, IMAGES, NOTHING)


def test_speed_is_of_each_model_in_turn(toy: Path) -> None:
    class Sleeper:
        def __init__(self, time_s: float) -> None:
            self.time_s, self.batches = time_s, set[int]()

        def score(self, images: np.ndarray) -> None:
            self.batches.add(len(images))
            now.append(self.time_s * (2 if len(now) < 64 else 1))  # the first round is interrupted

    now: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.quantisation.speed.time.perf_counter", lambda: sum(now))
        models: Any = (Sleeper(0.5), Sleeper(0.25))
        fast, slow = windows_per_second(models, IMAGES)[::-1]
    assert (slow, fast) == (Speed(2.0, 16.0), Speed(4.0, 32.0))
    assert models[0].batches == models[1].batches == {1, 8}
    assert now[96:128] == [0.25] * 32  # in turn


def accuracy(model: CompiledModel, windows: np.ndarray, is_event: np.ndarray) -> float:
    return float(np.mean((model.predict(windows)[:, 1] > 0.5) == is_event))


def real_windows(folder: Path, split: str, count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3, 2080), half of them ending some seconds after P, half of noise; and which is which."""
    data = SeisBenchDataset(folder).split(split)
    p, length = data.metadata["trace_p_arrival_sample"], data.metadata["trace_npts"]
    events, noise = data.filter((p > 1700) & (p + 400 < length)), data.filter(p.isna() & (length > 2080))
    windows = []
    for traces in (events, noise):
        for index in np.linspace(0, len(traces) - 1, count // 2).astype(int):
            trace = traces[int(index)]
            end = int(trace.metadata["trace_p_arrival_sample"]) + 400 if traces is events else 2080
            windows.append(trace.samples[:, end - 2080 : end])
    return np.stack(windows).astype(np.float32), np.arange(count) < count // 2
