"""Where weights come from: the libraries' caches, their hubs, or a file.

A file holds a backbone as timm or torchvision published it, whose classifier is dropped, or a whole network of ours.
There are no random weights in place of ones that cannot be had. What is not here: the conversion of weights in other
layouts (Google's .npz, Facebook's names for ConvNeXt).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import huggingface_hub
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants as hub_constants
from torch import Tensor, nn

REACH_S = 10.0
"""How long a hub may take to answer at all, before it is said that it cannot be reached."""
TIMM_FILE = "model.safetensors"
NAMED_KEYS = 3
"""Keys of each kind that an error names: a wrong file is wrong in hundreds."""


class WeightsError(RuntimeError):
    """Weights that were asked for cannot be had, or do not fit."""


class HubFile(NamedTuple):
    """A file of published weights."""

    name: str
    """The library's name of the network."""
    url: str
    place: Path
    """Where the library's cache has it, or would have it."""
    download: Callable[[], Path]


class Weights(NamedTuple):
    """A state dict, and the file it came from."""

    origin: Path
    state: dict[str, Tensor]

    def load(self, module: nn.Module, without: str | None = None) -> None:
        """Fill ``module``, every key of it; keys that begin with ``without`` are dropped from the file.

        WeightsError names the first keys that do not fit.
        """
        given = {key: tensor for key, tensor in self.state.items() if not (without and key.startswith(without))}
        misfits = _misfits(module.state_dict(), given)
        if misfits:
            raise WeightsError(f"{self.origin} does not fit {type(module).__name__}: {'; '.join(misfits)}")
        module.load_state_dict(given)


def obtain(pretrained: bool | str | Path, hub: HubFile, mark: str) -> tuple[Weights | None, Weights | None]:
    """Return the weights of the published backbone and of a whole network of ours, at most one of the two.

    ``pretrained``: True for the library's cache, else its hub; a path for that file; False for neither.
    ``mark``: how keys begin that only our network has. WeightsError where there is nothing to be had, ValueError for
    what is neither.
    """
    if not isinstance(pretrained, (bool, str, Path)):
        raise ValueError(f"pretrained is True, False or the path of a file, not {pretrained!r}")
    if pretrained is False:
        return None, None
    origin = _cached(hub) if pretrained is True else Path(pretrained)
    weights = Weights(origin, _read(origin))
    whole = any(key.startswith(mark) for key in weights.state)
    return (None, weights) if whole else (weights, None)


def timm_file(name: str) -> HubFile:
    """What timm publishes for this network, on the Hugging Face hub."""
    published: Any = timm.models.get_pretrained_cfg(name)
    repository: str = published.hf_hub_id
    folder = Path(hub_constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    revision = reference.read_text(encoding="utf-8").strip() if reference.is_file() else "main"
    url = huggingface_hub.hf_hub_url(repository, TIMM_FILE)

    def download() -> Path:
        huggingface_hub.get_hf_file_metadata(url, timeout=REACH_S)  # without it: six tries, three quarters of a minute
        return Path(huggingface_hub.hf_hub_download(repository, TIMM_FILE))

    return HubFile(name, url, folder / "snapshots" / revision / TIMM_FILE, download)


def torchvision_file(name: str) -> HubFile:
    """What torchvision publishes for this network, its newest recipe."""
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name

    def download() -> Path:
        with urlopen(Request(url, method="HEAD"), timeout=REACH_S):  # torch.hub itself waits for ever
            place.parent.mkdir(parents=True, exist_ok=True)
        sha256_prefix = place.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(place), sha256_prefix, progress=False)
        return place

    return HubFile(name, url, place, download)


def _cached(hub: HubFile) -> Path:
    if hub.place.is_file():
        return hub.place
    try:
        return hub.download()
    except Exception as error:  # what a hub raises is the business of urllib, httpx and huggingface_hub
        message = (
            f"no pretrained weights of {hub.name}: {hub.place} is not there, and {hub.url} cannot be had ({error}); "
            "put the file at that place, pass pretrained='path of the file', "
            "or pass pretrained=False to start from random weights"
        )
        raise WeightsError(message) from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth or .pt with a state dict, bare or as its entry "model"."""
    try:
        content: Any = (
            safetensors.torch.load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # pickle, zip, safetensors and the file system each have errors of their own
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as .safetensors, .pth or .pt: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{path} holds no state dict: names and tensors were expected")
    return state


def _misfits(expected: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    reshaped = [
        f"{key} is {tuple(given[key].shape)} and should be {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    broken = [key for key, tensor in given.items() if not torch.isfinite(tensor).all()]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped, "not finite": broken}
    return [f"{kind} {_first(keys)}" for kind, keys in kinds.items() if keys]


def _first(keys: list[str]) -> str:
    more = len(keys) - NAMED_KEYS
    return ", ".join(keys[:NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")
