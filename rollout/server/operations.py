"""Deploys and rollbacks asked of the sidecar: each in a thread of its own, with its own project and ports.

What is deployed is what the Compose files say when the operation begins, or the resolved project that came with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted. `who` is for the audit record: `webhook`, `schedule`, `watch`, `api:NAME`, `cli:USER`.

    `config`: a resolved project (YAML) to deploy instead of the sidecar's own files; `key` makes asking twice one.
    """

    kind: str  # deploy | rollback | sync
    services: tuple[str, ...]  # empty: all of the project
    who: str
    image: str = ""
    pull: str = "missing"
    build: bool = False
    force: bool = False
    strategy: str = ""
    to: int | None = None  # rollback: the revision
    config: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request and how far it has come. Times are wall clock, seconds since the epoch."""

    id: int
    asked: Asked
    state: str  # queued | running | succeeded | failed
    created_at: float
    ended_at: float = 0.0
    exit_code: int | None = None  # what the command line would have answered
    message: str = ""  # why it failed
    hint: str = ""
    details: tuple[str, ...] = ()
    receipts: tuple[Mapping[str, Any], ...] = field(default=())


class Operations(Protocol):
    """Safe from any thread."""

    def submit(self, asked: Asked) -> Operation:
        """Begin it; answers at once. One with the same non-empty `key` is answered instead of begun again.
        Raises UsageError for what cannot be meant, nothing begun."""

    def get(self, number: int) -> Operation | None: ...

    def recent(self, services: Sequence[str] = ()) -> list[Operation]:
        """Newest first, unfinished ones included."""

    def wait(self, number: int, timeout: float) -> Operation | None:
        """The operation once it has ended, as it is when `timeout` seconds have passed."""
