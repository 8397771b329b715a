"""``quake-trainer``: fit, compile, export, evaluate and inspect models.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from quake.artifact import CompiledModel, ModelError, ModelSpec, Thresholds, export_onnx
from quake.data.seisbench import DataError
from quake.models import HybridViT
from trainer.card import model_card
from trainer.compile import compile_detector, detector_spec, read_checkpoint, read_description
from trainer.evaluate import VARIANTS, Rule, assess, choose_on, log_odds, score_records
from trainer.fit_detector import FitConfig, fit
from trainer.windows import Record, read_records

FALSE_AN_HOUR = 3.0
"""Alarms of one station at thresholds chosen here; coincidence of stations takes most of them away."""
HOP_S = 1.0
"""The hop at which thresholds are chosen, and false alarms counted."""

log = logging.getLogger("trainer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except (DataError, ModelError, OSError) as error:
        print(f"quake-trainer: {error}", file=sys.stderr)
        return 1
    return 0


def fit_detector(chosen: argparse.Namespace) -> None:
    """Fit on split ``train``, compile, and choose thresholds on split ``dev`` where the description states none."""
    records = read_records(chosen.data, "train")
    config = FitConfig(steps=chosen.steps, batch=chosen.batch, seed=chosen.seed, threads=chosen.threads)
    network = fit(records, config, chosen.checkpoint)
    _write(network, records, chosen)


def compile_checkpoint(chosen: argparse.Namespace) -> None:
    _write(read_checkpoint(chosen.checkpoint), read_records(chosen.data, "train"), chosen)


def evaluate(chosen: argparse.Namespace) -> None:
    """Write scores, and print what the model's own thresholds are worth."""
    model = CompiledModel.load(chosen.model, "auto", threads=chosen.threads)
    limits = _thresholds(model.spec)
    records = read_records(chosen.data, chosen.split)
    table = score_records(model, records, chosen.hop, chosen.variant)
    table.to_csv(chosen.out, index=False, float_format="%.6f")
    worth = assess(records, table, Rule(log_odds(limits.on), log_odds(limits.off)))
    print(f"{chosen.variant}, on {limits.on:g}, off {limits.off:g}: {worth}")


def inspect(chosen: argparse.Namespace) -> None:
    """Print the spec, or the card, of a model that loads."""
    model = CompiledModel.load(chosen.model, "cpu")
    print(model_card(model.spec, model.sha256) if chosen.card else model.spec.model_dump_json(indent=2))


def export(chosen: argparse.Namespace) -> None:
    """Write the ONNX file of a TorchScript one."""
    content = export_onnx(chosen.model)
    if chosen.out.exists() and chosen.out.samefile(chosen.model):
        raise ModelError(f"{chosen.out}: would overwrite the model that it is made from")
    chosen.out.write_bytes(content)
    log.info("%s: answers on ONNX Runtime as %s does on torch", chosen.out, chosen.model)


def _write(network: HybridViT, records: Sequence[Record], chosen: argparse.Namespace) -> None:
    description = read_description(chosen.describe)
    spec = detector_spec(chosen.data, description)
    chosen.out.write_bytes(compile_detector(network, spec, records))
    if "thresholds" not in description:
        spec = _with_thresholds(spec, chosen)
        chosen.out.write_bytes(compile_detector(network, spec, records))
    limits = _thresholds(spec)
    log.info("%s: %s %s, on %g, off %g", chosen.out, spec.name, spec.version, limits.on, limits.off)


def _with_thresholds(spec: ModelSpec, chosen: argparse.Namespace) -> ModelSpec:
    try:
        records = read_records(chosen.data, "dev")
    except DataError as error:
        log.warning("thresholds are not chosen, the defaults stand: %s", error)
        return spec
    model = CompiledModel.load(chosen.out, "cpu", threads=chosen.threads)
    on = choose_on(records, score_records(model, records, HOP_S), FALSE_AN_HOUR)
    return spec.model_copy(update={"thresholds": Thresholds(on=on, off=on / 2)})


def _thresholds(spec: ModelSpec) -> Thresholds:
    if spec.thresholds is None:
        raise ModelError(f"{spec.name} is not a detector: it has no thresholds")
    return spec.thresholds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quake-trainer", description="Fit, compile, export, evaluate and inspect models."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _fit_verb(verbs.add_parser("fit-detector", help="fit the detector on a data set and compile it"))
    _compile_verb(verbs.add_parser("compile", help="compile a checkpoint that fit-detector wrote"))
    _evaluate_verb(verbs.add_parser("evaluate", help="score labelled records with a compiled detector"))
    verb = verbs.add_parser("export", help="write a compiled model for ONNX Runtime")
    verb.add_argument("model", type=Path)
    verb.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    verb.set_defaults(run=export)
    verb = verbs.add_parser("inspect", help="print a compiled model's spec")
    verb.add_argument("model", type=Path)
    verb.add_argument("--card", action="store_true", help="for people, in Markdown")
    verb.set_defaults(run=inspect)
    return parser


def _fit_verb(verb: argparse.ArgumentParser) -> None:
    defaults = FitConfig()
    _output(verb)
    verb.add_argument("--steps", type=_positive, default=defaults.steps)
    verb.add_argument("--batch", type=_positive, default=defaults.batch, help="windows a step")
    verb.add_argument("--seed", type=int, default=defaults.seed)
    verb.add_argument("--threads", type=_positive, default=defaults.threads)
    verb.add_argument("--checkpoint", type=Path, help="also write the weights here, now and then")
    verb.set_defaults(run=fit_detector)


def _compile_verb(verb: argparse.ArgumentParser) -> None:
    _output(verb)
    verb.add_argument("--checkpoint", type=Path, required=True)
    verb.add_argument("--threads", type=_positive, default=1)
    verb.set_defaults(run=compile_checkpoint)


def _evaluate_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="folder in SeisBench's format")
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--out", type=Path, required=True, help="CSV to write: trace_name, time_s, score")
    verb.add_argument("--split", default="dev")
    verb.add_argument("--hop", type=float, default=HOP_S, help="seconds between windows")
    verb.add_argument("--variant", choices=sorted(VARIANTS), default="recorded")
    verb.add_argument("--threads", type=_positive, default=1)
    verb.set_defaults(run=evaluate)


def _output(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="folder in SeisBench's format")
    verb.add_argument("--out", type=Path, required=True, help="model file to write")
    verb.add_argument("--describe", type=Path, help="JSON with fields of the spec: version, thresholds, skill ...")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
