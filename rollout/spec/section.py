"""A section of the Compose file: its keys, and what makes the value of each. Every fault is found, not only the first.

voluptuous walks the sections, in a tenth of the time that importing pydantic takes (3 ms to 40): that is time a deploy
would wait. The rules for single values are in `values`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from voluptuous import (
    PREVENT_EXTRA,
    REMOVE_EXTRA,
    Invalid,
    MultipleInvalid,
    Optional,
    Required,
    RequiredFieldInvalid,
    Schema,
)

from rollout.spec.faults import Faults, Place, Refused, shown, unknown_key

_EXAMPLES: Mapping[object, str] = {
    "proxy": "like proxy: { type: nginx, service: edge, config: ./edge/rollout.d }",
    "type": "nginx or haproxy",
    "config": "the directory the proxy has mounted, like ./edge/rollout.d",
    "interval": "like 1h",
}
Rule = Callable[[object], Any]  # answers the value, or raises Refused


class Section:
    """What may stand in a mapping. Called with one it answers a dict of what has a value, by the rules."""

    def __init__(self, fields: Mapping[str, Rule], *, needed: Sequence[str] = (), others: bool = False) -> None:
        """`others`: keys that are not ours are ignored, not refused. A scalar without a value is as if it were not
        there; a section without one is refused."""
        self.fields = fields
        rules: dict[Any, Any] = {
            Required(name) if name in needed else Optional(name): rule for name, rule in fields.items()
        }
        if not others:
            rules[self._unknown] = object
        self._schema = Schema(rules, extra=REMOVE_EXTRA if others else PREVENT_EXTRA)

    def __call__(self, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Refused(f"must be a mapping, not {shown(value)}")
        return self._schema({k: v for k, v in value.items() if v is not None or not self._is_scalar(k)})  # type: ignore[no-any-return]

    def _is_scalar(self, key: object) -> bool:
        return key in self.fields and not isinstance(self.fields[key], Section)  # type: ignore[index]

    def _unknown(self, key: object) -> None:
        raise unknown_key(key, self.fields)


class ListOf:
    """A list, as a tuple. `alone`: a text by itself is a list of one."""

    def __init__(self, rule: Rule, *, alone: bool = False) -> None:
        self.rule = rule
        self._schema = Schema(rule)
        self._alone = alone

    def __call__(self, value: object) -> tuple[Any, ...]:
        listed = [value] if self._alone and isinstance(value, str) else value
        if not isinstance(listed, (list, tuple)):
            raise Refused(f"must be a list, not {shown(value)}")
        found, errors = [], []
        for index, one in enumerate(listed):
            try:
                found.append(self._schema(one))
            except MultipleInvalid as error:
                error.prepend([index])
                errors += error.errors
        if errors:
            raise MultipleInvalid(errors)
        return tuple(found)


def _acceptable(rule: Rule, value: object) -> Any:
    """Of a value what its rule takes: of a section each key, of sections in a list each in its place. Raises Invalid
    when that is nothing."""
    if isinstance(rule, Section) and isinstance(value, Mapping):
        found = {}
        for key, inner in rule.fields.items():
            if value.get(key) is not None:
                with suppress(Invalid):
                    found[key] = _acceptable(inner, value[key])
        return found
    if isinstance(rule, ListOf) and isinstance(rule.rule, Section) and isinstance(value, list):
        return tuple(_acceptable(rule.rule, one) if isinstance(one, Mapping) else None for one in value)
    return Schema(rule)(value)


def validate(section: Section, raw: object, place: Place, faults: Faults) -> dict[str, Any]:
    """The section's values; with faults, which are added, those values that have none. An empty section (`x-rollout:`)
    is one without keys. `raw` is as Compose writes it, a dollar twice."""
    meant = {} if raw is None else _unescaped(raw)
    try:
        return Schema(section)(meant)  # type: ignore[no-any-return]
    except MultipleInvalid as error:
        for one in sorted(error.errors, key=_is_missing):
            at = tuple(part if isinstance(part, (int, str)) else str(part) for part in one.path)
            faults.add((*place, *at), *_said(one, at))
        return _acceptable(section, meant if isinstance(meant, Mapping) else {})  # type: ignore[no-any-return]


def _is_missing(error: Invalid) -> tuple[bool, str]:
    """What is there comes first, in its own order: voluptuous has what is missing in any."""
    missing = isinstance(error, RequiredFieldInvalid)
    return missing, str(error.path[-1]) if missing else ""


def _said(error: Invalid, at: Place) -> tuple[str, str]:
    if isinstance(error, Refused):
        return error.message, error.hint
    return "is missing", _EXAMPLES.get(at[-1], "")  # of voluptuous's own only this can be


def _unescaped(raw: object) -> object:
    """What the user meant: Compose has filled in its variables, and would again in what it has written."""
    if isinstance(raw, str):
        return raw.replace("$$", "$")
    if isinstance(raw, Mapping):
        return {key: _unescaped(value) for key, value in raw.items()}
    return [_unescaped(value) for value in raw] if isinstance(raw, list) else raw
