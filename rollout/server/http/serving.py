"""The part that serves HTTP: one event loop in a thread, a server for each place it is spoken to at."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from rollout.server.http.peer import PeerProtocol
from rollout.server.listening import Tcp, tcp_socket, unix_socket

CONNECTIONS = 256  # at once, at each place
GRACE = 2  # seconds that answers under way get at the end


class Http:
    """Serves `app` until told to stop; then what is under way (`settle` waits for it) can still be told of."""

    name = "http"

    def __init__(self, app: ASGIApp, path: Path, tcp: Tcp, settle: Callable[[], None]) -> None:
        self._app, self._path, self._tcp, self._settle = app, path, tcp, settle

    def run(self, stop: threading.Event) -> None:
        with ExitStack() as stack:
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
