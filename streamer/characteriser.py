"""Size and direction of what a detection's window holds, by a second model that is asked when one opens and as it grows.

It decides nothing: an alert says what it says, or null with the reason. A fault of it costs the answer, not the alert.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quake.alerts import Characterisation
from quake.characterisation import characterisation, nothing, require_heads, unknown
from quake.data.spec import ModelError, ModelSpec
from quake.data.spec_file import is_torchscript, read_content, read_spec
from streamer.config import Config, ConfigError
from streamer.grid import Grid
from streamer.inventory import Stations
from streamer.loading import load_compiled, shipped
from streamer.stages import Window
from streamer.worker import Model

if TYPE_CHECKING:
    from quake.artifact import CompiledModel

SHIPPED = "characteriser.pt"
PER_METRE = {"m/s": 1.0, "nm/s": 1e9}
"""Units that a characteriser may read, of those in a metre per second."""
FAILED = "the characteriser failed"
NO_ANSWER = "the characteriser has no answer to this window"
NO_SAMPLES = "too much of these hours looks like earthquakes to keep the samples of all"
NO_GAINS = "no station's gain is known"
NO_TORCH = (
    "the shipped characteriser needs PyTorch, and this detector does without: characteriser.path may name an ONNX file"
)

log = logging.getLogger(__name__)


class Characteriser:
    """Asks about one window at a time."""

    def __init__(
        self, model: CompiledModel | None, spec: ModelSpec, stations: Stations, grid: Grid, why_none: str = NO_GAINS
    ) -> None:
        """``why_none``: why there is no model, for alerts and people."""
        self._model, self._spec, self._stations, self._grid = model, spec, stations, grid
        self._why_none = why_none

    def __str__(self) -> str:
        asked = f"{self._spec.name} {self._spec.version}, at stations of a known gain"
        return asked if self._model else f"not asked, so alerts tell no magnitude: {self._why_none}"

    def warm_up(self) -> None:
        """The first answer takes long."""
        if self._model is not None:
            self._model.warm_up((1,))

    def ask(self, window: Window) -> Characterisation:
        """What the window tells, or why it tells nothing."""
        gains = self._stations.counts_per_m_s(window.subject, self._grid.start_ns(window.k))
        whole = window.complete and window.components == "ZNE"
        oriented = self._stations.is_oriented(window.subject)
        silent = unknown(self._spec, gain_known=gains is not None, oriented=oriented, whole=whole)
        if self._model is None or gains is None or len(silent) == len(self._spec.heads):
            return nothing(self._spec, silent, self._why_none)
        if not window.samples.size:
            return nothing(self._spec, silent, NO_SAMPLES)
        try:
            return characterisation(self._spec, self._answer(self._model, window, gains), silent)
        except ValueError as error:
            log.warning("window %d of %s is not characterised: %s", window.k, window.subject, error)
            return nothing(self._spec, silent, NO_ANSWER)
        except Exception:
            log.exception("the characteriser failed: alerts say null until the next start or reload")
            self._model, self._why_none = None, FAILED
            return nothing(self._spec, silent, FAILED)

    def _answer(self, model: Model, window: Window, gains: Sequence[float]) -> NDArray[np.float32]:
        """(classes of all heads,). Each row by its own gain; a station whose components are turned into one another is
        taken to have gains that are alike."""
        scale = PER_METRE[self._spec.unit] / np.asarray(gains)  # (3,)
        ground = (window.samples * scale[:, None]).astype(np.float32)  # (3, N) in the model's unit
        spectrograms = model.transform(ground[None])  # (1, 3, N) -> (1, 3, F, T)
        answer: NDArray[np.float32] = model.score(spectrograms)[0]
        if not np.isfinite(answer).all():
            raise ValueError("its answer is no number")
        return answer


def load_characteriser(config: Config, stations: Stations, grid: Grid) -> Characteriser | None:
    """None where the configuration wants none. The model is loaded only where it would be asked. Raises `ConfigError`."""
    wanted = config.characteriser
    if not wanted.enabled:
        return None
    path = wanted.path or shipped(SHIPPED)
    try:
        spec = read_spec(path)
        require_heads(spec)
    except (ModelError, ValueError) as error:
        raise ConfigError(f"characteriser: {error}") from error
    fault = _misfit(spec, path.name, grid)
    if wanted.path is not None and fault:
        raise ConfigError(f"characteriser: {fault}")
    if not stations.any_gain:
        return Characteriser(None, spec, stations, grid)
    if wanted.path is None and (fault or _wants_torch(config, path)):
        return Characteriser(None, spec, stations, grid, fault or NO_TORCH)
    model = load_compiled(
        "characteriser", path, sha256=wanted.sha256, threads=config.model.threads, trial=wanted.path is not None
    )
    return Characteriser(model, model.spec, stations, grid)


def _wants_torch(config: Config, path: Path) -> bool:
    """On a small box, whose detector does without, and whose memory it would fill."""
    detector = config.model.path
    return detector is not None and is_torchscript(read_content(path)) and not is_torchscript(read_content(detector))


def _misfit(spec: ModelSpec, name: str, grid: Grid) -> str:
    """Why it cannot read the detector's windows; nothing where it can."""
    read = (spec.task, spec.components, spec.sampling_rate_hz, spec.window_samples)
    wanted = ("characterise", ("Z", "N", "E"), float(grid.rate), grid.window)
    if read != wanted:
        return f"{name} reads {read}, the detector's windows are {wanted}"
    return "" if spec.unit in PER_METRE else f"{name} reads {spec.unit}; known: {', '.join(PER_METRE)}"
