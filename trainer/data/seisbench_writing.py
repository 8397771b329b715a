"""Write a data set in SeisBench's format: what `quake.data.seisbench` reads, and ``seisbench.data.WaveformDataset`` too.

What is not here: blocks and chunks; any order of components but Z, N, E.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer.data.record import COMPONENTS, RATE_HZ


class SeisBenchWriter:
    """A context: ``metadata.csv`` is written when it ends well, so a set that was given up cannot be read.

    ``folder``: is there, and empty. OSError where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Mapping[str, Any]] = []
        """Of the metadata, so far."""
        self._file = h5py.File(folder / "waveforms.hdf5", "x")

    def __enter__(self) -> Self:
        layout = {"dimension_order": "CW", "component_order": COMPONENTS, "sampling_rate": float(RATE_HZ)}
        for key, value in layout.items():
            self._file[f"data_format/{key}"] = value
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            pd.DataFrame(self.rows).to_csv(self.folder / "metadata.csv", index=False)

    def add(self, name: str, samples: NDArray[np.float32], row: Mapping[str, Any]) -> None:
        """(3, N) Z, N, E at RATE_HZ. ``name``: of a kind; ``row``: its further columns."""
        self._file.create_dataset(f"data/{name}", data=samples, compression="gzip", compression_opts=1, shuffle=True)
        own = {
            "trace_name": name,
            "trace_sampling_rate_hz": float(RATE_HZ),
            "trace_npts": samples.shape[1],
            "trace_component_order": COMPONENTS,
        }
        self.rows.append({**own, **row})
