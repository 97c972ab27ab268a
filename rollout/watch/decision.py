"""What a change asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.model import Project
from rollout.watch.scope import Scope


@dataclass(frozen=True, slots=True)
class Seen:
    """A project as it was read last: what a later reading is compared with, and what is watched of it."""

    project: Project
    hashes: Mapping[str, str]  # Compose's config hash, by service
    builds: Mapping[str, Any]  # the `build` sections, by service
    order: tuple[str, ...]  # each service after those it depends on
    scope: Scope


@dataclass(frozen=True, slots=True)
class Work:
    """`read`: read the project again. `apply`: render and switch, which is what a template asks for. A service in
    `build` is in `deploy` as well."""

    read: bool = False
    apply: bool = False
    build: frozenset[str] = field(default_factory=frozenset)
    deploy: frozenset[str] = field(default_factory=frozenset)

    def __or__(self, other: Work) -> Work:
        return Work(
            self.read or other.read, self.apply or other.apply, self.build | other.build, self.deploy | other.deploy
        )

    def without(self, service: str) -> Work:
        return replace(self, build=self.build - {service}, deploy=self.deploy - {service})


def decide(scope: Scope, changed: Iterable[str]) -> Work:
    """What these changed paths ask for."""
    paths = list(changed)
    services = frozenset[str]().union(*(scope.services(path) for path in paths))
    return Work(any(map(scope.is_file, paths)), any(map(scope.is_template, paths)), services, services)


def difference(before: Seen, now: Seen) -> Work:
    """What has to be done for the project as it is read now, where `before` was taken up."""
    build = {name for name in now.builds if _built_from(now, name) != _built_from(before, name)}
    changed = {name for name in now.project.services if _declared(now, name) != _declared(before, name)}
    proxy = now.project.proxy != before.project.proxy
    return Work(apply=proxy, build=frozenset(build), deploy=frozenset(build | changed))


def _built_from(seen: Seen, name: str) -> tuple[Any, str]:
    """What an image of this service is built from, and under which name."""
    settings = seen.project.services.get(name)
    return seen.builds.get(name), settings.image if settings else ""


def _declared(seen: Seen, name: str) -> tuple[Any, Any]:
    return seen.hashes.get(name), seen.project.services.get(name)
