"""Weights to start from: compiled models of all families, checkpoints, new heads, and files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quake.artifact import AZIMUTH_HEAD, MAGNITUDE_HEAD, ModelError, ModelSpec, compile_model, export_onnx
from quake.models import ConvNeXtMultiTask, EfficientNet, HybridViT
from trainer.fitting.checkpoint import save_checkpoint
from trainer.fitting.start import last_layers, read_state, start_from
from trainer.network import StagedNetwork

ZOO = Path(__file__).parents[3] / "models" / "zoo"
FIELDS: dict[str, Any] = {
    "name": "toy",
    "version": "0.1.0",
    "architecture": "toy",
    "components": ("Z", "N", "E"),
    "sampling_rate_hz": 100.0,
    "window_samples": 2080,
    "stft": {"nperseg": 64, "hop": 32, "window": "hann"},
    "gain": 1e5,
    "training_data": (),
}
DETECTOR = {
    "task": "detect",
    "heads": ({"name": "event", "classes": ("noise", "earthquake")},),
    "thresholds": {"on": 0.9, "off": 0.5},
}
CHARACTERISER = {
    "task": "characterise",
    "heads": (MAGNITUDE_HEAD, AZIMUTH_HEAD),
    "image": {"height": 32, "width": 32},
}


def small(seed: int = 0, **knobs: Any) -> HybridViT:
    torch.manual_seed(seed)
    return HybridViT(**{"depth": 1, "pretrained": False, **knobs})


def compiled(path: Path, network: StagedNetwork, task: dict[str, Any]) -> Path:
    spec = ModelSpec.model_validate({**FIELDS, **task})
    example = np.random.default_rng(0).standard_normal((2, *spec.input_shape)).astype(np.float32)
    path.write_bytes(compile_model(network, spec, example))
    return path


def states_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance / 1000)


FAMILIES = {
    "hybrid_vit": (lambda: HybridViT(depth=1, pretrained=False), DETECTOR),
    "efficientnet": (lambda: EfficientNet(pretrained=False), DETECTOR),
    "convnext": (lambda: ConvNeXtMultiTask("atto", pretrained=False), CHARACTERISER),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_model_fills_a_fresh_network_of_its_family(family: str, tmp_path: Path) -> None:
    build, task = FAMILIES[family]
    fitted, fresh = build(), build()
    path = compiled(tmp_path / "model.pt", fitted, task)
    start_from(fresh, [path], "keep")
    states_close(fresh.state_dict(), fitted.state_dict(), 1e-3)  # matrices were float16 in the file
    assert {tensor.dtype for tensor in fresh.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in fresh.parameters())


def test_the_shipped_detector_fills_a_fresh_network() -> None:
    network = HybridViT(depth=4, pretrained=False)
    start_from(network, [ZOO / "detector.pt"], "keep")
    assert list(read_state(ZOO / "detector.pt")) == list(network.state_dict())


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_gives_its_average_where_it_has_one(averaged: bool, tmp_path: Path) -> None:
    last, average, fresh = small(1), small(2), small(3)
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"network": last.state_dict(), "ema": average.state_dict() if averaged else None, "step": 7})
    start_from(fresh, [path], "keep")
    states_close(fresh.state_dict(), (average if averaged else last).state_dict(), 0)


def test_last_layers_are_what_replace_head_replaces() -> None:
    assert last_layers(small()) == ["head"]
    assert last_layers(EfficientNet(pretrained=False)) == ["backbone.classifier.1"]
    assert last_layers(ConvNeXtMultiTask("atto", pretrained=False)) == ["mag_head.5", "azi_head.5"]


def test_a_replaced_head_is_the_fresh_networks_and_all_else_the_files(tmp_path: Path) -> None:
    fitted, fresh = small(1), small(2, num_classes=5)
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"network": fitted.state_dict()})
    own = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
    start_from(fresh, [path], "replace")
    for key, tensor in fresh.state_dict().items():
        expected = own[key] if key.startswith("head.") else fitted.state_dict()[key]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def test_a_head_of_the_same_size_is_replaced_too(tmp_path: Path) -> None:
    fitted, fresh = small(1), small(2)
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"network": fitted.state_dict()})
    head = fresh.head.weight.detach().clone()
    start_from(fresh, [path], "replace")
    torch.testing.assert_close(fresh.head.weight.detach(), head, rtol=0, atol=0)
    assert not torch.equal(head, fitted.head.weight)


def test_other_classes_are_refused_and_the_way_out_is_said(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"network": small().state_dict()})
    with pytest.raises(ModelError) as raised:
        start_from(small(num_classes=5), [path], "keep")
    assert str(raised.value) == (
        f"{path} does not fit HybridViT: of another shape: head.weight is (2, 192) and should be (5, 192), "
        'head.bias is (2,) and should be (5,); fine_tuning.head = "replace" would start with a new head'
    )


def test_misfits_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"network": small(depth=2).state_dict()})
    network = small(img_size=(33, 72))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(
        ModelError, match=r"unexpected blocks\.1\.norm1\.weight, .* and 9 more; of another shape:"
    ) as raised:
        start_from(network, [path], "replace")
    assert "pos_embed is (1, 41, 192) and should be (1, 46, 192)" in str(raised.value)
    assert "would start with a new head" not in str(raised.value)
    states_close(network.state_dict(), before, 0)


def test_another_family_is_refused() -> None:
    with pytest.raises(ModelError, match=r"detector\.pt does not fit EfficientNet: missing backbone\.features"):
        start_from(EfficientNet(pretrained=False), [ZOO / "detector.pt"], "replace")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = small().state_dict()
    state["norm.weight"][3] = float("nan")
    save_checkpoint(tmp_path / "last.pt", {"network": state})
    with pytest.raises(ModelError, match=r"not finite: norm\.weight"):
        start_from(small(), [tmp_path / "last.pt"], "keep")


def test_files_without_weights_of_ours_are_refused(tmp_path: Path) -> None:
    text, onnx, bare, half = (tmp_path / name for name in ("text.pt", "model.onnx", "bare.pt", "half.pt"))
    text.write_text("weights")
    onnx.write_bytes(export_onnx(compiled(tmp_path / "model.pt", small(), DETECTOR)))
    torch.save(small().state_dict(), bare)
    half.write_bytes((ZOO / "detector.pt").read_bytes()[:100_000])
    for path, fault in (
        (text, "neither a TorchScript model nor a checkpoint"),
        (onnx, "neither a TorchScript model nor a checkpoint"),
        (bare, "not a checkpoint of a run: it has no entry network"),
        (half, "not a checkpoint"),
        (tmp_path / "none.pt", "cannot be read: No such file"),
    ):
        with pytest.raises(ModelError, match=fault) as raised:
            read_state(path)
        assert str(raised.value).startswith(str(path))


def test_a_model_whose_weights_were_changed_is_refused(tmp_path: Path) -> None:
    path = compiled(tmp_path / "model.pt", small(), DETECTOR)
    network = torch.jit.load(path)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    files = {"quake.json": ""}
    torch.jit.load(path, _extra_files=files)
    torch.jit.save(network, path, _extra_files=files)
    with pytest.raises(ModelError, match="its weights have sha256"):
        read_state(path)


def test_of_several_the_mean_of_their_weights(tmp_path: Path) -> None:
    one, two, fresh = small(1), small(2), small(3)
    counted = [key for key, tensor in one.state_dict().items() if not tensor.is_floating_point()]
    assert counted
    for number, network in enumerate((one, two), 1):
        network.load_state_dict({**network.state_dict(), counted[0]: torch.tensor(number)})
        save_checkpoint(tmp_path / f"{number}.pt", {"network": network.state_dict()})
    start_from(fresh, [tmp_path / "1.pt", tmp_path / "2.pt"], "keep")
    halves = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    mean = {key: (a + b) / 2 for key, (a, b) in zip(one.state_dict(), halves, strict=True) if key not in counted}
    found = {key: tensor for key, tensor in fresh.state_dict().items() if key not in counted}
    states_close(found, mean, 1e-6)
    assert fresh.state_dict()[counted[0]] == 1


def test_one_of_several_that_does_not_fit_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "1.pt", {"network": small().state_dict()})
    save_checkpoint(tmp_path / "other.pt", {"network": small(depth=2).state_dict()})
    with pytest.raises(ModelError, match=r"other\.pt does not fit HybridViT"):
        start_from(small(), [tmp_path / "1.pt", tmp_path / "other.pt"], "keep")
