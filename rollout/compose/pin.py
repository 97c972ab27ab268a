"""A resolved project with one value of a service changed: the text is edited at that place, the rest stays as it is."""

from __future__ import annotations

import json
from typing import Any


def with_image(config: str, service: str, reference: str) -> str:
    """`config` (Compose's resolved YAML) with `services.<service>.image` set to `reference`. Raises KeyError."""
    return _with(config, service, "image", reference)


def never_pulled(config: str, service: str) -> str:
    """`config` with nothing that would fetch the service's image again when it is used. Raises KeyError."""
    return _with(config, service, "pull_policy", "never")


def _with(config: str, service: str, name: str, text: str) -> str:
    """Edited as text: written anew, an octal mode or a date would come out as something else. KeyError when there is no
    such service."""
    import yaml

    root = yaml.compose(config, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    section = _value(_value(root, "services"), service)
    scalar = json.dumps(text)  # of YAML as well
    for key, value in section.value:
        if key.value == name:
            return config[: value.start_mark.index] + scalar + config[value.end_mark.index :]
    first = section.start_mark
    return f"{config[: first.index]}{name}: {scalar}\n{' ' * first.column}{config[first.index :]}"


def _value(node: Any, name: str) -> Any:
    for key, value in node.value:
        if key.value == name:
            return value
    raise KeyError(name)
