"""From fitted weights to the compiled model: the spec of the detector, and the file.

What a person says about a model (version, thresholds, training data with citations, measured skill) is a JSON file
with fields of `ModelSpec`; `models/zoo/detector.json` is that of the shipped one. Without it the training data are
named as far as the data set's own table names them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from quake.artifact import ModelError, ModelSpec, compile_model
from quake.data.spectrogram import SpectrogramShape
from quake.models import HybridViT
from trainer.augment import Augmenter
from trainer.fit_detector import DEPTH, WINDOW_SAMPLES, draw_batch, new_network
from trainer.windows import RATE_HZ, Drawer, Record

EXAMPLE_SEED = 20
EXAMPLES = 64
"""Windows on which the compiled network is held against the eager one."""
DEFAULT_THRESHOLDS = {"on": 0.9, "off": 0.45}
"""Where there is nothing to choose them from."""


def detector_spec(folder: Path, description: Mapping[str, Any]) -> ModelSpec:
    """The detector's spec; ``description`` holds fields of `ModelSpec` that are said rather than known.

    ModelError for a field that `ModelSpec` refuses.
    """
    shape = SpectrogramShape()
    known = {
        "name": "detector",
        "version": "0.1.0",
        "task": "detect",
        "architecture": f"HybridViT: convolutional stem, {DEPTH} blocks of ViT-Tiny; random start",
        "components": ("Z", "N", "E"),
        "sampling_rate_hz": float(RATE_HZ),
        "window_samples": WINDOW_SAMPLES,
        "stft": {"nperseg": shape.nperseg, "hop": shape.hop, "window": shape.window},
        "gain": shape.gain,
        "heads": ({"name": "event", "classes": ("noise", "earthquake")},),
        "thresholds": DEFAULT_THRESHOLDS,
    }
    try:
        return ModelSpec.model_validate({**known, "training_data": _sources(folder), **description})
    except ValidationError as error:
        raise ModelError(f"the description of the model is wrong: {error}") from error


def read_description(path: Path | None) -> dict[str, Any]:
    """ModelError where the file is not a JSON object."""
    if path is None:
        return {}
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(description, dict):
        raise ModelError(f"{path}: a JSON object was expected")
    return description


def read_checkpoint(path: Path) -> HybridViT:
    """ModelError for a file that does not hold the detector's weights."""
    network = new_network()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(f"{path}: not a checkpoint of the detector: {error}") from error
    return network.eval()


def compile_detector(network: HybridViT, spec: ModelSpec, records: Sequence[Record]) -> bytes:
    """The model file's content, checked on windows drawn from ``records``."""
    rng = np.random.default_rng(EXAMPLE_SEED)
    example, _ = draw_batch(Augmenter(Drawer(records, rng), rng, WINDOW_SAMPLES), EXAMPLES)
    return compile_model(network, spec, example)


def _sources(folder: Path) -> list[dict[str, str]]:
    table = pd.read_csv(folder / "metadata.csv", low_memory=False)
    table = table[table["split"] == "train"]
    licences = table["licence"] if "licence" in table else pd.Series("not stated", index=table.index)
    pairs = sorted({(str(name), str(licence)) for name, licence in zip(table["source_dataset"], licences, strict=True)})
    return [{"name": name, "licence": licence, "citation": "not stated in metadata.csv"} for name, licence in pairs]
