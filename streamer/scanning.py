"""``quake-streamer scan``: an archive, a state to go on from, what is told meanwhile and written at the end."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from quake.alerts import Alert
from streamer import results
from streamer.archive import END_NS, Part, find
from streamer.composition import Scorer, load_scorer
from streamer.config import Config, ConfigError
from streamer.fdsn_service import DownloadError
from streamer.fdsn_spool import Spool, is_service, spools
from streamer.outbox import Outbox, OutboxError
from streamer.process import alone, signals
from streamer.scan_pool import Engine, cores
from streamer.scan_progress import Progress, make_bar
from streamer.scan_work import Work

SMALL_BYTES = 10_000_000
"""Some nine hours of a station: half a minute's work."""
MOST_TOLD = 10
"""Files that could not be read, by name."""


@dataclass(frozen=True, slots=True)
class Scanned:
    alerts: tuple[Alert, ...]
    """All revisions of the archive, those of earlier runs on the same state among them."""
    faults: tuple[str, ...]
    """What could not be read."""
    stopped: bool
    """Before its end."""


def run(
    config: Config,
    paths: Sequence[Path | str],
    *,
    select: Sequence[str] = (),
    begin_ns: int = 0,
    end_ns: int = END_NS,
    state: Path | None = None,
    outputs: Mapping[str, Path] = {},
    processes: int | None = None,
    engine: Engine | None = None,
    tell: Callable[[Alert], None] = lambda alert: None,
) -> Scanned:
    """``paths``: text is the address of an object store or of an FDSN service, and ``select`` says which channels of services;
    ``state``: a folder that remembers; ``outputs``: of `results.WRITERS`, and where to; ``processes``: as many as there are
    cores if not given, one on a GPU and for a small archive; ``engine``: scores instead of them. Raises `ConfigError`."""
    _check_outputs(outputs)
    services = spools([path for path in paths if is_service(path)], select, begin_ns, end_ns, state)
    parts, faults = _found([path for path in paths if not is_service(path)], begin_ns, end_ns)
    if not services:
        _require_some(parts, faults)
    scorer = load_scorer(config)
    with ExitStack() as stack:
        outbox = _outbox(stack, state)
        _require_same(outbox, scorer, config, [*map(_place, paths), *(select if services else ())], begin_ns, end_ns)
        if services:
            try:
                more, others = _downloaded(services, begin_ns, end_ns)
            except (DownloadError, KeyboardInterrupt) as error:
                return Scanned((), (*faults, *str(error).splitlines()), stopped=True)
            parts, faults = parts + more, faults + others
            _require_some(parts, faults)
        asked = stack.enter_context(signals())
        work = Work(config, scorer, outbox, tuple(parts), begin_ns, end_ns, engine)
        progress = stack.enter_context(Progress(tell, make_bar()))
        finished = work.run(processes or _processes(scorer, parts), progress, lambda: asked.stop)
        alerts = tuple(outbox.alerts())
    for name, path in outputs.items() if finished else ():
        results.WRITERS[name](results.newest(alerts), path)
    return Scanned(alerts, (*faults, *work.faults), not finished)


def on_ray(address: str | None, actors: int | None) -> Engine:
    """As `streamer.scan_ray.score` says. Raises `ConfigError` where Ray is not installed."""
    require_ray()
    from streamer import scan_ray

    return partial(scan_ray.score, address=address, actors=actors)


def require_ray() -> None:
    """Raises `ConfigError`."""
    if find_spec("ray") is None:
        raise ConfigError("--engine ray: ray is not installed: pip install 'quake[ray]'")


def _found(paths: Sequence[Path | str], begin_ns: int, end_ns: int) -> tuple[list[Part], list[str]]:
    if any(isinstance(path, str) for path in paths) and find_spec("obstore") is None:
        raise ConfigError("object stores: obstore is not installed: pip install 'quake[s3]'")
    try:
        return find(paths, begin_ns, min(end_ns, time.time_ns()))  # what is of the future is a wrong time
    except OSError as error:
        raise ConfigError(str(error)) from error


def _downloaded(services: Sequence[Spool], begin_ns: int, end_ns: int) -> tuple[list[Part], list[str]]:
    """Files, and what is wrong with others. Raises `DownloadError`: an archive with holes would be decided once and for all."""
    refused = [one for service in services for one in service.fill(time.time_ns())]
    parts, faults = _found([service.archive for service in services], begin_ns, end_ns)
    return parts, refused + faults


def _require_some(parts: Sequence[Part], faults: Sequence[str]) -> None:
    if not parts:
        raise ConfigError("\n".join(shortened(faults)) or "no recording in the paths given, or none of that time")


def _place(path: Path | str) -> str:
    return path if isinstance(path, str) else str(path.resolve())


def _processes(scorer: Scorer, parts: Sequence[Part]) -> int:
    """As many as there are cores; one on a GPU, and where reading the archive takes no longer than starting another."""
    is_small = sum({part.path: part.size for part in parts}.values()) < SMALL_BYTES
    return 1 if is_small or scorer.model.device != "cpu" else cores()


def shortened(faults: Sequence[str]) -> list[str]:
    """A folder of other things has thousands."""
    more = len(faults) - MOST_TOLD
    return [*faults[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])]


def _check_outputs(outputs: Mapping[str, Path]) -> None:
    """Before hours of work, not after."""
    if "parquet" in outputs and find_spec("pyarrow") is None:
        raise ConfigError("--parquet: pyarrow is not installed: pip install 'quake[archive]'")
    for name, path in outputs.items():
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"--{name}: no such folder: {path.absolute().parent}")


def _outbox(stack: ExitStack, state: Path | None) -> Outbox:
    if state is None:
        return stack.enter_context(Outbox(":memory:"))
    stack.enter_context(alone(state))
    try:
        return stack.enter_context(Outbox(state / "outbox.sqlite"))
    except OutboxError as error:
        raise ConfigError(f"--state: {error}") from error


def _require_same(
    outbox: Outbox,
    scorer: Scorer,
    config: Config,
    places: Sequence[str],
    begin_ns: int,
    end_ns: int,
) -> None:
    """Half of one scan and half of another is neither."""
    decisions = config.model_dump_json(
        include={"windows", "trigger", "coincidence", "places", "inventory", "characteriser"}
    )
    content = [scorer.identity.sha256, decisions, *places, begin_ns, end_ns]
    identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    before = outbox.get("scan")
    if before is None:
        outbox.set("scan", identity)
    elif before != identity:
        raise ConfigError(
            "--state: an earlier scan there was of other paths or times, or by another model or configuration: "
            "name another folder"
        )
