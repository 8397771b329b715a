"""Rounding while learning: its numbers, what it leaves behind, and that int8 is nearer to float after it."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from toy_network import Toy, compiled, fitted, questions

from quake.artifact import CompiledModel, ModelError
from quake.models import ConvNeXtMultiTask, EfficientNet, HybridViT
from trainer.quantisation import quantise as quantising
from trainer.quantisation.qat import Relearning, finish_qat, prepare_qat, relearn
from trainer.quantisation.quantise import Measure, Quantisation, quantise
from trainer.quantisation.speed import Speed
from trainer.section import RecipeError

FAMILIES = [
    pytest.param(partial(HybridViT, depth=1, pretrained=False), (33, 64), id="vit"),
    pytest.param(partial(EfficientNet, pretrained=False), (33, 64), id="efficientnet"),
    pytest.param(partial(ConvNeXtMultiTask, "atto", pretrained=False), (32, 32), id="convnext"),
]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return fitted()


def probabilities(network: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(torch.softmax(network(torch.from_numpy(images)), dim=1))


class TestRounding:
    """One layer, against numbers by hand."""

    def rounded(self, weight: list[list[float]], **how: bool) -> Any:
        layer = nn.Linear(2, len(weight), bias=False)
        layer.weight.data = torch.tensor(weight)
        prepared: Any = prepare_qat(nn.Sequential(layer), **how)
        return prepared.train()[0]

    def test_each_output_channel_has_its_own_step(self) -> None:
        layer = self.rounded([[127.0, 0.6], [-1.27, 0.0149], [0.0, 0.0]])
        torch.testing.assert_close(seen(layer), torch.tensor([[127.0, 1.0], [-1.27, 0.01], [0.0, 0.0]]))
        assert seen(self.rounded([[64.0, 0.6]], reduce_range=True)).tolist() == [[64.0, 1.0]]

    def test_inputs_have_256_values_from_the_lowest_to_the_highest(self) -> None:
        inputs = self.rounded([[1.0, 1.0]]).input_range
        rounded = inputs(torch.tensor([[-55.0, 200.0], [0.4, 0.6]]))
        assert rounded.tolist() == [[-55.0, 200.0], [0.0, 1.0]]
        inputs.eval()
        assert inputs(torch.tensor([[-300.0, 300.0]])).tolist() == [[-55.0, 200.0]]

    def test_a_range_holds_zero_and_follows_slowly(self) -> None:
        inputs = self.rounded([[1.0, 1.0]]).input_range
        inputs(torch.tensor([[10.0, 20.0]]))
        assert (inputs.low.item(), inputs.high.item()) == (0.0, 20.0)
        inputs(torch.tensor([[-5.0, 120.0]]))
        np.testing.assert_allclose([inputs.low.item(), inputs.high.item()], [-0.05, 21.0], rtol=1e-6)
        assert inputs(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]

    def test_symmetric_inputs_lie_about_zero(self) -> None:
        inputs = self.rounded([[1.0, 1.0]], symmetric=True).input_range
        assert inputs(torch.tensor([[-3.4, 127.0]])).tolist() == [[-3.0, 127.0]]
        assert (inputs.low.item(), inputs.high.item()) == (-127.0, 127.0)

    def test_gradients_pass_unchanged(self) -> None:
        layer = self.rounded([[127.0, 0.6]])
        inputs = torch.tensor([[-55.0, 200.0]], requires_grad=True)
        layer(inputs).sum().backward()
        assert layer.weight.grad.tolist() == [[-55.0, 200.0]]
        assert inputs.grad is not None
        assert inputs.grad.tolist() == [[127.0, 1.0]]  # of the rounded weight


@pytest.mark.parametrize(("build", "size"), FAMILIES)
def test_every_family_learns_rounded_and_comes_back(build: Callable[[], Any], size: tuple[int, int]) -> None:
    original = build().eval()
    prepared: Any = prepare_qat(original)
    grouped = {id(one) for group in prepared.parameter_groups(1e-4) for one in group["params"]}
    assert grouped == {id(one) for one in prepared.parameters()}
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    heads = prepared.train()(images)
    sum(head.sum() for head in (heads if isinstance(heads, tuple) else (heads,))).backward()
    assert all(one.grad is not None for one in prepared.parameters())
    copied = copy.deepcopy(prepared)  # as an average of weights is
    for returned in (finish_qat(copied), finish_qat(prepared)):
        assert list(returned.state_dict()) == list(original.state_dict())
        assert [type(module) for module in returned.modules()] == [type(module) for module in original.modules()]
    prepared.load_state_dict(original.state_dict())
    for ours, theirs in zip(_heads(prepared.eval()(images)), _heads(original(images)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has neither a convolution nor a linear layer"):
        prepare_qat(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize(
    "how", [{}, {"reduce_range": True}, {"symmetric": True}], ids=["plain", "seven bits", "symmetric"]
)
def test_the_rounded_network_foretells_the_int8_one(how: dict[str, Any], tmp_path: Path) -> None:
    """To the rounding of single values, where nothing stands between the layers that rounds by itself."""
    torch.manual_seed(2)
    layers = (nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(72, 2)).half().float().eval()  # as it is stored
    model = compiled(network, tmp_path / "plain.pt")
    images = questions(0)[0]
    prepared: Any = prepare_qat(network, **how).train()
    seen = torch.from_numpy(images)
    for plain, rounding in zip(network, prepared, strict=True):  # ranges are those of the float network, as calibrated
        if hasattr(rounding, "input_range"):
            rounding.input_range(seen)
        seen = plain(seen)
    float_, foretold = probabilities(network, images), probabilities(prepared.eval(), images)
    int8 = int8_answers(model, tmp_path, images, images, **how)
    if how.get("reduce_range") or has_exact_int8():
        assert np.abs(foretold - int8).mean() < 0.1 * np.abs(float_ - int8).mean()
    else:  # the kernels' sums of two products stop at 16 bits, which no rounding foretells: it stays of the same size
        assert np.abs(foretold - int8).mean() < 2.0 * np.abs(float_ - int8).mean()


def has_exact_int8() -> bool:
    """Whether this processor multiplies eight bits without saturating in between: with VNNI, or on another architecture."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return True
    flags = Path("/proc/cpuinfo")
    return "vnni" in flags.read_text("ascii", errors="replace") if flags.exists() else False


@pytest.mark.drill
def test_int8_is_nearer_to_float_after_relearning(tmp_path: Path) -> None:
    """Same settings, same calibration, the windows learned from, by the measure that is learned: toys learn by heart, and what they
    do elsewhere depends on the processor that fitted them. Seven bits, where there is much to lose; several networks, as one may lose
    nearly nothing."""
    images = questions(0)[0][:128]
    how = {"method": "qat", "qat": Relearning(steps=200, batch=32, rate=3e-5), "reduce_range": True}
    lost = np.zeros(2)
    for seed in range(5):
        network = fitted(seed).half().float()  # as it is stored
        model = compiled(network, tmp_path / "toy.pt")
        wanted = probabilities(network, images)
        plain = int8_answers(model, tmp_path, images, images, reduce_range=True)
        learned = int8_answers(model, tmp_path, images, images, Toy(), **how)  # weights are the model's
        lost += divergence(wanted, plain), divergence(wanted, learned)
    assert lost[1] < 0.98 * lost[0], lost


def divergence(wanted: np.ndarray, answered: np.ndarray) -> float:
    """Kullback and Leibler's, of (B, 2) probabilities."""
    return float((wanted * (np.log(wanted) - np.log(answered))).sum(axis=1).mean())


def test_relearning_leaves_the_teacher_and_repeats(network: nn.Module) -> None:
    before = copy.deepcopy(network.state_dict())
    images, how = questions(0, 32)[0], Relearning(steps=3, batch=8, rate=1e-3)
    first, second, other = (relearn(network, images, how, seed).state_dict() for seed in (1, 1, 2))
    weight = "0.weight"
    assert torch.equal(first[weight], second[weight])
    assert not torch.equal(first[weight], other[weight])
    assert not torch.equal(first[weight], before[weight])
    assert torch.equal(first["1.running_mean"], before["1.running_mean"])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_qat_needs_the_network(network: nn.Module, tmp_path: Path) -> None:
    model = compiled(network, tmp_path / "toy.pt")
    config = Quantisation(model=model, method="qat")
    measure, images = Measure("toys", "nothing", lambda model: 1.0), questions(0, 8)[0]
    with pytest.raises(RecipeError, match="qat needs the network that the model was compiled from"):
        quantise(config, tmp_path, images, measure)
    with pytest.raises(ModelError, match=r"toy\.pt: its weights are not those of Sequential: "):
        quantise(config, tmp_path, images, measure, nn.Sequential(nn.Conv2d(3, 8, 5)))
    with pytest.raises(ValidationError, match="per_channel must be true"):
        Quantisation(model=model, method="qat", per_channel=False)


def int8_answers(
    model: Path, folder: Path, images: np.ndarray, held_out: np.ndarray, network: nn.Module | None = None, **how: Any
) -> np.ndarray:
    measure = Measure("toys", "nothing", lambda model: 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantising, "windows_per_second", lambda models, images: [Speed(1.0, 1.0)] * 2)
        config = Quantisation(model=model, **{"method": "static", **how})
        result = quantise(config, folder, images, measure, network)
    return CompiledModel.load(result.path).score(held_out)


def seen(layer: nn.Linear) -> torch.Tensor:
    """The weights that the layer computes with."""
    layer(torch.eye(2))  # the range of 0 to 1
    return layer.eval()(torch.eye(2)).T


def _heads(answer: Any) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)
