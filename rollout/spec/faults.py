"""Faults while they are collected: a place in the file, what is wrong, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voluptuous import Invalid

from rollout.errors import Fault

Place = tuple[str | int, ...]
_PLANNED = {"canary"}


class Refused(Invalid):
    """A value is not acceptable: why, and what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(slots=True)
class Faults:
    """Every fault of a project, in the order found."""

    found: list[tuple[Place, str, str]] = field(default_factory=list)

    def add(self, place: Place, message: str, hint: str = "") -> None:
        self.found.append((place, message, hint))

    def spoil(self, *places: Place) -> bool:
        """Whether one is at one of these, inside it, or at what it would stand in: nothing can be said of its value."""
        found = [at for at, _message, _hint in self.found]
        return any(place[: len(at)] == at or at[: len(place)] == place for place in places for at in found)

    def within(self, place: Place) -> set[str | int]:
        """The keys of what is at `place` that have one."""
        return {at[len(place)] for at, _message, _hint in self.found if at[: len(place)] == place != at}

    def as_errors(self, files: Sequence[str] = ()) -> list[Fault]:
        """With the line of the user's file each one is at, where it can be found."""
        lines = [(Path(file).name, _nodes(file)) for file in files if self.found and file != "-"]
        return [Fault(dotted(place), message + _at(place, lines), hint) for place, message, hint in self.found]


def dotted(place: Place) -> str:
    """`services.web.x-rollout.hosts[0]`, as a person writes it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return text if text.isprintable() else repr(text)[1:-1]  # one line, whatever the key was


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The nearest of the known words, or all of them."""
    words = list(known)
    near = difflib.get_close_matches(str(word), words, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(words)}"


def unknown_key(key: object, known: Iterable[str]) -> Refused:
    if not isinstance(key, str):
        return Refused("keys must be words")
    return Refused(f"unknown key {dotted((key,))}", did_you_mean(key, sorted(known)))


def unknown_word(value: object, words: Sequence[str]) -> Refused:
    """Where only one of `words` can stand."""
    known = f"known: {', '.join(words)}"
    if isinstance(value, str) and value in _PLANNED:
        return Refused(f"{value} is not available yet", known)
    near = did_you_mean(value, words)
    return Refused(f"unknown value {shown(value)}", near if near == known else f"{near} {known}")


def shown(value: object) -> str:
    """A value for a message: short, and its control characters made visible."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _at(place: Place, lines: Sequence[tuple[str, Mapping[Place, int]]]) -> str:
    for length in range(len(place), 1, -1):  # the nearest thing around it that is written down
        for name, nodes in reversed(lines):  # a later file overrides an earlier one
            if place[:length] in nodes:
                return f" ({name}:{nodes[place[:length]]})"
    return ""


def _nodes(file: str) -> dict[Place, int]:
    """Line numbers by place. Only read once something is wrong, so its cost does not matter."""
    import yaml

    try:
        with Path(file).open(encoding="utf-8") as stream:
            root = yaml.compose(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    found: dict[Place, int] = {}
    _walk(root, (), found, yaml)
    return found


def _walk(node: Any, place: Place, found: dict[Place, int], yaml: Any) -> None:
    if len(place) > 12:  # anchors can make a file endless
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found[(*place, key.value)] = key.start_mark.line + 1
            _walk(value, (*place, key.value), found, yaml)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*place, index)] = value.start_mark.line + 1
            _walk(value, (*place, index), found, yaml)
