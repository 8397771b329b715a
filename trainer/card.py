"""The card of a compiled model: what its spec says, for people. What nobody measured is not in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quake.artifact import Head, ModelSpec, Skill
from quake.data.decision import ALARMS_NEEDED, OperatingPoint


def model_card(spec: ModelSpec, sha256: str) -> str:
    """Markdown; ``sha256`` is the file's."""
    sections = [
        f"# {spec.name} {spec.version}",
        f"{spec.architecture}. Task: {spec.task}. The file's sha256 is `{sha256}`.",
        "## Reads",
        _table(("what", "value"), _input(spec)),
        "## Answers",
        _table(("head", "classes"), ((head.name, _classes(head)) for head in spec.heads)),
        *(f"Switched off: {head.name}. {head.reason_off}" for head in spec.heads if head.reason_off),
        _decision(spec),
        *_points(spec),
        "## Skill",
        _table(("data", "measure", "value", "95 % interval"), map(_skill, spec.skill))
        if spec.skill
        else "Not measured.",
        "## Training data",
        _table(("name", "licence", "citation"), ((s.name, s.licence, s.citation) for s in spec.training_data)),
        "## Compilation",
        _compilation(spec),
        _probe(spec),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _input(spec: ModelSpec) -> Iterable[tuple[str, str]]:
    channels, height, width = spec.input_shape
    yield "window", f"{'/'.join(spec.components)}, {spec.window_samples} samples at {spec.sampling_rate_hz:g} Hz"
    yield "unit", spec.unit
    yield "normalisation", spec.normalisation
    if spec.taper_fraction:
        yield "taper", f"Tukey, {spec.taper_fraction:g} of the window"
    padded = ", padded" if spec.stft.padded else ""
    yield "STFT", f"{spec.stft.window}, {spec.stft.nperseg} samples every {spec.stft.hop}{padded}"
    yield "representation", spec.representation + (f", gain {spec.gain:g}" if spec.gain != 1 else "")
    if spec.decibels:
        yield "range", f"{spec.decibels.floor:g} to {spec.decibels.ceiling:g} dB of ({spec.unit})^2/Hz"
    yield "network's input", f"{channels} x {height} x {width}{_image(spec)}"


def _image(spec: ModelSpec) -> str:
    if spec.image is None:
        return ""
    middle = ", the middle of {} x {}".format(*spec.image.resized) if spec.image.resized else ""
    return middle + (f", {spec.image.normalisation}" if spec.image.normalisation != "none" else "")


def _classes(head: Head) -> str:
    bounds = [f" (from {bound:g})" for bound in head.lower_bounds]
    return ", ".join(
        name + bound for name, bound in zip(head.classes, [*bounds, *[""] * len(head.classes)], strict=False)
    )


def _decision(spec: ModelSpec) -> str:
    limits = f"Thresholds: on {spec.thresholds.on:g}, off {spec.thresholds.off:g}. " if spec.thresholds else ""
    method = spec.calibration.method
    return f"{limits}Calibration: {method}{f' {spec.calibration.temperature:g}' if method != 'none' else ''}."


def _points(spec: ModelSpec) -> Iterable[str]:
    if not spec.operating_points:
        return
    head = ("name", "on", "off", "in a row", "chosen for, an hour", "counted", "an hour, 95 % interval", "extrapolated")
    yield "## Operating points"
    yield (
        f"Named thresholds, with the false alarms of one station at a hop of {spec.hop_s:g} s. Extrapolated: the hours "
        f"hold fewer than {ALARMS_NEEDED} alarms at the rate that the point was chosen for."
    )
    yield _table(head, map(_point, spec.operating_points))


def _point(point: OperatingPoint) -> tuple[str, ...]:
    low, high = point.interval
    rates = f"{point.aim_an_hour:g}", f"{point.false_alarms} in {point.hours:.4g} h"
    found = f"{point.an_hour:.3g} ({low:.3g} to {high:.3g})", "yes" if point.is_extrapolated else "no"
    return point.name, f"{point.on:g}", f"{point.off:g}", f"{point.in_a_row}", *rates, *found


def _skill(skill: Skill) -> tuple[str, ...]:
    interval = "" if skill.low is None or skill.high is None else f"{skill.low:g} to {skill.high:g}"
    return skill.data, f"{skill.measure}{f' ({skill.note})' if skill.note else ''}", f"{skill.value:g}", interval


def _compilation(spec: ModelSpec) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in spec.built_with.items())
    if spec.compilation is None:
        return f"Built with {versions}." if versions else ""
    how = spec.compilation
    return (
        f"By {how.method}, with {versions}. Largest difference of a probability from the eager network: "
        f"{how.difference_real:.2g} on real windows, {how.difference_random:.2g} on random ones."
    )


def _probe(spec: ModelSpec) -> str:
    if spec.probe is None:
        return ""
    count, classes = len(spec.probe.answers), ", ".join(spec.classes)
    rows = ((str(n), ", ".join(f"{p:.4f}" for p in row)) for n, row in enumerate(spec.probe.answers, 1))
    return (
        f"Its own {count} test windows, asked at each load; a file that answers otherwise by more than "
        f"{spec.probe.tolerance:g} is refused.\n\n" + _table(("window", classes), rows)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
