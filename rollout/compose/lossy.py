"""What Compose loses when it writes a project out: the empty lines that a text of several lines begins with.

Seen with 2.26: `"\\nset -e\\n"` is written as a block whose indentation is given (`|2`), since it does not begin with a
letter, and without the empty line. A container created from the user's files would never be what the written project
says.
"""

from __future__ import annotations

import re
from typing import Any

# Only such a block needs the indentation that does not begin with a space of its own.
_HEADER = re.compile(r"[|>][1-9][-+]?\n")


def lost_lines(config: str) -> tuple[tuple[str | int, ...], ...]:
    """Places (keys and positions, from the root) of the texts in `config` (Compose's resolved YAML) that have lost
    lines."""
    if not _HEADER.search(config):
        return ()
    import yaml

    found: list[tuple[str | int, ...]] = []
    _walk(yaml.compose(config, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), (), config, found)
    return tuple(found)


def _walk(node: Any, place: tuple[str | int, ...], config: str, found: list[tuple[str | int, ...]]) -> None:
    if isinstance(node.value, str):
        if _HEADER.match(config, node.start_mark.index) and not node.value.startswith((" ", "\n")):
            found.append(place)
        return
    for index, entry in enumerate(node.value):
        key, value = (entry[0].value, entry[1]) if isinstance(entry, tuple) else (index, entry)
        _walk(value, (*place, key), config, found)
