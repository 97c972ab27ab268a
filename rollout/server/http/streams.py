"""Server-sent events: all that goes on, or one operation to its end."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse

from rollout.server.bus import Bus, Numbered
from rollout.server.http import problems
from rollout.server.http.endpoints import Call
from rollout.server.http.reading import as_json, operation_of
from rollout.server.http.site import Site

HEARTBEAT = 15.0  # seconds; a reader, and the proxies between, see that the stream lives
_ID = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,15})\Z")


async def events(site: Site, call: Call) -> StreamingResponse:
    """All that goes on; after a pause, from the event that `Last-Event-ID` names."""
    wanted = call.query.service
    after = _after(call.headers, site.boot)
    return _response(_frames(site, site.bus, after, lambda n: not wanted or n.event.service == wanted))


async def operation_events(site: Site, call: Call) -> StreamingResponse:
    """What one operation says, from its beginning, and as `end` the operation."""
    number = call.path["id"]
    begun = operation_of(site, number)
    bus = site.operations.events(number)
    assert bus is not None
    after = _after(call.headers, site.boot) or 0

    def over() -> dict[str, Any] | None:
        found = site.operations.get(number)
        if found is None:
            return as_json(begun)  # it has ended, and is forgotten by now
        return as_json(found) if found.ended else None

    return _response(_frames(site, bus, after, lambda _: True, over))


async def operation(site: Site, call: Call) -> dict[str, Any]:
    """One operation, when `wait` says so once it has ended."""
    number = call.path["id"]
    found = operation_of(site, number)
    bus = site.operations.events(number)
    if call.query.wait and bus is not None:
        woken, wake = _waker()
        with bus.listening(None, wake), suppress(TimeoutError):
            async with asyncio.timeout(call.query.wait):
                while not found.ended and not site.closing.is_set():
                    woken.clear()
                    found = operation_of(site, number)
                    if not found.ended:
                        await woken.wait()
    return as_json(operation_of(site, number))


async def _frames(
    site: Site,
    bus: Bus,
    after: int | None,
    wanted: Callable[[Numbered], bool],
    over: Callable[[], dict[str, Any] | None] = lambda: None,
) -> AsyncIterator[str]:
    woken, wake = _waker()
    with bus.listening(after, wake) as subscription:
        yield ": rollout\n\n"
        sent = site.clock.now()
        while True:
            woken.clear()
            end = over()  # looked at first: what is said before the end is then among what is taken
            for numbered in filter(wanted, subscription.take(0)):
                yield _frame(site.boot, numbered)
                sent = site.clock.now()
            if end is not None:
                yield f"event: end\ndata: {json.dumps(end)}\n\n"
            if end is not None or site.closing.is_set():
                return
            if site.clock.now() >= sent + HEARTBEAT:  # however often it was woken by what is not wanted
                yield ": still here\n\n"
                sent = site.clock.now()
            with suppress(TimeoutError):
                async with asyncio.timeout(sent + HEARTBEAT - site.clock.now()):
                    await woken.wait()


def _frame(boot: str, numbered: Numbered) -> str:
    data = {**numbered.event.as_json(), "number": numbered.number, "at": numbered.at}
    return f"id: {boot}-{numbered.number}\nevent: {data['event']}\ndata: {json.dumps(data)}\n\n"


def _waker() -> tuple[asyncio.Event, Callable[[], None]]:
    """An event of this loop, and what sets it from any thread."""
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(woken.set)

    return woken, wake


def _after(headers: Mapping[str, str], boot: str) -> int | None:
    """The number of the last event that was seen; that of another process: all that is kept is new."""
    text = headers.get("last-event-id")
    if not text:
        return None
    found = _ID.match(text)
    if found is None:
        raise problems.Refused("the Last-Event-ID is none of ours", hint="leave it out to hear what comes from now on")
    return int(found[2]) if found[1] == boot else 0


def _response(frames: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)
