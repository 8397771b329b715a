"""From the README's recipe to an alarm: the model is fitted by the program, and the daemon runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from daemon_harness import Place
from test_same_alerts import ends

from quake.alerts import Kind
from quake.artifact import CompiledModel
from streamer.server import Record, ReplayServer
from streamer.server.records import read
from trainer.data.quality import Quality
from trainer.data.sources import read_records
from trainer.recipe import read_recipe

RECIPE = Path(__file__).parents[2] / "trainer" / "recipes" / "smoke.toml"
LONGEST_S = 300.0
"""What the README's example may take from the command to the model, on two cores that drills share: alone it is a minute or two."""


def new_earthquake(folder: Path) -> list[Record]:
    """Of the recipe's kind, but of another seed: records of a station that the model has never seen."""
    from obspy import Stream, Trace, UTCDateTime

    source = (
        read_recipe(RECIPE)
        .recipe.data.source[0]
        .model_copy(update={"seed": 99, "count": 1, "noise": 1, "magnitude": (4.5, 4.5), "distance_km": (15.0, 15.0)})
    )
    collection = read_records([source], "train", Quality(), folder)
    (event,) = (record for record in collection.records if record.is_event)
    header = {"network": "XX", "station": "MADE", "sampling_rate": 100.0, "starttime": UTCDateTime(2026, 1, 1)}
    traces = [
        Trace(np.round(samples).astype(np.int32), {**header, "channel": f"HH{component}"})
        for component, samples in zip("ZNE", event.samples, strict=True)
    ]
    path = folder / "made.mseed"
    Stream(traces).write(str(path), format="MSEED")
    return read([path])


@pytest.mark.drill
def test_the_readmes_recipe_is_over_in_time_and_the_daemon_raises_alarms_with_its_model(place: Place) -> None:
    out = place.folder / "smoke"
    began = time.monotonic()
    command = [sys.executable, "-m", "trainer.cli", "fit", str(RECIPE), "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    took_s = time.monotonic() - began
    assert ended.returncode == 0, ended.stderr
    assert took_s <= LONGEST_S
    model = CompiledModel.load(out / "model.pt", "cpu")
    records = new_earthquake(place.folder)
    with ReplayServer(records, speed=20.0) as server:
        config = place.configure(server.address, top=f'[model]\npath = "{out / "model.pt"}"\n')
        with place.start(config) as life:
            life.wait_newest(ends(records), 120.0)
            assert server.wait_sent(120.0)
            assert life.stop() == 0
    detections = [alert for alert in place.published() if alert.kind is Kind.DETECTION]
    assert detections
    assert {alert.model.sha256 for alert in detections} == {model.sha256}
