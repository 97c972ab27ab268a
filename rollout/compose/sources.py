"""Which files a project is made of: the Compose files, and those that they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rollout.compose.find import DEFAULT_FILES, DEFAULT_OVERRIDES


def sources(files: Sequence[str], env_files: Sequence[str], directory: str) -> tuple[Path, ...]:
    """Files whose content the resolved project depends on, as far as they can be told without Compose: its own files,
    what these include or extend, environment files, and the override that Compose would find beside a file that it has
    found by itself. Sorted; some may not exist. A file that cannot be read names no others."""
    found = {Path(directory, ".env"), *(Path(directory, name) for name in env_files)}
    waiting = [Path(file) for file in files if file != "-"]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        document = _read(file)
        waiting += [file.parent / name for name in _compose_files(document)]
        found.update(file.parent / name for name in _env_files(document))
    if len(files) == 1 and Path(files[0]).name in DEFAULT_FILES:
        found.update(Path(files[0]).parent / name for name in DEFAULT_OVERRIDES)
    return tuple(sorted(found))


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}


def _compose_files(document: dict[str, Any]) -> Iterator[str]:
    for entry in _list(document.get("include")):
        yield from _names(entry.get("path") if isinstance(entry, dict) else entry)
    for service in _services(document):
        extends = service.get("extends")
        if isinstance(extends, dict):
            yield from _names(extends.get("file"))


def _env_files(document: dict[str, Any]) -> Iterator[str]:
    for part in (*_list(document.get("include")), *_services(document)):
        for entry in _list(part.get("env_file")) if isinstance(part, dict) else ():
            yield from _names(entry.get("path") if isinstance(entry, dict) else entry)


def _services(document: dict[str, Any]) -> list[dict[str, Any]]:
    services = document.get("services")
    return [s for s in services.values() if isinstance(s, dict)] if isinstance(services, dict) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _names(value: Any) -> Iterator[str]:
    """Names that hold a variable are Compose's to resolve; they are left out."""
    yield from (name for name in _list(value) if isinstance(name, str) and "$" not in name)
