"""Traces SeisBench's pickers to TorchScript: ``trace_peers.py WEIGHTS OUT``, run by ``scripts/peers``.

The adapter files of ``trainer/recipes/pickers`` go along: each names the file beside it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

PICKERS = Path(__file__).parents[1] / "trainer" / "recipes" / "pickers"
BATCH = 16


def main(weights: Path, out: Path) -> None:
    import seisbench.models as sbm

    functional.pad = _whole_padding(functional.pad)
    networks = {
        "phasenet": (sbm.PhaseNet(phases="NPS"), "phasenet_original"),
        "phasenet-volpick": (sbm.PhaseNet(phases="PSN"), "phasenet_volpick"),
        "eqtransformer": (
            sbm.EQTransformer(lstm_blocks=3, original_compatible="conservative", norm="std"),
            "eqtransformer_original",
        ),
        "eqtransformer-volpick": (sbm.EQTransformer(), "eqtransformer_volpick"),
    }
    for name, (network, file) in networks.items():
        network.load_state_dict(torch.load(weights / f"{file}.pt", weights_only=True))
        network.eval().requires_grad_(requires_grad=False)
        generator = torch.Generator().manual_seed(0)
        windows = torch.randn(BATCH, 3, network.in_samples, generator=generator)
        torch.jit.trace(network, windows, check_trace=False).save(out / f"{name}.pt")
        shutil.copy(PICKERS / f"{name}.toml", out)


def _whole_padding(pad: Any) -> Any:
    """torch 2.14 writes a padding of -1e10 as a whole number, which it cannot read again."""
    return lambda x, size, mode, value: pad(x, size, mode, value - 0.5 if value else value)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
