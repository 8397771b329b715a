"""The reference pages that are made from the code, so that they cannot say otherwise than it does.

    python -m scripts.reference            writes docs/reference/*.md of all in PAGES
    python -m scripts.reference --check    tells how what lies there differs; exit code 1 if it does
    python -m scripts.reference PAGE       prints one

Recipes have theirs from `python -m trainer.reference`, the alert's JSON Schema comes from `python -m quake.schema`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import Histogram, MetricWrapperBase
from pydantic import BaseModel

from quake.alerts import Alert, ModelIdentity
from quake.times import format_ns
from streamer.association.metrics import AssociatorMetrics
from streamer.cli import parser as streamer_parser
from streamer.config import CONFIGURATION_VERSION, Config
from streamer.grid import Grid
from streamer.metrics import Metrics
from trainer.cli import parser as trainer_parser
from trainer.reference import kind, parts

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
WRITTEN = "Written by `python -m scripts.reference` from the code."
MODULES = ("quake.alerts", "quake.artifact")


def configuration() -> Iterator[str]:
    yield f"""\
# Configuration

{WRITTEN}

`quake-streamer` reads one TOML file; a key that is not listed here is an error, which names the
nearest right one. Relative paths count from the file's folder. `needed`: has no default; -: what is not given is not there,
or is the model's; `{{}}`: its keys' own defaults. This is version {CONFIGURATION_VERSION} of the keys ([versions](versions.md)).

A variable `QUAKE_TABLE__KEY` in the environment stands above the file, `QUAKE_REDIS_URL` is short for `QUAKE_REDIS__URL`, and
for each a variable with `_FILE` behind its name names a file that holds the value. Secrets belong there
([security](../../SECURITY.md)). `quake-streamer check` prints what is in force.
"""
    yield from parts({Config: "file"})


def metrics() -> Iterator[str]:
    made = Metrics(max_stations=1)
    made.began(ModelIdentity(name="", version="", sha256=""), Grid(1, 1, 1), dict)
    made.describe({"version": ""})
    yield f"""\
# Metrics

{WRITTEN}

`GET /metrics` has them in Prometheus' format. What is named `station` is `NET_STA__BAND_SOURCE` (`GE_APE__H_H`), or
`other` beyond `metrics.max_stations`. Those of the process are
as everywhere. A histogram's name has `_bucket`, `_sum` and `_count` behind it. How to watch them:
[Prometheus and Grafana](../how-to/prometheus.md).

"""
    yield from _metrics(made.registry)
    yield """\
## Of an associator

`quake-streamer associate` has these at the same port.
"""
    yield from _metrics(AssociatorMetrics().registry)


def _metrics(registry: CollectorRegistry) -> Iterator[str]:
    yield from ("| name | type | labels | meaning |", "|---|---|---|---|")
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):  # the process's own have their names from Prometheus' client
            yield _metric(collector)
    yield ""


def _metric(collector: MetricWrapperBase) -> str:
    (family,) = collector.collect()
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = collector._labelnames or (tuple(family.samples[0].labels) if family.type == "info" else ())
    bounds = isinstance(collector, Histogram) and ", ".join(f"{bound:g}" for bound in collector._upper_bounds[:-1])
    text = family.documentation + (f". Buckets: {bounds}" if bounds else "")
    return f"| `{family.name}{suffix}` | {family.type} | {_codes(labels)} | {text} |"


def alert() -> Iterator[str]:
    yield f"""\
# The alert

{WRITTEN}

A JSON object on Redis, in the field `alert` of a stream's entry and as the message of a channel; also as a JSON
Schema: [alert.schema.json](alert.schema.json). Times are RFC 3339, UTC. Every field is always there, null where it says so;
what a newer daemon adds is to be passed over ([versions](versions.md)). How to read alerts:
[write a subscriber](../how-to/subscribe.md).
"""
    for name, lines in _fields(Alert, "serialization").items():
        yield from (f"## {name}", "", *lines)


def _fields(model: type[BaseModel], mode: Literal["validation", "serialization"]) -> dict[str, list[str]]:
    """Of it and of each model within it: lines of a table."""
    whole = model.model_json_schema(mode=mode, ref_template="{model}")
    tables = {model.__name__: whole, **whole.pop("$defs", {})}
    headings = {name: f"# {name}" for name, table in tables.items() if "properties" in table}
    return {name: list(_table(tables[name], tables, headings)) for name in headings}


def _table(table: Mapping[str, Any], tables: Mapping[str, Any], headings: Mapping[str, str]) -> Iterator[str]:
    yield from ("| field | type | meaning |", "|---|---|---|")
    for key, field in table["properties"].items():
        what = kind(field, tables, headings).replace("|", "\\|")
        null = " or null" if {"type": "null"} in field.get("anyOf", ()) else ""
        yield f"| `{key}` | {what}{null} | {field.get('description', '')} |"
    yield ""


def cli() -> Iterator[str]:
    yield f"""\
# Command line

{WRITTEN}

Exit codes of both programs: 0 done, 1 failed, 2 wrong usage, configuration or recipe.
"""
    for program in (streamer_parser(), trainer_parser()):
        verbs = next(a for a in program._actions if isinstance(a, argparse._SubParsersAction))
        helps = {choice.dest: choice.help for choice in verbs._choices_actions}
        yield f"## {program.prog}\n\n{program.description} `--version`: the versions of the parts that matter.\n"
        for name, verb in verbs.choices.items():
            yield from _verb(verb, helps[name] or "")


def _verb(verb: argparse.ArgumentParser, text: str) -> Iterator[str]:
    actions = [a for a in verb._actions if not isinstance(a, argparse._HelpAction)]
    operands = [_operand(a) for a in actions if not a.option_strings]
    yield f"### {verb.prog}\n\n{text[0].upper()}{text[1:]}.\n\n`{' '.join([verb.prog, *operands])} [options]`\n"
    if actions:
        yield "| argument | default | meaning |\n|---|---|---|"
    for action in actions:
        yield f"| {_argument(action)} | {_default(action)} | {_meaning(verb, action)} |"
    yield ""


def _operand(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest).upper()
    return {"+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def _argument(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_operand(action)}`"
    value = "" if action.nargs == 0 else f" {action.metavar or '' if action.choices else _operand(action)}".rstrip()
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _default(action: argparse.Action) -> str:
    if action.required:
        return "needed"
    if action.default in (None, False, "", []):
        return "-"
    return f"`{format_ns(action.default) if action.metavar == 'TIME' else action.default}`"


def _meaning(verb: argparse.ArgumentParser, action: argparse.Action) -> str:
    choices = action.choices and ", ".join(f"`{choice}`" for choice in action.choices)
    text = verb._get_formatter()._expand_help(action) if action.help else ""
    repeat = isinstance(action, argparse._AppendAction) and "may be given again"
    return "; ".join(part.replace("|", "\\|") for part in (text, choices, repeat) if part)


def python() -> Iterator[str]:
    yield f"""\
# From Python

{WRITTEN}

What programs of others may rely on ([versions](versions.md)); every other name of `quake` may change.
"""
    for name in MODULES:
        module = importlib.import_module(name)
        yield f"## {name}\n\n{_first(module.__doc__)}\n"
        for public in module.__all__:
            yield from _public(public, getattr(module, public))


def _public(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}\n"
    if not callable(value):
        yield f"`{value!r}`\n"
    elif isinstance(value, type) and issubclass(value, Enum):
        yield f"{', '.join(f'`{one.name} = {one.value!r}`' for one in value)}\n"
    else:
        yield from _code(ast.parse(dedent(inspect.getsource(value))).body[0])
    if value is Alert:
        yield "Its fields: [the alert](alert.md).\n"
    elif isinstance(value, type) and issubclass(value, BaseModel):
        yield from _fields(value, "validation")[name]


def _code(node: ast.stmt) -> Iterator[str]:
    """A function, or a class with what is public of it."""
    if isinstance(node, ast.FunctionDef):
        yield f"```text\n{_signature(node)}\n```\n\n{ast.get_docstring(node) or ''}\n"
        return
    assert isinstance(node, ast.ClassDef)
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    yield from (f"```text\n{_signature(one, node.name)}\n```\n" for one in methods if one.name == "__init__")
    yield f"{ast.get_docstring(node) or ''}\n"
    public = [one for one in methods if not one.name.startswith("_")]
    yield from (f"- `{_signature(one)}`: {_first(ast.get_docstring(one))}".removesuffix(": ") for one in public)
    if public:
        yield ""


def _signature(node: ast.FunctionDef, name: str = "") -> str:
    decorators = {ast.unparse(one) for one in node.decorator_list}
    arguments = ast.unparse(node.args)
    if "staticmethod" not in decorators:
        arguments = arguments.removeprefix("self").removeprefix("cls").removeprefix(", ")
    if "property" in decorators:
        return node.name
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    return f"{name or node.name}({arguments}){returns}"


def _first(text: str | None) -> str:
    """The first paragraph, on one line."""
    return " ".join((text or "").split("\n\n")[0].split())


def _codes(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names) or "-"


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    page.__name__: page for page in (alert, cli, configuration, metrics, python)
}


def text_of(page: str) -> str:
    return "\n".join(PAGES[page]()).rstrip("\n") + "\n"


def difference(page: str) -> str:
    """Of what lies there from what should; empty if none."""
    path = FOLDER / f"{page}.md"
    there = path.read_text("utf-8") if path.exists() else ""
    lines = difflib.unified_diff(there.splitlines(), text_of(page).splitlines(), str(path), "the code", lineterm="")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        told = "\n".join(filter(None, map(difference, PAGES)))
        sys.stdout.write(told and f"{told}\npython -m scripts.reference writes these pages anew\n")
        return 1 if told else 0
    for page in PAGES if not arguments else []:
        (FOLDER / f"{page}.md").write_text(text_of(page), "utf-8")
    sys.stdout.write("".join(map(text_of, arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
