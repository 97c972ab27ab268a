"""How much, how long, how often: the size of a request, its time, and requests a second by who makes them."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from dataclasses import dataclass

from starlette.types import Message, Receive

from rollout.ports import Clock
from rollout.server.http.problems import Refused, TooLarge, TooMany, TooSlow

REMEMBERED = 1000  # clients
BODY = 30.0  # seconds in which a body has to be complete


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second in the long run, and how many at once."""

    second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Limits:
    """`body` in bytes; `project` for a body that may hold a resolved project."""

    body: int = 64 * 1024
    project: int = 16 * 1024 * 1024
    reads: Rate = Rate(50.0, 200.0)
    writes: Rate = Rate(5.0, 30.0)
    logins: Rate = Rate(0.5, 10.0)


class Bucket:
    """Safe from any thread."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> (left, when)

    def take(self, client: str) -> None:
        """Raise TooMany when this client has had its share."""
        now = self._clock.now()
        with self._lock:
            left, when = self._left.pop(client, (self._rate.burst, now))
            left = min(self._rate.burst, left + (now - when) * self._rate.second)
            self._left[client] = (left - 1.0 if left >= 1.0 else left, now)
            if len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
        if left < 1.0:
            raise TooMany("too many requests", hint=f"at most {self._rate.second:g} a second in the long run")


def bounded(receive: Receive, limit: int, clock: Clock) -> Receive:
    """`receive` that raises TooLarge once a body has become longer than `limit` bytes, TooSlow when it is not complete
    in time, Refused when its client has gone before."""
    seen, until, complete = 0, clock.now() + BODY, False

    async def limited() -> Message:
        nonlocal seen, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout(until - clock.now()):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"the request was not complete within {BODY:g} s; nothing was begun") from None
        if message["type"] == "http.disconnect":
            raise Refused("the request was never complete; nothing was begun")
        complete = not message.get("more_body", False)
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(f"the request is larger than {limit:,} bytes; nothing was begun")
        return message

    return limited
