"""Teachers of both kinds, asked together: ours as a teacher, weighted means, heads, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from quake.artifact import (
    AZIMUTH_HEAD,
    EVENT_HEAD,
    MAGNITUDE_HEAD,
    CompiledModel,
    Head,
    ModelError,
    ModelSpec,
    compile_model,
)
from quake.backends.torchscript import quiet
from quake.compilation import export_onnx
from quake.data.seisbench import SeisBenchDataset
from quake.data.spectrogram import spectrogram
from trainer.distillation.teachers import BATCH, Teacher, Teachers
from trainer.section import RecipeError

DETECTOR = Path(__file__).parents[3] / "models" / "zoo" / "detector.pt"
WINDOW = 2080
ADAPTER = """
network = "{network}.pt"
sampling_rate_hz = 100
window_samples = {samples}
components = "ZNE"
normalisation = {{ demean = false, scale = "none" }}
output = {{ layout = "class_time", classes = ["P"], earthquake = ["P"] }}
"""


class Constant(nn.Module):
    """Answers one probability for each sample of each window."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[:, :1], self.probability)


class BatchSize(nn.Module):
    """Answers what nothing but the number of windows decides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[:, :1], 1.0 / x.shape[0])


def picker(folder: Path, probability: float, samples: int = 100, weight: float = 1.0) -> Teacher:
    name = f"constant{probability}".replace(".", "_")
    with quiet():
        torch.jit.script(Constant(probability)).save(str(folder / f"{name}.pt"))
    (folder / f"{name}.toml").write_text(ADAPTER.format(network=name, samples=samples), encoding="utf-8")
    return Teacher(adapter=Path(f"{name}.toml"), weight=weight)


def characteriser(folder: Path, **changes: Any) -> Path:
    """A model of two heads on windows of 128 samples E, N, Z at 50 Hz."""
    fields = {
        "name": "small",
        "version": "1.0.0",
        "task": "characterise",
        "architecture": "one layer",
        "components": ("E", "N", "Z"),
        "sampling_rate_hz": 50.0,
        "window_samples": 128,
        "stft": {"nperseg": 32, "hop": 16, "window": "hann"},
        "heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD),
        "training_data": (),
        **changes,
    }
    spec = ModelSpec.model_validate(fields)
    torch.manual_seed(0)
    network = TwoHeads(int(np.prod(spec.input_shape)), tuple(len(head.classes) for head in spec.heads))
    windows = np.random.default_rng(0).standard_normal((4, 3, 128)).astype(np.float32)
    path = folder / "small.pt"
    path.write_bytes(compile_model(network, spec, spectrogram(windows, spec.spectrogram)))
    return path


class TwoHeads(nn.Module):
    def __init__(self, width: int, classes: tuple[int, ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(head(x.flatten(1)) for head in self.heads)


def random_samples(count: int, length: int = WINDOW, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1000 * torch.randn(count, 3, length, generator=generator)


@pytest.fixture(scope="module")
def ours() -> Teachers:
    return Teachers([Teacher(model=DETECTOR)], [EVENT_HEAD], WINDOW, Path(), "cpu")


def test_our_model_says_what_it_predicts_of_the_newest_samples(ours: Teachers) -> None:
    samples = random_samples(3, 2500)
    (said,) = ours.log_probabilities(samples)
    expected = CompiledModel.load(DETECTOR, "cpu").predict(samples[..., -WINDOW:].numpy())
    assert said.shape == (3, 2)
    assert said.dtype == torch.float32
    assert torch.allclose(said.exp(), torch.from_numpy(expected), atol=1e-5)


def test_an_answer_does_not_depend_on_the_batch(ours: Teachers) -> None:
    samples = random_samples(2 * BATCH + 5)
    (whole,) = ours.log_probabilities(samples)
    (few,) = ours.log_probabilities(samples[3:8])
    assert torch.equal(whole[3:8], few)
    assert torch.equal(ours.log_probabilities(samples)[0], whole)


def test_networks_see_batches_of_one_shape(tmp_path: Path) -> None:
    config = picker(tmp_path, 0.2)
    with quiet():
        torch.jit.script(BatchSize()).save(str(tmp_path / "constant0_2.pt"))
    teachers = Teachers([config], [EVENT_HEAD], WINDOW, tmp_path, "cpu")
    for count in (1, BATCH, BATCH + 1):
        (said,) = teachers.log_probabilities(random_samples(count))
        assert said[:, 1].exp().numpy() == pytest.approx(np.full(count, 1 / BATCH), rel=1e-5)


def test_a_student_can_learn_from_what_is_said(ours: Teachers) -> None:
    (said,) = ours.log_probabilities(random_samples(4))
    logits = torch.zeros(4, 2, requires_grad=True)
    functional.kl_div(logits.log_softmax(1), said, reduction="batchmean", log_target=True).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert not said.requires_grad


def test_weights_are_shares_of_the_mean_probability(tmp_path: Path) -> None:
    configs = [picker(tmp_path, 0.2, weight=3), picker(tmp_path, 0.6, samples=3000)]
    teachers = Teachers(configs, [EVENT_HEAD], WINDOW, tmp_path, "cpu")
    assert teachers.samples == 3000
    (said,) = teachers.log_probabilities(random_samples(2, 3000))
    assert said.exp().numpy() == pytest.approx(np.tile([0.7, 0.3], (2, 1)), abs=1e-6)  # (3 x 0.2 + 0.6) / 4


def test_the_students_window_is_the_least_that_is_read(tmp_path: Path) -> None:
    assert Teachers([picker(tmp_path, 0.2)], [EVENT_HEAD], WINDOW, tmp_path, "cpu").samples == WINDOW


def test_certainty_stays_finite(tmp_path: Path) -> None:
    (said,) = Teachers([picker(tmp_path, 1.0)], [EVENT_HEAD], WINDOW, tmp_path, "cpu").log_probabilities(
        random_samples(1)
    )
    assert torch.isfinite(said).all()
    assert said[0, 1] < 0  # a row of log-probabilities is never all zero
    assert said[0].tolist() == pytest.approx([np.log(1e-6), -1e-6], rel=0.1)


def test_rows_are_zero_where_no_teacher_speaks_of_a_head(tmp_path: Path) -> None:
    heads = [MAGNITUDE_HEAD, EVENT_HEAD]
    magnitude, event = Teachers([picker(tmp_path, 0.5)], heads, WINDOW, tmp_path, "cpu").log_probabilities(
        random_samples(3)
    )
    assert magnitude.tolist() == [[0.0] * 4] * 3
    assert event.exp().numpy() == pytest.approx(np.full((3, 2), 0.5))


@pytest.mark.parametrize("is_onnx", [False, True])
def test_our_characteriser_at_another_rate_and_order(tmp_path: Path, is_onnx: bool) -> None:
    path = characteriser(tmp_path)
    if is_onnx:
        content = export_onnx(path)
        path = tmp_path / "small.onnx"
        path.write_bytes(content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = Teacher(model=Path(path.name), sha256=digest)
    teachers = Teachers([config], [AZIMUTH_HEAD, MAGNITUDE_HEAD], 200, tmp_path, "cpu")
    assert teachers.samples == 255
    time = torch.arange(255) / 100
    samples = torch.stack([torch.sin(2 * torch.pi * hertz * time) for hertz in (2.0, 5.0, 9.0)])[None]
    azimuth, magnitude = teachers.log_probabilities(samples)
    at_50_hz = samples[:, [2, 1, 0], ::2].numpy()  # E N Z, the newest sample kept
    expected = CompiledModel.load(path, "cpu").predict(at_50_hz)
    assert np.concatenate([magnitude.exp(), azimuth.exp()], axis=1) == pytest.approx(expected, abs=0.02)
    other = CompiledModel.load(path, "cpu").predict(at_50_hz[:, ::-1].copy())
    assert np.abs(expected - other).max() > 0.05


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (
            [MAGNITUDE_HEAD, AZIMUTH_HEAD],
            r"detector.pt: the teacher speaks of event, the student of magnitude, azimuth",
        ),
        (
            [Head(name="event", classes=("noise", "blast"))],
            r"detector.pt: event: the teacher has noise/earthquake, the student noise/blast",
        ),
    ],
)
def test_teachers_of_other_things_are_refused(heads: list[Head], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Teachers([Teacher(model=DETECTOR)], heads, WINDOW, Path(), "cpu")


def test_magnitudes_of_other_bounds_are_refused(tmp_path: Path) -> None:
    lower = MAGNITUDE_HEAD.model_copy(update={"lower_bounds": (5.0, 4.0, 3.0)})
    characteriser(tmp_path)
    with pytest.raises(RecipeError, match=r"Normal from 6, 5, 4, the student .*Normal from 5, 4, 3"):
        Teachers([Teacher(model=Path("small.pt"))], [lower, AZIMUTH_HEAD], 200, tmp_path, "cpu")


def test_models_of_other_components_are_refused(tmp_path: Path) -> None:
    characteriser(tmp_path, components=("Z", "1", "2"))
    with pytest.raises(RecipeError, match=r"teacher small.pt: components Z/1/2 are not of Z/N/E"):
        Teachers([Teacher(model=Path("small.pt"))], [MAGNITUDE_HEAD, AZIMUTH_HEAD], 200, tmp_path, "cpu")


def test_files_that_are_missing_or_not_as_pinned(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.pt: cannot be read: No such file"):
        Teachers([Teacher(model=Path("none.pt"))], [EVENT_HEAD], WINDOW, tmp_path, "cpu")
    with pytest.raises(ModelError, match=r"detector.pt: sha256 is [0-9a-f]{64}, pinned is 0000"):
        Teachers([Teacher(model=DETECTOR, sha256="0" * 64)], [EVENT_HEAD], WINDOW, tmp_path, "cpu")


def test_wrong_adapters_are_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no probability"):
        Teachers([picker(tmp_path, 1.5)], [EVENT_HEAD], WINDOW, tmp_path, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_cuda_where_it_was_asked_for(tmp_path: Path) -> None:
    for config in (Teacher(model=DETECTOR), picker(tmp_path, 0.5)):
        with pytest.raises(RecipeError, match=r"teacher .*: device cuda was asked for, and torch finds none"):
            Teachers([config], [EVENT_HEAD], WINDOW, tmp_path, "cuda")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "a.pt", "adapter": "b.toml"},
        {"adapter": "b.toml", "sha256": "0" * 64},
        {"model": "a.pt", "weight": 0},
        {"model": "a.pt", "sha256": "0"},
        {"modle": "a.pt"},
    ],
)
def test_tables_that_are_no_teachers(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Teacher.model_validate(fields)


def test_samples_that_cannot_be_read(ours: Teachers) -> None:
    for shape in ((2, 3, WINDOW - 1), (2, 2, WINDOW), (3, WINDOW), (0, 3, WINDOW)):
        with pytest.raises(ValueError, match=r"samples must be \(B, 3, 2080 or more\)"):
            ours.log_probabilities(torch.zeros(shape))
    broken = random_samples(2)
    broken[1, 2, 5] = float("nan")
    with pytest.raises(ValueError, match="samples hold NaN"):
        ours.log_probabilities(broken)


@pytest.mark.shared
def test_our_detector_tells_real_earthquakes_from_noise(ours: Teachers, shared: Path) -> None:
    dataset = SeisBenchDataset(shared, "ZNE", assumed_order="ZNE").split("dev")
    table = dataset.metadata
    p = table["trace_p_arrival_sample"]
    events = dataset.filter((p > 1600) & (table["trace_category"] != "noise"))
    noise = dataset.filter(table["trace_category"] == "noise")
    (quakes,) = ours.log_probabilities(_cut([events[i] for i in range(0, len(events), 2)], after_p=400))
    (quiet_ones,) = ours.log_probabilities(_cut([noise[i] for i in range(0, len(noise), 2)], after_p=None))
    assert len(quakes) > 20
    assert len(quiet_ones) > 30
    ranks = (quakes[:, None, 1] > quiet_ones[None, :, 1]).double().mean()  # area under the ROC
    assert ranks > 0.95  # measured 0.964


def _cut(traces: list[Any], after_p: int | None) -> torch.Tensor:
    """(B, 3, WINDOW) that end so many samples after P, or after 4000."""
    ends = [4000 if after_p is None else round(trace.metadata["trace_p_arrival_sample"]) + after_p for trace in traces]
    cuts = [t.samples[:, end - WINDOW : end] for t, end in zip(traces, ends, strict=True) if end >= WINDOW]
    return torch.from_numpy(np.stack([cut for cut in cuts if cut.shape[1] == WINDOW]))
