"""The words reports share: what an event says in one line, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rollout import events


def said(event: events.Event) -> str:
    """The event in one line, without its service."""
    saying = _SAYINGS.get(type(event))
    return saying(event) if saying else events.kind(event)


def _started(event: events.RolloutStarted) -> str:
    was = f" (was {event.previous})" if event.previous is not None else ""
    return (
        f"{event.what} of revision {event.revision}{was}, {event.strategy}, "
        f"{plural(event.replicas, 'replica')}, rollout {event.rollout}"
    )


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """`52 ms`, `2.41 s`, `3 min 05 s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def memory(count: int) -> str:
    """Bytes as MiB or GiB, three digits."""
    mebi = count / 2**20
    return f"{mebi / 1024:.2f} GiB" if mebi >= 1000 else f"{mebi:.3g} MiB"


_SAYINGS: Mapping[type[events.Event], Callable[[Any], str]] = {
    events.RolloutStarted: _started,
    events.StepStarted: lambda e: f"{e.text} …",
    events.StepProgress: lambda e: f"  {e.text}",
    events.StepFinished: lambda e: f"{e.text}: done in {duration(e.seconds)}",
    events.StepFailed: lambda e: f"{e.step} failed: {e.reason}",
    events.UndoStarted: lambda e: f"undoing: {e.reason}",
    events.Undone: lambda e: f"undone in {duration(e.seconds)}: the service is exactly as it was",
    events.Held: lambda e: (
        f"ready and held: `rollout promote {e.service}` switches to revision {e.revision} ({', '.join(e.addresses)}), "
        f"`rollout abort {e.service}` takes it back"
    ),
    events.Promoted: lambda e: f"promoted by {e.who}",
    events.Paused: lambda e: (
        f"paused by {e.who}, before: {e.before}; `rollout resume {e.service}` or `rollout abort {e.service}`"
    ),
    events.Resumed: lambda e: f"resumed by {e.who}",
    events.Aborting: lambda e: f"abort asked by {e.who}",
    events.Unfinished: lambda e: f"left unfinished: {e.reason}",
    events.Recovering: lambda e: f"recovering: {e.text}",
    events.Notice: lambda e: f"note: {e.text}",
    events.Warned: lambda e: f"warning: {e.text} [{e.code}]",
    events.ComposeOutput: lambda e: f"compose: {e.text}",
    events.HookOutput: lambda e: f"{e.hook}: {e.text}",
    events.NothingToDo: lambda e: (
        f"nothing to do: revision {e.revision} runs already ({plural(e.replicas, 'replica')})"
    ),
    events.Finished: lambda e: e.outcome,
}
