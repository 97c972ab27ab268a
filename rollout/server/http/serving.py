"""The part that serves HTTP: one event loop in a thread, a server for each place it is spoken to at."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from rollout.events import Sink, Warned
from rollout.ports import Clock
from rollout.server.http.peer import CONNECTIONS, PeerProtocol
from rollout.server.listening import Tcp, tcp_socket, unix_socket

QUIET = 60.0  # seconds in which the same warning is told once
GRACE = 2  # seconds that answers under way get at the end


class Http:
    """Serves `app` until told to stop; then what is under way (`settle` waits for it) can still be told of."""

    name = "http"

    def __init__(
        self, app: ASGIApp, path: Path, tcp: Tcp, settle: Callable[[], None], emit: Sink, clock: Clock
    ) -> None:
        self._app, self._path, self._tcp, self._settle = app, path, tcp, settle
        self._emit, self._clock = emit, clock

    def run(self, stop: threading.Event) -> None:
        with ExitStack() as stack:
            stack.enter_context(_warnings_told(self._emit, self._clock))
            places: list[tuple[socket.socket, uvicorn.Config]] = [
                (stack.enter_context(unix_socket(self._path)), _config(self._app))
            ]
            if self._tcp.listen:
                config = _config(self._app)
                config.load()
                config.ssl = self._tcp.context()
                places.append((stack.enter_context(tcp_socket(*self._tcp.address())), config))
            asyncio.run(self._serve(places, stop))

    async def _serve(self, places: list[tuple[socket.socket, uvicorn.Config]], stop: threading.Event) -> None:
        ending = asyncio.Event()
        servers = [(_Server(config, ending), sock) for sock, config in places]
        serving = [asyncio.create_task(server.serve([sock])) for server, sock in servers]
        watching = asyncio.create_task(asyncio.to_thread(self._wait, stop))
        done, _ = await asyncio.wait([*serving, watching], return_when=asyncio.FIRST_COMPLETED)
        ending.set()
        await asyncio.gather(*serving)
        for task in done:
            task.result()

    def _wait(self, stop: threading.Event) -> None:
        stop.wait()
        self._settle()


@contextmanager
def _warnings_told(emit: Sink, clock: Clock) -> Iterator[None]:
    """What uvicorn would print by itself becomes an event: the log has one form."""
    logger, handler = logging.getLogger("uvicorn"), _Warnings(emit, clock)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class _Warnings(logging.Handler):
    """The same words at most once in QUIET seconds: whoever can connect can cause some of them."""

    def __init__(self, emit: Sink, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._tell, self._clock = emit, clock
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now, text = self._clock.now(), record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text.strip()}: {record.exc_info[0].__name__}: {record.exc_info[1]}"
        self._told = {told: at for told, at in self._told.items() if now < at + QUIET}
        if text not in self._told:
            self._told[text] = now
            self._tell(Warned("", "http", text))


class _Server(uvicorn.Server):
    """uvicorn looks ten times a second whether to end; ours is told."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def main_loop(self) -> None:
        await self._ending.wait()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app, http=PeerProtocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        date_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
