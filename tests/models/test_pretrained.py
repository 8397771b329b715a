"""Where weights come from: caches, files, and one clear error when there is nothing or something else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from made_weights import COMMIT, Caches, State
from torch import nn

from quake.models import ConvNeXtMultiTask, EfficientNet, HybridViT, WeightsError


def save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


class TestNothingToBeHad:
    """Empty caches and no network."""

    @pytest.mark.timeout(20)
    def test_of_timm_says_file_place_and_way_out(self, caches: Caches) -> None:
        place = (
            caches.hugging_face
            / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k/snapshots/main/model.safetensors"
        )
        with pytest.raises(WeightsError) as raised:
            HybridViT()
        told = str(raised.value)
        assert told.startswith(f"no pretrained weights of vit_tiny_patch16_224: {place} is not there")
        assert "huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors" in told
        assert "Name or service not known" in told
        assert "pretrained='path of the file'" in told
        assert "pretrained=False" in told

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("make", [EfficientNet, ConvNeXtMultiTask])
    def test_of_torchvision_says_file_place_and_way_out(self, caches: Caches, make: type[nn.Module]) -> None:
        with pytest.raises(WeightsError) as raised:
            make()
        told = str(raised.value)
        assert f"{caches.torch_home}/hub/checkpoints/" in told
        assert "https://download.pytorch.org/models/" in told
        assert "Name or service not known" in told
        assert "pretrained=False" in told

    def test_comes_at_once(self, caches: Caches) -> None:
        began = time.monotonic()
        with pytest.raises(WeightsError):
            ConvNeXtMultiTask("atto")
        assert time.monotonic() - began < 10  # the hub's own tries take three quarters of a minute

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"nowhere\.pth cannot be read as \.safetensors, \.pth or \.pt"):
            EfficientNet(pretrained=tmp_path / "nowhere.pth")

    def test_random_weights_are_for_those_who_ask(self, caches: Caches) -> None:
        assert HybridViT(depth=1, pretrained=False) is not None
        assert not caches.hugging_face.exists()


class TestPlaces:
    """A file at the place that the error told is found there."""

    @pytest.mark.parametrize("commit", [COMMIT, None])
    def test_of_timm_by_the_hubs_client_or_by_hand(self, caches: Caches, commit: str | None) -> None:
        published = caches.lay_timm("convnext_atto", commit)
        made = ConvNeXtMultiTask("atto")
        torch.testing.assert_close(made.backbone.stem[0].weight.detach(), published["stem.0.weight"])

    def test_of_timm_the_error_follows_a_commit_that_lacks_the_file(self, caches: Caches) -> None:
        caches.lay_timm("convnext_atto")
        file = next(caches.hugging_face.glob("*/snapshots/*/model.safetensors"))
        file.unlink()
        with pytest.raises(WeightsError, match=f"snapshots/{COMMIT}/model.safetensors is not there"):
            ConvNeXtMultiTask("atto")


class TestFiles:
    """A backbone as published, or a whole network of ours."""

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
    def test_a_published_backbone_less_its_classifier(self, tmp_path: Path, suffix: str) -> None:
        reference = torchvision.models.efficientnet_b0(weights=None)
        path = save(reference.state_dict(), tmp_path / f"weights{suffix}")
        made = EfficientNet(pretrained=str(path), num_classes=3)
        reference.classifier = made.backbone.classifier
        assert_alike(made.backbone, reference)

    def test_a_published_vit_as_the_entry_model(self, tmp_path: Path) -> None:
        state = timm.create_model("deit_tiny_patch16_224", pretrained=False).state_dict()
        made = HybridViT(depth=1, pretrained=save({"model": state}, tmp_path / "deit.pth"))
        torch.testing.assert_close(made.cls_token.detach(), state["cls_token"])

    def test_half_precision_is_widened(self, tmp_path: Path) -> None:
        state = {key: tensor.half() for key, tensor in ConvNeXtMultiTask("atto", False).state_dict().items()}
        made = ConvNeXtMultiTask("atto", pretrained=save(state, tmp_path / "half.safetensors"))
        assert made.backbone.stem[0].weight.dtype == torch.float32
        torch.testing.assert_close(made.state_dict(), {key: tensor.float() for key, tensor in state.items()})

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_a_whole_hybrid_vit(self, tmp_path: Path, suffix: str) -> None:
        settings: dict[str, Any] = {"depth": 2, "in_channels": 1, "num_classes": 5, "img_size": (40, 48)}
        saved = HybridViT(**settings, pretrained=False)
        path = save(saved.state_dict(), tmp_path / f"whole{suffix}")
        assert_alike(HybridViT(**settings, pretrained=path), saved)

    def test_a_whole_efficientnet(self, tmp_path: Path) -> None:
        saved = EfficientNet(in_channels=2, num_classes=3, pretrained=False)
        path = save(saved.state_dict(), tmp_path / "whole.pth")
        assert_alike(EfficientNet(in_channels=2, num_classes=3, freeze_backbone=True, pretrained=path), saved)

    def test_a_whole_convnext(self, tmp_path: Path) -> None:
        saved = ConvNeXtMultiTask("atto", pretrained=False, in_channels=4)
        path = save(saved.state_dict(), tmp_path / "whole.pth")
        assert_alike(ConvNeXtMultiTask("atto", pretrained=path, in_channels=4), saved)


class TestWrongFiles:
    """The error names the first keys that do not fit."""

    def test_another_network(self, tmp_path: Path) -> None:
        state = torchvision.models.efficientnet_b0(weights=None).state_dict()
        path = save(state, tmp_path / "b0.pth")
        with pytest.raises(WeightsError) as raised:
            ConvNeXtMultiTask(pretrained=path)
        told = str(raised.value)
        assert told.startswith(f"{path} does not fit ConvNeXt: missing features.0.0.bias, ")
        assert (
            "unexpected features.0.1.running_mean, features.0.1.running_var, features.0.1.num_batches_tracked" in told
        )
        assert " more" in told
        assert "of another shape features.0.0.weight is (32, 3, 3, 3) and should be (96, 3, 4, 4)" in told

    def test_one_key_less_and_one_more(self, tmp_path: Path) -> None:
        state: State = timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict()
        state["blocks.12.norm1.weight"] = state.pop("blocks.7.norm1.weight")
        path = save(state, tmp_path / "vit.safetensors")
        expected = "does not fit VisionTransformer: missing blocks.7.norm1.weight; unexpected blocks.12.norm1.weight$"
        with pytest.raises(WeightsError, match=expected):
            HybridViT(pretrained=path)

    def test_weights_that_are_no_numbers(self, tmp_path: Path) -> None:
        state = EfficientNet(pretrained=False).state_dict()
        state["backbone.features.0.0.weight"][3, 1] = float("nan")
        torch.save(state, tmp_path / "broken.pt")
        with pytest.raises(
            WeightsError, match=r"broken\.pt does not fit .*: not finite backbone\.features\.0\.0\.weight$"
        ):
            EfficientNet(pretrained=tmp_path / "broken.pt")

    @pytest.mark.parametrize("pretrained", [None, 1, b"weights.pt"])
    def test_what_is_neither_a_choice_nor_a_path(self, pretrained: Any) -> None:
        with pytest.raises(ValueError, match="pretrained is True, False or the path of a file, not "):
            EfficientNet(pretrained=pretrained)

    def test_a_whole_network_for_other_classes(self, tmp_path: Path) -> None:
        path = save(HybridViT(depth=1, pretrained=False).state_dict(), tmp_path / "whole.pt")
        expected = r"of another shape head.weight is \(2, 192\) and should be \(3, 192\), head.bias is \(2,\) and"
        with pytest.raises(WeightsError, match=expected):
            HybridViT(depth=1, num_classes=3, pretrained=path)

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2), {"model": [0]}])
    def test_no_state_dict(self, tmp_path: Path, content: object) -> None:
        path = save(content, tmp_path / "other.pt")
        with pytest.raises(WeightsError, match=r"other\.pt holds no state dict: names and tensors were expected"):
            EfficientNet(pretrained=path)

    @pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
    def test_something_else_altogether(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("not weights")
        with pytest.raises(WeightsError, match=f"{name} cannot be read as"):
            EfficientNet(pretrained=tmp_path / name)

    def test_a_program_is_not_run(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
        with pytest.raises(WeightsError, match="cannot be read as"):
            EfficientNet(pretrained=tmp_path / "module.pth")
