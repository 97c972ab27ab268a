"""The sidecar's log: one line an event, `key=value` or JSON, for whatever collects a container's output."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from rollout import events
from rollout.report.words import said
from rollout.server.bus import Bus, Numbered, Subscription

PAUSE = 60.0  # seconds; an event ends the wait, and so does the end
LAST_WORDS = 2.0  # seconds in which a reader may still take what was said before the end
_WARNINGS = (events.Warned, events.StepFailed, events.UndoStarted, events.Recovering)


@contextmanager
def logging(bus: Bus, stream: TextIO, *, as_json: bool) -> Iterator[None]:
    """Write what the bus carries for the length of the block, to its last event. A reader that has gone away, or one
    that is slow, holds nobody up; at the end it is waited for, LAST_WORDS at most, and the rest is lost."""
    with bus.listening() as subscription:
        writer = threading.Thread(target=_write, args=(subscription, stream, as_json), name="logs", daemon=True)
        writer.start()
        try:
            yield
        finally:
            subscription.close()
            writer.join(LAST_WORDS)


def line(numbered: Numbered, *, as_json: bool) -> str:
    """One line without its newline. Times are UTC."""
    event = numbered.event
    at = datetime.fromtimestamp(numbered.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"at": at, "level": "warning" if _is_warning(event) else "info"}
    if as_json:
        return json.dumps({**head, **event.as_json()}, separators=(",", ":"))
    fields = {**head, "event": events.kind(event), "service": event.service, "text": said(event), **_more(event)}
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value != "")


def _write(subscription: Subscription, stream: TextIO, as_json: bool) -> None:
    with suppress(OSError, ValueError), _apart(stream) as apart:
        while True:
            last = subscription.closed
            for numbered in subscription.take(PAUSE):
                if not isinstance(numbered.event, events.StepProgress):
                    with suppress(OSError, ValueError):
                        apart.write(line(numbered, as_json=as_json) + "\n")
            with suppress(OSError, ValueError):
                apart.flush()
            if last:
                return


def _apart(stream: TextIO) -> AbstractContextManager[TextIO]:
    """The same file by a stream of its own: one that waits for its reader is locked, and the interpreter, which flushes
    `sys.stdout` when it ends, would wait as well."""
    try:
        fd = stream.fileno()
    except (OSError, ValueError):  # in memory
        return nullcontext(stream)
    return open(fd, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


def _is_warning(event: events.Event) -> bool:
    bad = isinstance(event, events.Finished) and event.outcome != "deployed"
    return bad or isinstance(event, _WARNINGS)


def _more(event: events.Event) -> Mapping[str, Any]:
    if isinstance(event, events.StepFailed):
        return {"details": " | ".join(event.details)}
    if isinstance(event, events.Finished):
        receipt = event.receipt
        return {name: receipt[name] for name in ("rollout", "revision", "seconds", "reason") if name in receipt}
    return {}


def _quoted(value: object) -> str:
    """As logfmt has it: bare when it is one word, else a JSON string, which keeps a line one line."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    bare = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return text if bare and text else json.dumps(text, ensure_ascii=False)
