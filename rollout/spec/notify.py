"""`x-rollout.notify`, as settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollout.model import NotifySettings
from rollout.paths import absolute, expanded, is_file
from rollout.spec.faults import Faults, Place


def read_notify(
    sections: Sequence[Mapping[str, Any] | None], directory: str, place: Place, faults: Faults
) -> tuple[NotifySettings, ...]:
    """Each with its files' paths absolute, seen from `directory`. Faults are added; None is one that is none."""
    return tuple(
        _one(section, directory, (*place, index), faults)
        for index, section in enumerate(sections)
        if section is not None
    )


def _one(section: Mapping[str, Any], directory: str, place: Place, faults: Faults) -> NotifySettings:
    values = dict(section)
    if "url" in values and "url_file" in values:
        faults.add(place, "url and url_file exclude each other", "keep url_file if the address is a secret")
    perhaps = faults.within(place) - {"format", "secret_file", "on"}  # misspelt, or not acceptable
    if not ("url" in values or "url_file" in values or perhaps):
        faults.add(place, "does not say where to", "add url: https://…, or url_file: PATH if the address is a secret")
    if values.get("format") == "slack" and "secret_file" in values:
        faults.add((*place, "secret_file"), "means nothing to slack, which checks no signature", "remove it")
    if values.get("on") == ():
        faults.add((*place, "on"), "names no outcome", "remove it for all of them")
    for key in ("url_file", "secret_file"):
        if key in values:
            values[key] = absolute(expanded(values[key]), directory)
            _check_file(values[key], (*place, key), faults)
    return NotifySettings(**values)


def _check_file(path: str, place: Place, faults: Faults) -> None:
    """That there is one is all that is looked for: who may deploy need not be who may read it, a sidecar may."""
    if not is_file(path):
        faults.add(place, f"there is no file {path}", "a file with one line in it, in a directory that you may search")
