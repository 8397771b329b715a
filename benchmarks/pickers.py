"""Scores of pickers of others along labelled records, for `benchmarks.leave_one_out --peer-scores` and `benchmarks.skill --peers`.

    python -m benchmarks.pickers build/peers/eqtransformer-volpick.toml [...] --data SET --out FOLDER [--split dev]

A record with its lead is read in overlapping windows, whose answers are averaged; its score is the probability of P, the
highest of each twentieth of a second, stamped with the time it speaks of: a picker has then seen what follows, so compare
with ``--peer-picker``. ``FOLDER/NAME.csv`` has trace_name, time_s and score. What is not here: how a picker is fed
(`trainer.distillation.adapter`), and making their files (`scripts/peers`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.skill import read
from quake.artifact import ModelError
from quake.data.seisbench import DataError
from trainer.data.record import RATE_HZ, Record
from trainer.distillation.labelling import STEP, Listener, listen
from trainer.distillation.picker import Picker
from trainer.evaluation.scoring import COLUMNS
from trainer.section import RecipeError


def score(picker: Listener, record: Record) -> pd.DataFrame:
    """Along all of it, lead and all. DataError for one that is shorter than the picker's window."""
    if record.samples.shape[1] < picker.samples:
        raise DataError(f"{record.name}: shorter than the picker's window of {picker.samples / RATE_HZ:g} s")
    track = listen(picker, 0.0, record.samples).p  # (n,)
    times_s = (np.arange(len(track)) * STEP + STEP // 2) / RATE_HZ
    return pd.DataFrame({"trace_name": record.name, "time_s": times_s, "score": track}, columns=list(COLUMNS))


def run(chosen: argparse.Namespace) -> None:
    torch.set_num_threads(chosen.threads)
    records = read(chosen.data, chosen.split)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for path in chosen.picker:
        picker = Picker.load(path, None, "cpu")
        table = pd.concat([score(picker, record) for record in records], ignore_index=True)
        table.to_csv(chosen.out / f"{path.stem}.csv", index=False, float_format="%.6g")
        print(f"{path.stem}: {len(records)} records", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picker", type=Path, nargs="+", help="adapter files")
    parser.add_argument("--data", type=Path, required=True, help="folder in SeisBench's format")
    parser.add_argument("--split", help="all if not given")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    try:
        run(parser.parse_args(arguments))
    except (DataError, ModelError, RecipeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, RecipeError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
