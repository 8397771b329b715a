"""Hooks of mkdocs: the order of the folders, and the files of the repository beside docs/ that pages link to.

Pages link to those as they lie (`../../models/zoo/detector.md`), so that links hold wherever the repository is read. Here
they become files of the site: Markdown a page of its own, all else a download. A folder is its README; one without is
named and not linked. A link to nothing stays as it is, and mkdocs complains of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("index.md", "tutorial", "how-to", "reference", "explanation")
ELSEWHERE = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = sorted(files, key=lambda file: (_place(file.src_uri), file.src_uri))
    reached = {_in_repository(file): file for file in pages}
    waiting = [file for file in pages if file.is_documentation_page()]
    while waiting:
        for _, target in _links(waiting.pop()):
            if target not in reached and (ROOT / target).is_file():
                reached[target] = _beside(config, target)
                if target.endswith(".md"):
                    waiting.append(reached[target])
    return Files(list(reached.values()))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def rewritten(link: re.Match[str]) -> str:
        text, _, anchor = link.groups()
        target = _target(page.file, link[2])
        if (ROOT / target).is_dir():
            return text
        beside = not target.startswith("docs/") and (ROOT / target).is_file()
        if not (beside or _is_beside(page.file)):
            return link[0]
        own = posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(page.file.src_uri) or ".")
        return f"[{text}]({own}{anchor or ''})"

    return LINK.sub(rewritten, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """What is asked of another host fails where there is no network, and tells that host who reads."""
    if found := ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri}: asks another host: {found[0]}")
    return output


def _place(uri: str) -> int:
    first = uri.split("/", maxsplit=1)[0]
    return ORDER.index(first) if first in ORDER else len(ORDER)


def _beside(config: MkDocsConfig, target: str) -> File:
    inclusion = InclusionLevel.NOT_IN_NAV
    return File.generated(config, target, abs_src_path=str(ROOT / target), inclusion=inclusion)


def _is_beside(file: File) -> bool:
    return file.generated_by is not None


def _in_repository(file: File) -> str:
    return file.src_uri if _is_beside(file) else f"docs/{file.src_uri}"


def _target(file: File, link: str) -> str:
    """Where a link leads in the repository."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(_in_repository(file)), link))
    readme = f"{target}/README.md"
    return readme if (ROOT / readme).is_file() else target


def _links(file: File) -> Iterator[tuple[str, str]]:
    for text, link, _ in LINK.findall(file.content_string):
        yield text, _target(file, link)
