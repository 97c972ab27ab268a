"""Environment files (`.env`) as Compose reads them: quotes, comments, `NAME: value`, `${NAME:-otherwise}`.

By hand: the libraries for this know neither `NAME: value` nor that single quotes keep a dollar sign, and Compose 2.26
does not tell which files it has taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_STATEMENT = re.compile(
    r"""
    ^[^\S\n]*(?:export[^\S\n]+)?
    (?P<name>[^\s=:\#][^=:\n]*)[=:][^\S\n]*
    (?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)' | (?P<bare>[^\n]*) )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?P<how>:?[-+?])?)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def dotenv(files: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """What the files say, the later ones last; a file that cannot be read says nothing: Compose tells what is wrong
    with it. `environment` is what their variables are looked up in first."""
    found: dict[str, str] = {}
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8-sig", errors="replace")
        except (OSError, ValueError):
            continue
        for name, value, literal in _statements(text):
            found[name] = value if literal else _interpolated(value, {**found, **environment})
    return found


def _statements(text: str) -> Iterator[tuple[str, str, bool]]:
    """Name, value, and whether a dollar sign in it is one."""
    for found in _STATEMENT.finditer(text):
        name = found["name"].rstrip()
        if found["double"] is not None:
            yield name, re.sub(r"\\(.)", _unescaped, found["double"], flags=re.DOTALL), False
        elif found["single"] is not None:
            yield name, found["single"].replace(r"\'", "'"), True
        elif found["bare"] is not None:
            yield name, found["bare"].partition(" #")[0].rstrip(), False


def _unescaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[0])


def _interpolated(text: str, known: Mapping[str, str]) -> str:
    parts, rest = [], text
    while found := _VARIABLE.search(rest):
        parts.append(rest[: found.start()])
        rest = rest[found.end() :]
        if found["dollar"]:
            parts.append("$")
        elif found["plain"]:
            parts.append(known.get(found["plain"], ""))
        else:
            word, rest = _to_the_brace(rest)
            parts.append(_chosen(known.get(found["name"]), found["how"] or "", word, known))
    return "".join([*parts, rest])


def _chosen(value: str | None, how: str, word: str, known: Mapping[str, str]) -> str:
    there = bool(value) if how.startswith(":") else value is not None
    if how.endswith("+"):
        return _interpolated(word, known) if there else ""
    return _interpolated(word, known) if how.endswith("-") and not there else value or ""


def _to_the_brace(text: str) -> tuple[str, str]:
    """What is before the brace that closes, and what is after it."""
    depth = 0
    for at, mark in enumerate(text):
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return text[:at], text[at + 1 :]
    return text, ""
