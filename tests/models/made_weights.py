"""State dicts of the libraries, laid where their caches look for published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

State = dict[str, Tensor]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Caches:
    """Both libraries' caches, empty at first."""

    def __init__(self, folder: Path) -> None:
        self.hugging_face = folder / "hugging_face"
        self.torch_home = folder / "torch"

    def lay_timm(self, name: str, commit: str | None = COMMIT) -> State:
        """As the Hugging Face hub's client lays it; without a commit, as a person would by hand."""
        state: State = timm.create_model(name, pretrained=False).state_dict()
        repository: Any = timm.models.get_pretrained_cfg(name)
        folder = self.hugging_face / f"models--{repository.hf_hub_id.replace('/', '--')}"
        snapshot = folder / "snapshots" / (commit or "main")
        snapshot.mkdir(parents=True)
        if commit:
            (folder / "refs").mkdir()
            (folder / "refs" / "main").write_text(commit)
        safetensors.torch.save_file(state, snapshot / "model.safetensors")
        return state

    def lay_torchvision(self, name: str) -> State:
        state: State = torchvision.models.get_model(name, weights=None).state_dict()
        folder = self.torch_home / "hub" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        torch.save(state, folder / Path(url).name)
        return state
