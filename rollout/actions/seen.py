"""A project as watching sees it."""

from __future__ import annotations

from collections.abc import Sequence

from rollout.compose.sources import sources
from rollout.targets import in_order
from rollout.watch.decision import Seen
from rollout.watch.scope import build_contexts, scope
from rollout.wiring import Wired


def seen(wired: Wired, env_files: Sequence[str]) -> Seen:
    """The project as it was read just now, and what is to be watched of it. `env_files` are those named by the user."""
    loaded, project = wired.loaded, wired.project
    services = loaded.document["services"]
    return Seen(
        project=project,
        hashes=loaded.hashes,
        builds={name: services[name]["build"] for name in project.services if services[name].get("build")},
        order=tuple(in_order(loaded, project)),
        scope=scope(
            files=map(str, sources(loaded.files, env_files, loaded.directory)),
            templates=project.proxy.templates,
            contexts=build_contexts(loaded.document, project.services),
            own=(str(wired.state.path), project.proxy.config),
        ),
    )
