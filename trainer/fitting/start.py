"""Weights to go on from: those of a compiled model, or of a checkpoint of a run.

What is not here: weights that libraries publish (`network.pretrained` of the recipe).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from quake.backends.torchscript import read_network
from quake.data.spec import ModelError
from quake.data.spec_file import SPEC_MEMBER, is_torchscript, parse_spec, read_content
from trainer.fitting.checkpoint import load_checkpoint
from trainer.network import StagedNetwork

STATES = ("ema", "network")
"""Entries of a checkpoint that hold a state dict: the averaged weights come first, where there are any."""
NAMED_KEYS = 3
"""Keys of each kind that an error names: a wrong file is wrong in hundreds."""

State = Mapping[str, Tensor]


def start_from(network: StagedNetwork, paths: Sequence[Path], head: Literal["keep", "replace"]) -> None:
    """Fill ``network`` with the mean of the files' weights; with "replace" the last layer of each head stays as it is.

    Of several runs that went on from one network the mean is often better than any of them (Wortsman et al. 2022,
    "Model soups"); of others it is nothing. ModelError for a file without weights of ours, and for weights that do not
    fit, by their names.
    """
    kept = tuple(f"{name}." for name in last_layers(network)) if head == "replace" else ()
    states = [_fitting(network, path, kept) for path in paths]
    network.load_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})


def _fitting(network: StagedNetwork, path: Path, kept: tuple[str, ...]) -> State:
    """What the file has, and of what begins with ``kept`` the network's own."""
    own, given = network.state_dict(), read_state(path)
    answering = tuple(f"{name}." for name in last_layers(network))
    given |= {key: tensor for key, tensor in own.items() if key.startswith(kept)}
    misfits = _misfits(own, given)
    if misfits:
        elsewhere = _misfits(
            *({k: t for k, t in state.items() if not k.startswith(answering)} for state in (own, given))
        )
        advice = "" if elsewhere else '; fine_tuning.head = "replace" would start with a new head'
        raise ModelError(f"{path} does not fit {type(network).__name__}: {'; '.join(misfits)}{advice}")
    return given


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Counters are the first one's."""
    return torch.stack(list(tensors)).mean(0) if tensors[0].is_floating_point() else tensors[0]


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a TorchScript model, checked and widened to float32, or in a checkpoint, the average if any.

    ModelError where there is none.
    """
    content = read_content(path)
    if not is_torchscript(content):  # nor is it a checkpoint: those are zips too
        raise ModelError(f"{path}: neither a TorchScript model nor a checkpoint of a run")
    if _has_spec(content):
        state: dict[str, Tensor] = read_network(path, content, parse_spec(path, content), "cpu").state_dict()
        return state
    checkpoint = load_checkpoint(path)
    return dict(next(checkpoint[name] for name in STATES if checkpoint.get(name)))


def last_layers(network: StagedNetwork) -> list[str]:
    """Names of the linear layers that answer: one for each head."""
    return [_last_linear(network, part) for part in network.stages[-1].parts]


def _last_linear(network: nn.Module, part: str) -> str:
    linear = [name for name, module in network.get_submodule(part).named_modules() if isinstance(module, nn.Linear)]
    return f"{part}.{linear[-1]}".rstrip(".")


def _has_spec(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith(f"/extra/{SPEC_MEMBER}") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _misfits(expected: State, given: State) -> list[str]:
    reshaped = [
        f"{key} is {tuple(given[key].shape)} and should be {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    kinds = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape:": reshaped,
        "not finite:": [key for key, tensor in given.items() if not torch.isfinite(tensor).all()],
    }
    return [f"{kind} {_first(keys)}" for kind, keys in kinds.items() if keys]


def _first(keys: list[str]) -> str:
    more = len(keys) - NAMED_KEYS
    return ", ".join(keys[:NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")
