"""``quake-trainer``: from labelled waveforms to compiled models, and what those are worth.

Exit codes: 0 done, 1 failed, 2 wrong usage or a wrong recipe.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from quake.artifact import CompiledModel, ModelError, export_onnx
from quake.data.errors import DataError
from quake.versions import Versions
from trainer.card import model_card
from trainer.section import FitError, RecipeError

MIN_HOP_S = 0.01
"""One sample."""

log = logging.getLogger("trainer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chosen = parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except RecipeError as error:
        print(f"quake-trainer: {error}", file=sys.stderr)
        return 2
    except (DataError, FitError, ModelError, OSError) as error:
        print(f"quake-trainer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quake-trainer: stopped", file=sys.stderr)
        return 1
    return 0


def fit(chosen: argparse.Namespace) -> None:
    """Follow a recipe into a new folder, or go on with a run."""
    from trainer.fit import fit as fit_recipe
    from trainer.fit import resume
    from trainer.recipe import read_recipe

    if chosen.resume:
        if chosen.recipe or chosen.out or chosen.set:
            raise RecipeError("--resume goes on with a run as it was begun: it takes no recipe, --out or --set")
        resume(chosen.resume)
        return
    if not chosen.recipe:
        raise RecipeError("a recipe is needed, or --resume FOLDER")
    located = read_recipe(chosen.recipe, chosen.set)
    fit_recipe(located, chosen.out or Path("runs") / located.recipe.model.name)


def distill(chosen: argparse.Namespace) -> None:
    """`fit`, of a recipe that has teachers."""
    from trainer.fit import fit as fit_recipe
    from trainer.recipe import read_recipe

    located = read_recipe(chosen.recipe, chosen.set)
    if not located.recipe.teacher:
        raise RecipeError(f"{chosen.recipe}: no [[teacher]] to learn from")
    fit_recipe(located, chosen.out or Path("runs") / located.recipe.model.name)


def compile_run(chosen: argparse.Namespace) -> None:
    """Make the model of a run anew, from its last or best checkpoint."""
    from trainer.fit import compile_run as from_checkpoint

    from_checkpoint(chosen.run_folder, chosen.keep)


def evaluate(chosen: argparse.Namespace) -> None:
    """Measure a model; what is asked to be written is written, and a model that knows the future is an error."""
    from trainer.assessment import Question, history_beside, write
    from trainer.assessment import evaluate as ask

    _check_wishes(chosen)
    question = Question(
        data=chosen.data,
        split=chosen.split,
        events=chosen.protocol == "events",
        against=chosen.against,
        against_picker=chosen.against_picker,
        hop_s=chosen.hop,
        variant=chosen.variant,
        causal_records=chosen.causal_records if chosen.check_causal else 0,
    )
    model = _load(chosen)
    if chosen.scores and model.spec.task != "detect":
        raise ModelError(f"{chosen.model}: a characteriser has no scores along records: leave --scores out")
    found = ask(model, question)
    print("\n".join(found.lines()))
    if chosen.scores and found.scores is not None:
        found.scores.to_csv(chosen.scores, index=False, float_format="%.6f")
    if chosen.json:
        chosen.json.write_text(found.to_json(model, question), encoding="utf-8")
    if chosen.report:
        log.info("%s", write(chosen.report, model, question, found, history_beside(chosen.model)))
    if found.violations:
        raise ModelError(f"{chosen.model}: not causal: {found.violations[0]}")


def _check_wishes(chosen: argparse.Namespace) -> None:
    """RecipeError for what could not be done after minutes of work."""
    from trainer.evaluation.protocol import GAP_S

    if chosen.against and chosen.protocol != "events":
        raise RecipeError("--against compares by events: it needs --protocol events")
    if chosen.against_picker and not chosen.against:
        raise RecipeError("--against-picker says what --against is: it needs that")
    if chosen.protocol == "events" and (chosen.hop or 0.0) > GAP_S:
        raise RecipeError(f"--hop {chosen.hop:g}: the comparison by events needs a score each second")
    for path in filter(None, (chosen.scores, chosen.json)):
        if path.is_dir() or not path.parent.is_dir():
            raise RecipeError(
                f"{path}: cannot be written: {'a folder' if path.is_dir() else 'there is no such folder'}"
            )
    if chosen.report:
        chosen.report.mkdir(parents=True, exist_ok=True)


def _load(chosen: argparse.Namespace) -> CompiledModel:
    try:
        return CompiledModel.load(chosen.model, chosen.device, threads=chosen.threads)
    except (ImportError, ValueError) as error:  # no CUDA, or no ONNX Runtime
        raise RecipeError(f"{chosen.model}: {error}") from error


def quantize(chosen: argparse.Namespace) -> None:
    """Write an int8 model, unless it loses more than the recipe allows."""
    from trainer.quantising import quantise_recipe

    for line in quantise_recipe(chosen.recipe, chosen.out, chosen.set):
        print(line)


def label(chosen: argparse.Namespace) -> None:
    """Write a data set of what pickers say of continuous recordings."""
    from trainer.label import Task
    from trainer.label import label as label_hours

    label_hours(
        Task(
            folder=chosen.folder,
            pickers=tuple(chosen.picker),
            out=chosen.out,
            only_noise=tuple(chosen.only_noise),
            exclude=tuple(chosen.exclude),
            exclude_splits=tuple(chosen.exclude_split or ("dev",)),
            sources=chosen.sources,
            name=chosen.name,
            licence=chosen.licence,
            device=chosen.device,
            threads=chosen.threads,
        )
    )


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


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="quake-trainer", description="From labelled waveforms to compiled models, and what those are worth."
    )
    top.add_argument("--version", action=Versions)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    _fit_verb(verbs.add_parser("fit", help="follow a recipe to a compiled model"))
    _distill_verb(verbs.add_parser("distill", help="follow a recipe with teachers"))
    _compile_verb(verbs.add_parser("compile", help="make the model of a run anew from one of its checkpoints"))
    _evaluate_verb(verbs.add_parser("evaluate", help="measure a compiled model on labelled records"))
    _quantize_verb(verbs.add_parser("quantize", help="write a compiled model as int8 for ONNX Runtime"))
    _label_verb(verbs.add_parser("label", help="label continuous recordings with pickers"))
    verb = verbs.add_parser("export", help="write a compiled model for ONNX Runtime")
    verb.add_argument("model", type=Path)
    verb.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    verb.set_defaults(run=export)
    verb = verbs.add_parser("inspect", help="print a compiled model's spec")
    verb.add_argument("model", type=Path)
    verb.add_argument("--card", action="store_true", help="for people, in Markdown")
    verb.set_defaults(run=inspect)
    return top


def _fit_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", type=Path, nargs="?", help="TOML")
    verb.add_argument("--out", type=Path, help="folder of the run; runs/NAME if not given")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="stands above the recipe")
    verb.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with a run that was stopped or killed")
    verb.set_defaults(run=fit)


def _distill_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", type=Path, help="TOML")
    verb.add_argument("--out", type=Path, help="folder of the run; runs/NAME if not given")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="stands above the recipe")
    verb.set_defaults(run=distill)


def _compile_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run_folder", type=Path, metavar="FOLDER", help="of a run")
    verb.add_argument("--keep", choices=("last", "best"), help="checkpoint; the recipe's choice if not given")
    verb.set_defaults(run=compile_run)


def _evaluate_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", type=Path)
    verb.add_argument("--data", type=Path, required=True, help="folder in SeisBench's format")
    verb.add_argument("--split", default="dev")
    verb.add_argument("--protocol", choices=("events",), help="compare by earthquakes and hours of noise")
    verb.add_argument("--scores", type=Path, help="CSV to write: trace_name, time_s, score (log-odds)")
    verb.add_argument("--json", type=Path, help="file to write: all figures")
    verb.add_argument("--report", type=Path, help="folder to write: a page with plots")
    verb.add_argument("--against", type=Path, help="CSV of another detector's scores, for a paired difference")
    verb.add_argument("--against-picker", action="store_true", help="the other looks both ways")
    verb.add_argument(
        "--check-causal", action="store_true", help="score cut-off records again; fail where a score moves"
    )
    verb.add_argument("--causal-records", type=_positive, default=40, help="how many are cut, 20 times each")
    verb.add_argument("--hop", type=_seconds, help="seconds between windows; the model's, or 1, if not given")
    verb.add_argument("--variant", choices=("recorded", "z-only", "50-hz", "z-only-50-hz"), default="recorded")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb.add_argument("--threads", type=_positive, default=1)
    verb.set_defaults(run=evaluate)


def _label_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path, help="of miniSEED files, or one file")
    verb.add_argument(
        "--picker", type=Path, action="append", required=True, metavar="TOML", help="adapter file; the first one leads"
    )
    verb.add_argument("--out", type=Path, required=True, help="folder to write, in SeisBench's format")
    verb.add_argument(
        "--only-noise",
        action="append",
        default=[],
        metavar="GLOB",
        help="network.station or file: no earthquakes there",
    )
    verb.add_argument(
        "--exclude", type=Path, action="append", default=[], metavar="CSV", help="metadata of times that are not used"
    )
    verb.add_argument("--exclude-split", action="append", metavar="SPLIT", help="of those; dev if not given")
    verb.add_argument("--sources", type=Path, metavar="CSV", help="columns file, source_dataset, licence")
    verb.add_argument("--name", default="", help="source_dataset without that table; the folder's name if not given")
    verb.add_argument("--licence", default="not stated", help="of the recordings without that table")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb.add_argument("--threads", type=_positive, default=1)
    verb.set_defaults(run=label)


def _quantize_verb(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", type=Path, help="TOML")
    verb.add_argument("--out", type=Path, required=True, help="folder to write the model and its card into")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="stands above the recipe")
    verb.set_defaults(run=quantize)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not MIN_HOP_S <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not {MIN_HOP_S} or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
