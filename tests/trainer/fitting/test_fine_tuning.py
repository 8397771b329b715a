"""Fine-tuning: what learns in which epoch, at which rates, also after a stop; and orders that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from quake.models import ConvNeXtMultiTask, HybridViT
from trainer.fitting.checkpoint import save_checkpoint
from trainer.fitting.fine_tuning import FineTuning
from trainer.network import StagedNetwork
from trainer.section import RecipeError

RELEASES = [{"epoch": 3, "last": 1}, {"epoch": 5, "last": 2}, {"epoch": 8}]


def config(**knobs: Any) -> FineTuning:
    return FineTuning.model_validate({"start": "model.pt", **knobs})


def small() -> HybridViT:
    return HybridViT(depth=2, pretrained=False)


def learning(network: StagedNetwork) -> list[str]:
    """Names of the stages of which all parameters learn."""
    state = dict(network.named_parameters())
    return [
        stage.name
        for stage in network.stages
        if all(one.requires_grad for name, one in state.items() if name.startswith(stage.parts))
    ]


def test_stages_are_released_epoch_by_epoch() -> None:
    network, made = small(), config(freeze=True, unfreeze=RELEASES)
    made.prepare(network)
    found = [(made.at_epoch(network, epoch), learning(network)) for epoch in range(10)]
    frozen, all_stages = ["stem", "head"], ["stem", "embeddings", "block 0", "block 1", "head"]
    assert found == [
        *[(False, frozen)] * 3,
        (True, ["stem", "block 1", "head"]),
        (False, ["stem", "block 1", "head"]),
        (True, ["stem", "block 0", "block 1", "head"]),
        *[(False, ["stem", "block 0", "block 1", "head"])] * 2,
        (True, all_stages),
        (False, all_stages),
    ]


@pytest.mark.parametrize("epoch", [0, 2, 3, 6, 9])
def test_a_resumed_run_learns_what_it_would_have(epoch: int) -> None:
    made = config(freeze=True, unfreeze=RELEASES)
    whole, resumed = ConvNeXtMultiTask("atto", pretrained=False), ConvNeXtMultiTask("atto", pretrained=False)
    for network in (whole, resumed):
        made.prepare(network)
    for each in range(epoch + 1):
        made.at_epoch(whole, each)
    made.at_epoch(resumed, epoch)
    assert learning(resumed) == learning(whole)
    expected = [module.training for module in whole.train().modules()]
    assert [module.training for module in resumed.train().modules()] == expected


def test_rates_fall_with_the_first_release() -> None:
    made = config(freeze=True, unfreeze=RELEASES, rate_after=0.1)
    assert [made.factor(epoch) for epoch in (0, 2, 3, 4, 5, 9)] == [1, 1, 0.1, 0.1, 0.1, 0.1]
    assert config(freeze=True, unfreeze=RELEASES).factor(9) == 1
    assert config().factor(0) == 1


def test_without_an_order_all_learns_from_the_start() -> None:
    network, made = small(), config()
    made.prepare(network)
    assert not made.at_epoch(network, 0)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_it_fills_and_then_prepares(tmp_path: Path) -> None:
    torch.manual_seed(1)
    fitted = small()
    save_checkpoint(tmp_path / "last.pt", {"network": fitted.state_dict()})
    network, made = small(), config(start="last.pt", head="replace", lora={"rank": 2})
    head = network.head.weight.detach().clone()
    made.fill(network, tmp_path)
    torch.testing.assert_close(network.norm.weight, fitted.norm.weight)
    torch.testing.assert_close(network.blocks[0].attn.qkv.weight, fitted.blocks[0].attn.qkv.weight, rtol=0, atol=0)
    torch.testing.assert_close(network.head.weight.detach(), head, rtol=0, atol=0)
    made.prepare(network)
    assert "blocks.0.attn.qkv.lora_A.default.weight" in dict(network.named_parameters())


def test_stages_that_are_not_there_are_refused_before_the_first_epoch() -> None:
    made = config(freeze=True, unfreeze=[{"epoch": 2, "last": 4}])
    with pytest.raises(RecipeError, match=r"fine_tuning\.unfreeze: last 4, and the backbone has 3 stages"):
        made.prepare(small())


@pytest.mark.parametrize(
    ("knobs", "fault"),
    [
        ({"unfreeze": [{"epoch": 1}]}, "unfreeze releases nothing where freeze is false"),
        ({"freeze": True, "lora": {}}, "lora freezes the backbone itself"),
        ({"freeze": True, "rate_after": 0.1}, "rate_after has no effect"),
        ({"freeze": True, "unfreeze": [{"epoch": 3}, {"epoch": 3}]}, "epoch 3 releases nothing"),
        ({"freeze": True, "unfreeze": [{"epoch": 3}, {"epoch": 4, "last": 2}]}, "epoch 4 releases nothing"),
        ({"freeze": True, "unfreeze": [{"epoch": 3, "last": 2}, {"epoch": 4, "last": 2}]}, "epoch 4 releases nothing"),
        ({"freeze": True, "unfreeze": [{"epoch": 0}]}, "greater than or equal to 1"),
        ({"head": "new"}, "Input should be 'keep' or 'replace'"),
        ({"start": None}, "start"),
        ({"start": []}, "start names no file"),
    ],
    ids=str,
)
def test_orders_that_make_no_sense_are_refused(knobs: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        config(**knobs)
