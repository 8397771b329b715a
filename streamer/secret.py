"""Secrets: taken from the environment or from files, told where they lie in the clear, and never printed.

For any ``QUAKE_...`` a variable ``QUAKE_..._FILE`` names a file that holds its value: a secret of Docker or Kubernetes, or
a credential of systemd (``LoadCredential=redis:/etc/quake/redis``, ``Environment=QUAKE_REDIS_URL_FILE=%d/redis``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

_PREFIX, _SUFFIX = "quake_", "_file"
_SECRET_KEY = re.compile(r"(?i)(password|token|secret)$")
_SECRET_OPTION = re.compile(r"(?i)([?&][\w-]*(?:password|token|username|secret)=)[^&#]*")
_CREDENTIALS = re.compile(r"^([\w+.-]*://)?.*@", re.DOTALL)
"""To the last @: a password that is not percent-encoded may hold anything."""

Place = tuple[str | int, ...]
"""Keys, and numbers in lists."""


class SecretError(ValueError):
    """A file named by a variable is of no use; the message names both."""


def with_files(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """The environment, names in lower case, with the content of each ``quake_..._file`` in place of its name."""
    found = {name.lower(): value for name, value in variables.items()}
    for name in [n for n in found if n.startswith(_PREFIX) and n.endswith(_SUFFIX)]:
        plain = name.removesuffix(_SUFFIX)
        if plain in found:
            raise SecretError(f"{plain.upper()} and {name.upper()} are both set: one of them only")
        found[plain] = _content(name.upper(), found.pop(name) or "")
    return found


def _content(name: str, path: str) -> str:
    """Without the line's end that editors and ``echo`` leave."""
    try:
        content = Path(path).read_text("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretError(f"{name}: {path}: not UTF-8") from None
    except (OSError, ValueError) as error:
        raise SecretError(f"{name}: {path}: {getattr(error, 'strerror', error)}") from None
    if not content:
        raise SecretError(f"{name}: {path}: empty")
    return content


def redacted(url: str) -> str:
    """The URL as it may stand in a log: without user, password and token."""
    return _SECRET_OPTION.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", url))


def cleaned(value: Any, place: Place = ()) -> Any:
    """A configuration's tables and lists without their secrets."""
    if isinstance(value, Mapping):
        return {key: cleaned(inner, (*place, key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(inner, (*place, n)) for n, inner in enumerate(value)]
    return _cleaned_text(value, place) if isinstance(value, str) else value


def _cleaned_text(text: str, place: Place) -> str:
    if text and _SECRET_KEY.search(str(place[-1])):
        return "***"
    return redacted(text) if "://" in text else text


def in_the_clear(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each key that holds a secret, and the variable that it can come from instead."""
    for place, text in _texts(content, ()):
        if _cleaned_text(text, place) != text:
            keys = takewhile(lambda part: isinstance(part, str), place)
            yield ".".join(map(str, place)), "QUAKE_" + "__".join(map(str, keys)).upper()


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*place, key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _texts(inner, (*place, n))
