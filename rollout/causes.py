"""What an exception wraps. requests and urllib3 keep the reason in `args` or `reason`, not always in `__cause__`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception itself and everything it wraps, outermost first."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (*current.args, getattr(current, "reason", None), current.__cause__, current.__context__)
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]


def caused_by(error: BaseException, kind: type[E]) -> E | None:
    """The outermost cause of this kind, None when there is none."""
    return next((cause for cause in causes(error) if isinstance(cause, kind)), None)
