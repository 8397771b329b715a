"""SeisBench's pickers over a file: a helper of `benchmarks.side_by_side`, run in the environment that scripts/peers makes.

    build/peers/venv/bin/python benchmarks/annotate.py WEIGHTS FILE

For each line on its input it annotates all of FILE with each picker on one thread, as SeisBench does by default, and
writes a line of JSON: picker -> seconds, and how many windows that is.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import obspy
import torch


def pickers(weights: Path) -> dict[str, Any]:
    import seisbench.models as sbm

    found = {
        "PhaseNet": (sbm.PhaseNet(phases="NPS"), "phasenet_original"),
        "EQTransformer": (
            sbm.EQTransformer(lstm_blocks=3, original_compatible="conservative", norm="std"),
            "eqtransformer_original",
        ),
    }
    for network, file in found.values():
        network.load_state_dict(torch.load(weights / f"{file}.pt", weights_only=True))
        network.eval()
    return {name: network for name, (network, _) in found.items()}


def windows(network: Any, stream: obspy.Stream) -> int:
    """Of all stations, at SeisBench's default overlap, the last one flush with the end."""
    stride = network.in_samples - network._get_overlap(network.in_samples, {})
    verticals = stream.select(component="Z")
    return sum(1 + math.ceil((trace.stats.npts - network.in_samples) / stride) for trace in verticals)


def annotated_s(network: Any, stream: obspy.Stream) -> float:
    begun_s = time.perf_counter()
    network.annotate(stream)
    return time.perf_counter() - begun_s


def main(weights: Path, file: Path) -> None:
    torch.set_num_threads(1)
    networks, stream = pickers(weights), obspy.read(str(file))
    for _ in sys.stdin:
        told = {name: (annotated_s(one, stream), windows(one, stream)) for name, one in networks.items()}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
