"""Stages: what is frozen and released, groups for an optimiser, and networks that trace and script silently."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.staged import Staged
from quake.models import Backbone, ConvNeXtMultiTask, EfficientNet, HybridViT

FAMILIES = ("hybrid_vit", "efficientnet", "convnext", "convnext_timm")
BACKBONE_STAGES = {"hybrid_vit": 4, "efficientnet": 9, "convnext": 5, "convnext_timm": 5}


@cache
def network_of(family: str) -> Staged:
    """One network for all tests: each sets what is frozen before it looks."""
    if family == "hybrid_vit":
        return HybridViT(Backbone.TINY, depth=3, dropout=0, pretrained=False)
    if family == "efficientnet":
        return EfficientNet(dropout=0, pretrained=False)
    variant = "tiny" if family == "convnext" else "atto"
    return ConvNeXtMultiTask(variant, pretrained=False, dropout=0, stochastic_depth=0.5, layer_scale=1)


def learning(network: Staged) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def of_stages(network: Staged, names: set[str]) -> set[str]:
    """The stages that these parameters lie in."""
    parts = {part: stage.name for stage in network.stages for part in stage.parts}
    return {stage for name in names for part, stage in parts.items() if f"{name}.".startswith(f"{part}.")}


def statistics(network: Staged) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_lies_in_one_stage(family: str) -> None:
    network = network_of(family)
    for name, _ in network.named_parameters():
        owners = [stage for stage in network.stages for part in stage.parts if f"{name}.".startswith(f"{part}.")]
        assert len(owners) == 1, name


def test_stages_go_from_the_input_to_the_heads() -> None:
    names = {family: [stage.name for stage in network_of(family).stages] for family in FAMILIES}
    assert names["hybrid_vit"] == ["stem", "embeddings", "block 0", "block 1", "block 2", "head"]
    assert names["efficientnet"] == [*(f"features {index}" for index in range(9)), "head"]
    assert names["convnext"] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "heads"]
    assert names["convnext_timm"] == names["convnext"]


class TestFreezing:
    """A frozen stage neither learns nor moves, and drops nothing."""

    def test_hybrid_vit_learns_in_stem_and_head_only(self) -> None:
        made = HybridViT(depth=1, freeze_backbone=True, pretrained=False)
        assert {name.split(".")[0] for name in learning(made)} == {"stem", "head"}

    def test_efficientnet_learns_in_its_head_only(self) -> None:
        made = EfficientNet(freeze_backbone=True, pretrained=False)
        assert of_stages(made, learning(made)) == {"head"}

    @pytest.mark.parametrize("variant", ["atto", "tiny"])
    def test_convnext_learns_in_its_heads_only(self, variant: str) -> None:
        made = ConvNeXtMultiTask(variant, freeze_backbone=True, pretrained=False)
        assert {name.split(".")[0] for name in learning(made)} == {"mag_head", "azi_head"}

    @pytest.mark.parametrize("family", FAMILIES)
    @given(steps=st.lists(st.integers(1, 9), max_size=4))
    @settings(max_examples=10, deadline=None)
    def test_the_last_stages_are_released_and_stay_so(self, family: str, steps: list[int]) -> None:
        network, count = network_of(family), BACKBONE_STAGES[family]
        network.freeze()
        taken = [min(step, count) for step in steps]
        for last in taken:
            network.unfreeze(last=last)
        names = [stage.name for stage in network.stages if stage.pretrained]
        always = {stage.name for stage in network.stages if not stage.pretrained}
        assert len(names) == count
        assert of_stages(network, learning(network)) == always | set(names[count - max(taken, default=0) :])
        network.unfreeze()
        assert learning(network) == {name for name, _ in network.named_parameters()}

    @pytest.mark.parametrize("last", [0, 6, -1])
    def test_stages_that_are_not_there_are_refused(self, last: int) -> None:
        with pytest.raises(ValueError, match=f"last {last} is not within 1 to 5, the stages of the backbone"):
            network_of("convnext").unfreeze(last=last)

    def test_normalisation_statistics_move_where_a_stage_learns_and_nowhere_else(self) -> None:
        network = network_of("efficientnet")
        network.freeze()
        network.train()
        before = statistics(network)
        network(torch.randn(2, 3, 64, 64))
        for name, after in network.named_buffers():
            torch.testing.assert_close(after, before[name], rtol=0, atol=0)
        network.unfreeze(last=1)
        network(torch.randn(2, 3, 64, 64))
        moved = {name for name, after in network.named_buffers() if not torch.equal(after, before[name])}
        assert moved == {
            f"backbone.features.8.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
        }

    def test_the_stem_before_a_frozen_transformer_goes_on_counting(self) -> None:
        network = network_of("hybrid_vit")
        network.freeze()
        network.train()
        before = statistics(network)
        network(torch.randn(2, 3, 33, 64))
        assert all(not torch.equal(after, before[name]) for name, after in network.named_buffers())

    @pytest.mark.parametrize("family", ["efficientnet", "convnext", "convnext_timm"])
    def test_nothing_is_dropped_in_a_frozen_backbone(self, family: str) -> None:
        network, images = network_of(family), torch.randn(2, 3, 64, 64)
        network.freeze()
        network.train()
        torch.testing.assert_close(network.features(images), network.features(images), rtol=0, atol=0)
        network.unfreeze()
        assert not torch.allclose(network.features(images), network.features(images))

    def test_evaluation_and_training_come_and_go(self) -> None:
        network = network_of("convnext")
        network.freeze()
        network.unfreeze(last=2)
        for _ in range(2):
            assert not any(module.training for module in network.eval().modules())
            network.train()
            backbone = network.get_submodule("backbone.features")
            assert [stage.training for stage in backbone] == [False] * 4 + [True] * 4
            assert all(module.training for module in network.get_submodule("mag_head").modules())

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_step_of_the_optimiser_moves_what_learns_and_nothing_else(self, family: str) -> None:
        network = network_of(family)
        network.freeze()
        network.unfreeze(last=1)
        network.zero_grad()
        before = {name: tensor.clone() for name, tensor in network.eval().state_dict().items()}
        size = (33, 64) if family == "hybrid_vit" else (64, 64)
        answer = network(torch.randn(2, 3, *size))
        torch.cat(answer if isinstance(answer, tuple) else (answer,), dim=1).square().sum().backward()
        torch.optim.AdamW(network.parameter_groups(0.01)).step()
        parameters = {name for name, _ in network.named_parameters()}
        moved = {name for name, after in network.state_dict().items() if not torch.equal(after, before[name])}
        assert moved & parameters == learning(network)


class TestParameterGroups:
    """Every parameter that learns, once, at its stage's rate."""

    @pytest.mark.parametrize("family", FAMILIES)
    @given(last=st.integers(0, 9), rate=st.floats(1e-6, 1), decay=st.floats(0.1, 1), weight_decay=st.floats(0, 0.5))
    @settings(max_examples=15, deadline=None)
    def test_hold_what_learns_exactly_once(
        self, family: str, last: int, rate: float, decay: float, weight_decay: float
    ) -> None:
        network = network_of(family)
        network.freeze()
        if last:
            network.unfreeze(last=min(last, BACKBONE_STAGES[family]))
        groups = network.parameter_groups(rate, decay, weight_decay)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        held = [names[id(parameter)] for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(learning(network))
        distances = {stage.name: index for index, stage in enumerate(reversed(network.stages))}
        for group in groups:
            inside = {names[id(parameter)] for parameter in group["params"]}
            assert of_stages(network, inside) == {group["stage"]}
            assert group["lr"] == pytest.approx(rate * decay ** distances[group["stage"]])
            assert group["weight_decay"] in {weight_decay, 0.0}

    def test_the_head_learns_fastest(self) -> None:
        network = network_of("hybrid_vit")
        network.unfreeze()
        rates = {group["stage"]: group["lr"] for group in network.parameter_groups(1.0, decay=0.5)}
        assert rates == {
            "head": 1,
            "block 2": 1 / 2,
            "block 1": 1 / 4,
            "block 0": 1 / 8,
            "embeddings": 1 / 16,
            "stem": 1 / 32,
        }

    @pytest.mark.parametrize("family", FAMILIES)
    def test_weight_decay_is_for_matrices_and_filters(self, family: str) -> None:
        network = network_of(family)
        network.unfreeze()
        groups = network.parameter_groups(1.0, weight_decay=0.1)
        decaying = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
        names = {name for name, parameter in network.named_parameters() if id(parameter) in decaying}
        matrices = {
            f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
        }
        assert names == matrices


@pytest.mark.parametrize("family", ["hybrid_vit", "efficientnet", "convnext", "convnext_timm"])
def test_networks_trace_without_a_warning_and_script(family: str) -> None:
    network, images = network_of(family).eval(), torch.randn(2, 3, 33, 64)
    expected = network(images)
    traced = torch.jit.trace(network, images)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(traced(images), expected)
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(images), expected)
    with pytest.raises(torch.jit.Error, match=r"too small|img_size"):
        scripted(torch.zeros(1, 3, 16, 16))
