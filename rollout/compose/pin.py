"""A resolved project with another image for one service: the text is changed at that place, the rest stays as it is."""

from __future__ import annotations

import json
from typing import Any


def with_image(config: str, service: str, reference: str) -> str:
    """`config` (Compose's resolved YAML) with `services.<service>.image` set to `reference`.

    Edited as text: written anew, an octal mode or a date would come out as something else. Raises KeyError when there
    is no such service.
    """
    import yaml

    root = yaml.compose(config, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    section = _value(_value(root, "services"), service)
    image = json.dumps(reference)  # a YAML scalar as well
    for key, value in section.value:
        if key.value == "image":
            return config[: value.start_mark.index] + image + config[value.end_mark.index :]
    first = section.start_mark
    return f"{config[: first.index]}image: {image}\n{' ' * first.column}{config[first.index :]}"


def _value(node: Any, name: str) -> Any:
    for key, value in node.value:
        if key.value == name:
            return value
    raise KeyError(name)
