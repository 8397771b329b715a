"""False alarms a station-day: the daemon's own decisions, trigger and all, over recordings of noise.

    python -m benchmarks.false_alarms [FOLDER] [--model FILE] [--operating-point quiet] [--only 'elep_*'] [--live]
                                      [--pictures FOLDER] [--json FILE]

Files are scanned one after the other through the daemon's pipeline; with --live each is also played to the daemon as a
process, and must give the same detections. Stations whose files overlap in time are then joined by the daemon's own
coincidence. An hour is one of windows that were scored. Alarms in aftershock sequences are mostly true earthquakes: they are
counted apart, and are not false. Every alarm elsewhere is listed; a quiet volcano has earthquakes too, so somebody has to look
(--pictures). Environment variables such as QUAKE_TRIGGER__ON count, as for the daemon. What is not here: what is found
(`benchmarks.skill`).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.decisions import SEQUENCE, Heard, Together, by_station, join, listen, played, station_of
from benchmarks.tables import Cell, Table, poisson
from quake.times import format_ns
from streamer.cli import NO_SERVER
from streamer.composition import Scorer, load_scorer
from streamer.config import ConfigError, resolve
from streamer.demo import DemoError
from streamer.server import RecordError
from streamer.stages import NS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "continuous"
CHARACTERS = "continuous.csv"
"""Beside the recordings: columns ``file`` and ``character``. A file that it does not name is noise."""
DAY_H = 24.0


def settings_of(model: Path | None, point: str | None) -> dict[str, Any]:
    """Of a configuration; what is not given is the daemon's default."""
    return {
        **NO_SERVER,
        "mode": "scan",
        "model": {"path": str(model.resolve())} if model else {},
        "trigger": {"operating_point": point} if point else {},
    }


def characters(folder: Path) -> Mapping[str, str]:
    """By the file's name."""
    path = folder / CHARACTERS
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["file"]: row["character"] for row in csv.DictReader(file)}


def tables(all_heard: Sequence[Heard], joined: Sequence[Together], scorer: Scorer) -> list[Table]:
    noise = [heard for heard in all_heard if not heard.is_sequence]
    sequences = [heard for heard in all_heard if heard.is_sequence]
    return [
        _by_file("Quiet and ambient hours", noise, scorer),
        _by_file("Aftershock sequences: alarms are mostly true earthquakes, and not false", sequences, scorer),
        Table(
            "Events of several stations",
            ("stations", "character", "at least", "hours", "events", "a day"),
            tuple(map(_event_row, joined)),
        ),
        _every_alarm(noise, scorer),
        _every_event([one for one in joined if not one.is_sequence]),
    ]


def _by_file(title: str, some: Sequence[Heard], scorer: Scorer) -> Table:
    count = sum(len(list(heard.alarms(scorer))) for heard in some)
    hours = sum(heard.hours(scorer) for heard in some)
    total = ("all", "", "", hours, count, poisson(count, hours / DAY_H), "")
    columns = ("file", "stations", "character", "station-hours", "detections", "a station-day", "live")
    return Table(title, columns, (*(_row(heard, scorer) for heard in some), total))


def _row(heard: Heard, scorer: Scorer) -> tuple[Cell, ...]:
    count, hours = len(list(heard.alarms(scorer))), heard.hours(scorer)
    live = {None: "-", True: "same", False: "OTHERS"}[heard.live]
    return heard.file.name, heard.stations, heard.character, hours, count, poisson(count, hours / DAY_H), live


def _every_alarm(some: Sequence[Heard], scorer: Scorer) -> Table:
    return Table(
        "Every alarm in quiet and ambient hours",
        ("file", "station", "opened", "onset", "probability", "lasted, s"),
        tuple(
            (a.file, a.station, format_ns(a.opened_ns), format_ns(a.onset_ns), a.probability, a.lasted_s)
            for heard in some
            for a in heard.alarms(scorer)
        ),
    )


def _every_event(some: Sequence[Together]) -> Table:
    return Table(
        "Every event in quiet and ambient hours",
        ("opened", "at least", "stations", "probability"),
        tuple(
            (
                format_ns(event.opened_ns),
                one.min_stations,
                ", ".join(station_of(member.subject) for member in event.members),
                max(member.probability for member in event.members),
            )
            for one in some
            for event in one.events
        ),
    )


def _event_row(one: Together) -> tuple[Cell, ...]:
    names = ", ".join(sorted(by_station(one.group)))
    count = len(one.events)
    return names, one.group[0].character, one.min_stations, one.hours, count, poisson(count, one.hours / DAY_H)


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where the daemon as a process decided otherwise; 2 for what cannot be read."""
    chosen = _parser().parse_args(arguments)
    if not chosen.folder.is_dir():
        print(f"nothing is measured: no recordings at {chosen.folder}")
        return 0
    try:
        return _measure(chosen)
    except (ConfigError, DemoError, RecordError, OSError) as error:
        print(f"false_alarms: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SHARED, help="of miniSEED files (*.mseed)")
    parser.add_argument("--model", type=Path, help="compiled detector; the shipped one if not given")
    parser.add_argument("--operating-point", help="of the model, by name; what the daemon takes if not given")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of files to take")
    parser.add_argument("--live", action="store_true", help="play each file to the daemon as a process too")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="one for each alarm in quiet and ambient hours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all tables")
    return parser


def _measure(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen.model, chosen.operating_point)
    config = resolve(settings, Path("false_alarms"))
    scorer = load_scorer(config)
    all_heard = []
    for file, character in _files(chosen):
        heard = listen(file, character, config, scorer)
        if chosen.live:
            heard.live = played(file, settings) == heard.decided
        if chosen.pictures and not heard.is_sequence:
            picture(heard, chosen.pictures, scorer)
        told = f"{heard.hours(scorer):.3f} station-hours, {len(list(heard.alarms(scorer)))} detections"
        print(f"{file.name}: {told}", file=sys.stderr, flush=True)
        all_heard.append(heard)
    _report(chosen, tables(all_heard, join(all_heard, config, scorer), scorer), scorer)
    return int(any(heard.live is False for heard in all_heard))


def _files(chosen: argparse.Namespace) -> list[tuple[Path, str]]:
    """With their character; aftershock sequences last. ConfigError where there is none."""
    known = characters(chosen.folder)
    files = [path for path in sorted(chosen.folder.glob("*.mseed")) if fnmatch(path.name, chosen.only)]
    if not files:
        raise ConfigError(f"{chosen.folder}: no file {chosen.only} that is *.mseed")
    return sorted(((path, known.get(path.name, "")) for path in files), key=lambda item: SEQUENCE in item[1])


def _report(chosen: argparse.Namespace, made: Sequence[Table], scorer: Scorer) -> None:
    hop_s = scorer.grid.hop_ns / NS
    print(f"{scorer.identity.name} {scorer.identity.version}, hop {hop_s:g} s, {scorer.thresholds}")
    print("\n".join(table.markdown() for table in made))
    if chosen.json:
        model = {**scorer.identity.model_dump(), "thresholds": asdict(scorer.thresholds), "hop_s": hop_s}
        content = {"model": model, "tables": [table.content() for table in made]}
        chosen.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def picture(heard: Heard, folder: Path, scorer: Scorer) -> None:
    """One for each of the file's alarms."""
    from benchmarks.alarm_pictures import draw

    folder.mkdir(parents=True, exist_ok=True)
    for alarm in heard.alarms(scorer):
        series = next(s for subject, s in heard.scores.items() if station_of(subject) == alarm.station)
        name = f"{heard.file.stem}_{format_ns(alarm.opened_ns)[:19].replace(':', '')}.png"
        draw(folder / name, heard.file, alarm, series, scorer)


if __name__ == "__main__":
    sys.exit(main())
