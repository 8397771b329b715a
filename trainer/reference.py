"""``python -m trainer.reference > docs/reference/recipe.md``: every table and key of a recipe, as the code has them.

What is not here: augmentations, which `docs/reference/augmentation.md` describes with what they do to a window.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from trainer.distillation.adapter import Adapter
from trainer.quantising import QuantisationRecipe
from trainer.recipe import Recipe

INTRODUCTION = """\
# Recipes

Written by `python -m trainer.reference` from the tables' own definitions. `quake-trainer` reads TOML; a key that is not listed
here is an error, which names the nearest right one. Relative paths count from the folder of the file that names them.
`needed`: has no default; -: what is not given is not there; `{}`: its keys' own defaults. How to: [train](../how-to/train.md).
"""
ROOTS: Mapping[type[BaseModel], str] = {
    Recipe: "recipe of `fit` and `distill`",
    QuantisationRecipe: "recipe of `quantize`",
    Adapter: "adapter file of a picker",
}
ELSEWHERE = {"Augmentation": "[described apart](augmentation.md)"}
LOWER = {"minimum": "from {:g}", "exclusiveMinimum": "above {:g}", "minItems": "(at least {:g})"}
BOUNDS = LOWER | {"maximum": "to {:g}", "exclusiveMaximum": "below {:g}", "pattern": "like `{}`"}
Schema = Mapping[str, Any]


def reference() -> str:
    """The text of the file; its last character is a line feed."""
    return "\n".join([INTRODUCTION, *parts(ROOTS)])


def parts(titles: Mapping[type[BaseModel], str]) -> Iterator[str]:
    """Of files that these read, a part for each table."""
    roots, whole = models_json_schema([(root, "validation") for root in titles], ref_template="{model}")
    tables, headings = whole["$defs"], dict[str, str]()
    for root, title in titles.items():
        headings[name := roots[root, "validation"]["$ref"]] = f"## The {title}"
        _find(name, "", title, tables, headings)
    yield from ("\n".join(_part(name, tables, headings)) + "\n" for name in headings)


def anchor(heading: str) -> str:
    """Of a heading of Markdown, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def _find(name: str, path: str, root: str, tables: Schema, headings: dict[str, str]) -> None:
    """The headings of the tables within one, in the document's order; what is used twice is described once."""
    for key, field in tables[name]["properties"].items() if name not in ELSEWHERE else ():
        own = f"{path}.{key}".lstrip(".") + (".NAME" if "patternProperties" in field else "")
        place = f"### `[[{own}]]`" if "items" in field else f"### `[{own}]`"
        new = [pair for pair in _within(field) if "properties" in tables[pair[0]] and pair[0] not in headings]
        found = {inner: f"{place} {tag}".strip() for inner, tag in new}
        headings |= {inner: f"{one} ({root})" if one in headings.values() else one for inner, one in found.items()}
        for inner in found:
            _find(inner, own, root, tables, headings)


def _within(field: Schema) -> Iterator[tuple[str, str]]:
    """(definition, tag) of what a field speaks of: itself, the items of a list, the kinds of a union."""
    if "$ref" in field:
        yield field["$ref"], ""
    elif "discriminator" in field:
        yield from ((name, tag) for tag, name in field["discriminator"]["mapping"].items())
    named = field.get("patternProperties", {}).values()
    for inner in (*field.get("anyOf", ()), *([field["items"]] if "items" in field else []), *named):
        yield from _within(inner)


def _part(name: str, tables: Schema, headings: Mapping[str, str]) -> Iterator[str]:
    yield from (headings[name], "", said(tables[name]), "", "| key | type | default | meaning |", "|---|---|---|---|")
    for key, field in tables[name]["properties"].items():
        inner: Schema = next((tables[one] for one, tag in _within(field) if not tag), {})
        is_needed = key in tables[name].get("required", ()) or "const" in field  # a constant chooses the kind of table
        own = {name: field.get("default") for name, field in inner.get("properties", {}).items()}
        value = {} if own and own == field.get("default") else field.get("default")
        default = "needed" if is_needed else "-" if value is None else f"`{_toml(value)}`"
        what = ELSEWHERE.get(name) or kind(field, tables, headings)
        cells = (f"`{key}`", what, default, field.get("description") or ("properties" in inner and said(inner)) or "")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def said(table: Schema) -> str:
    return " ".join(table.get("description", "").split("\n\n")[0].split())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}" if value else "{}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value)


def kind(field: Schema, tables: Schema, headings: Mapping[str, str]) -> str:
    """What a key may hold, with its bounds; tables as links."""
    if "discriminator" in field:
        return " or ".join(f"[{tag}](#{anchor(headings[inner])})" for inner, tag in _within(field))
    if "$ref" in field:
        name = field["$ref"]
        return f"[table](#{anchor(headings[name])})" if name in headings else kind(tables[name], tables, headings)
    if "anyOf" in field:
        return " or ".join(kind(one, tables, headings) for one in field["anyOf"] if one != {"type": "null"})
    if "enum" in field or "const" in field:
        return ", ".join(f"`{json.dumps(one)}`" for one in field.get("enum", [field.get("const")]))
    if "prefixItems" in field:
        return f"[{', '.join(kind(one, tables, headings) for one in field['prefixItems'])}]"
    named = field.get("patternProperties", {})
    inner = field.get("items") or field.get("additionalProperties") or next(iter(named.values()), None)
    of = f" of {kind(inner, tables, headings)}" if inner else ""
    what = {"array": "list", "object": "table"}.get(field["type"]) or field.get("format") or field["type"]
    return " ".join([f"{what}{of}", *(text.format(field[name]) for name, text in BOUNDS.items() if name in field)])


if __name__ == "__main__":
    sys.stdout.write(reference())
