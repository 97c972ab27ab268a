"""What a rollout says while it goes on. Emitted by the core, shown by `report`, streamed by `--json`.

Every event is a frozen value; `service` is always set. Durations in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    service: str

    def as_json(self) -> dict[str, Any]:
        """A flat JSON object; `event` is the kind in snake case and stable."""
        return {"event": kind(self), **asdict(self)}


@dataclass(frozen=True, slots=True)
class RolloutStarted(Event):
    """A plan begins. `steps` are their one-line texts in order."""

    rollout: int
    what: str  # deploy | rollback | recovery
    strategy: str
    revision: int
    previous: int | None
    replicas: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    index: int  # from 0, into the plan's steps
    step: str  # start | check | switch | drain | stop | …
    text: str


@dataclass(frozen=True, slots=True)
class StepProgress(Event):
    """Something worth seeing while a step goes on; may come often, the newest counts."""

    index: int
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class StepFinished(Event):
    index: int
    step: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StepFailed(Event):
    index: int
    step: str
    reason: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UndoStarted(Event):
    reason: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undone(Event):
    """The service is exactly as it was."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Held(Event):
    """Everything is ready for the switch, which waits until somebody promotes. `addresses` are the new replicas'."""

    rollout: int
    revision: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promoted(Event):
    """`who` as with all that people ask for: `cli:anna`, `api:ci`."""

    who: str


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The rollout stands still; `before` is the step that comes next."""

    rollout: int
    who: str  # failure_action: as update_config says
    before: str


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    who: str


@dataclass(frozen=True, slots=True)
class Aborting(Event):
    """Somebody asked for it; an undo follows."""

    who: str


@dataclass(frozen=True, slots=True)
class Recovering(Event):
    """An earlier run died; `text` says which, and whether it is finished or undone."""

    text: str


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """One line a person should read: an implied health check, a left-over removed."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """One line about something that may lose requests. `code` is a Finding's."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class ComposeOutput(Event):
    """A line of Compose's own output while it pulls or builds."""

    text: str


@dataclass(frozen=True, slots=True)
class HookOutput(Event):
    """A line that a hook printed."""

    hook: str  # pre_deploy | post_switch | pre_stop
    text: str


@dataclass(frozen=True, slots=True)
class NothingToDo(Event):
    revision: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Unfinished(Event):
    """A rollout could be neither finished nor taken back; the next run tries again. No `Finished` follows."""

    rollout: int
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The end of a rollout, good or bad; `receipt` is `Receipt.as_json()`. The last event of a run with `--json`."""

    outcome: str  # deployed | undone | aborted | interrupted | failed
    receipt: Mapping[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], None]


def kind(event: Event) -> str:
    """`StepStarted` → `step_started`."""
    return kind_of(type(event))


def kind_of(kind: type[Event]) -> str:
    return "".join(("_" + c.lower()) if c.isupper() else c for c in kind.__name__).lstrip("_")


def from_json(data: Mapping[str, Any]) -> Event | None:
    """The event that `as_json` made this of, keys that are not its own left out; None for a kind that is not known."""
    known = {kind_of(one): one for one in Event.__subclasses__()}
    found = known.get(str(data.get("event")))
    if found is None:
        return None
    names = {one.name for one in fields(found)}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names}
    made: Event = found(**values)  # type: ignore[arg-type]  # whatever its fields are
    return made
