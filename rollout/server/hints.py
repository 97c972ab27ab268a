"""The engine's events, heard in a thread of their own for as long as the sidecar knows one project."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rollout.errors import EngineError
from rollout.model import ProxySettings
from rollout.ports import Engine, Watch
from rollout.server.news import News

PATIENCE = 2.0  # seconds; an engine that took the question for its events and answers nothing must not hold up the end
PAUSE = 1.0  # seconds until the engine is asked again for events, once it has stopped sending them


@contextmanager
def hints(engine: Engine, proxy: ProxySettings, news: News) -> Iterator[None]:
    """Tell `news` for the length of the block. That the engine is away is not said here: whoever looks is told so."""
    listener = _Listener(engine, proxy, news)
    thread = threading.Thread(target=listener.run, name="engine events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.end()
        thread.join(PATIENCE)


class _Listener:
    def __init__(self, engine: Engine, proxy: ProxySettings, news: News) -> None:
        self._engine, self._proxy, self._news = engine, proxy, news
        self._ended = threading.Event()
        self._opening = threading.Lock()
        self._stream: Watch | None = None

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                stream = self._engine.watch(self._proxy.container)
            except EngineError:
                self._ended.wait(PAUSE)
                continue
            with self._opening:
                self._stream = stream
                if self._ended.is_set():
                    stream.close()
            self._news.tell_all()  # whatever happened while nobody listened
            for service in stream:
                if service in ("", self._proxy.service):
                    self._news.tell_all()
                else:
                    self._news.tell(service)
            self._ended.wait(PAUSE)

    def end(self) -> None:
        self._ended.set()
        with self._opening:
            if self._stream is not None:
                self._stream.close()
