"""Which files a project is made of: the Compose files, and those that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollout.compose.find import DEFAULT_FILES, DEFAULT_OVERRIDES, named_env_files, said_in_env_files
from rollout.paths import absolute, expanded


def sources(files: Sequence[str], env_files: Sequence[str], directory: str) -> tuple[Path, ...]:
    """Files whose content the resolved project depends on, as far as they can be told without Compose: its own files,
    what these include or extend, environment files, and the override that Compose would find beside a file that it has
    found by itself; of a symbolic link what it points to as well. Sorted; some may not exist. A file that cannot be
    read names no others. `directory` is the project's."""
    here = str(Path.cwd())
    found = {absolute(".env", directory), *named_env_files(env_files, os.environ, here)}
    if "COMPOSE_FILE" in said_in_env_files((), here, os.environ):
        found.add(absolute(".env", here))  # it says where the project is, and is read beside the project's own
    waiting = [(file, directory) for file in files if file != "-"]
    while waiting:
        file, base = waiting.pop(0)  # those named by the user first: what they name is seen from the project directory
        if file in found:
            continue
        found.add(file)
        for document in _documents(file):
            waiting += _compose_files(document, base)
            found.update(_env_files(document, base))
    if len(files) == 1 and Path(files[0]).name in DEFAULT_FILES:
        found.update(absolute(name, str(Path(files[0]).parent)) for name in DEFAULT_OVERRIDES)
    return tuple(sorted(map(Path, found.union(map(os.path.realpath, found)))))


def _documents(file: str) -> list[dict[str, Any]]:
    import yaml

    loader: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
    loader.add_multi_constructor("", _untagged)
    found: list[Any] = []
    with suppress(OSError, ValueError, yaml.YAMLError):
        found.extend(yaml.load_all(Path(file).read_bytes(), Loader=loader))  # those before a broken one count
    return [document for document in found if isinstance(document, dict)]


def _untagged(loader: Any, _tag: str, node: Any) -> Any:
    """What has a tag that YAML does not know, like Compose's `!reset`."""
    if node.id == "scalar":
        return loader.construct_scalar(node)
    construct = loader.construct_mapping if node.id == "mapping" else loader.construct_sequence
    return construct(node, deep=True)


def _compose_files(document: dict[str, Any], base: str) -> Iterator[tuple[str, str]]:
    """Each with the directory that its own names are seen from."""
    for entry in _includes(document):
        directory = _directory(entry, base)
        yield from ((absolute(name, base), directory) for name in _names(entry.get("path")))
    for service in _services(document):
        extends = service.get("extends")
        if isinstance(extends, dict):
            extended = [absolute(name, base) for name in _names(extends.get("file"))]
            yield from ((file, str(Path(file).parent)) for file in extended)


def _env_files(document: dict[str, Any], base: str) -> Iterator[str]:
    yield from (absolute(".env", _directory(entry, base)) for entry in _includes(document))
    for part in (*_includes(document), *_services(document)):
        for entry in _list(part.get("env_file")):
            names = _names(entry.get("path") if isinstance(entry, dict) else entry)
            yield from (absolute(expanded(name), base) for name in names)


def _includes(document: dict[str, Any]) -> list[dict[str, Any]]:
    entries = _list(document.get("include"))
    return [entry if isinstance(entry, dict) else {"path": entry} for entry in entries]


def _directory(include: dict[str, Any], base: str) -> str:
    """The project directory of what is included: as it says, else that of its first file."""
    for name in _names(include.get("project_directory")):
        return absolute(name, base)
    return next((str(Path(absolute(name, base)).parent) for name in _names(include.get("path"))), base)


def _services(document: dict[str, Any]) -> list[dict[str, Any]]:
    services = document.get("services")
    return [s for s in services.values() if isinstance(s, dict)] if isinstance(services, dict) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _names(value: Any) -> Iterator[str]:
    """Names that hold a variable are Compose's to resolve; they are left out."""
    yield from (name for name in _list(value) if isinstance(name, str) and "$" not in name and "\0" not in name)
