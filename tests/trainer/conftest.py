"""A data set in SeisBench's format, made of synthetic earthquakes, and where the real one is."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data" / "windows"
P = 2500


def synthetic(rng: np.random.Generator, p: int | None, length: int = 5000) -> np.ndarray:
    """(3, length) noise, with a decaying burst from ``p`` on."""
    samples = rng.standard_normal((3, length))
    if p is not None:
        age = (np.arange(length) - p) / 100
        samples += np.where(age >= 0, 30 * np.exp(-np.maximum(age, 0) / 4), 0) * rng.standard_normal((3, length))
    return (100 * samples + 5000).astype(np.float32)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight earthquakes and eight noise records in each of ``train`` and ``dev``."""
    folder = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(0)
    rows = []
    with h5py.File(folder / "waveforms.hdf5", "w") as archive:
        for number in range(32):
            is_event, name = number % 2 == 0, f"trace{number}"
            archive[f"data/{name}"] = synthetic(rng, P if is_event else None)
            rows.append(
                {
                    "trace_name": name,
                    "trace_category": "earthquake_local" if is_event else "noise",
                    "trace_sampling_rate_hz": 100.0,
                    "trace_p_arrival_sample": P if is_event else np.nan,
                    "trace_s_arrival_sample": P + 300 if is_event and number % 4 == 0 else np.nan,
                    "source_id": f"quake{number}" if is_event else "",
                    "source_dataset": "small" if number < 6 else "large",
                    "split": "train" if number < 16 else "dev",
                    "licence": "CC0-1.0",
                }
            )
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.fixture
def shared() -> Path:
    """The real recordings; skips where they are not, except in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing, and CI must have it")
        pytest.skip(f"{SHARED} is missing")
    return SHARED
