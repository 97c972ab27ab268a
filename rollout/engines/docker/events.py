"""The engine's events as hints: a container of the project, or the proxy's, may not be what it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, Retry

# What changes who is ready, and where. Each health check also begins and ends an exec, which concerns nobody.
ACTIONS = ("start", "die", "pause", "unpause", "health_status", "destroy")


class EventStream:
    """`ports.Watch`. Open from the beginning: what happens between that and the first iteration is not lost."""

    def __init__(self, connection: Connection, project: str, container: str) -> None:
        self._connection, self._project, self._container = connection, project, container
        self._closing = threading.Lock()
        self._closed = False
        filters: dict[str, Any] = {"type": ["container"], "event": list(ACTIONS)}
        if not container:
            filters["label"] = [f"{reading.PROJECT}={project}"]
        # since this second: the engine begins to listen only after it has answered
        since = int(connection.clock.wall())
        self._stream = connection.call(
            "watch the containers", lambda c: c.events(since=since, filters=filters, decode=True), Retry.ANY
        )

    def __iter__(self) -> Iterator[str]:
        from rollout.engines.docker.client import FOREIGN

        try:
            for event in self._stream:
                service = self._concerned(event)
                if service is not None:
                    yield service
        except FOREIGN:
            return  # the engine has gone
        except (AttributeError, RecursionError, ValueError):
            return  # closed under this read, or no engine's words
        finally:
            self.close()

    def close(self) -> None:
        from rollout.engines.docker.client import FOREIGN

        with self._closing:
            if self._closed:
                return
            self._closed = True
            with suppress(*FOREIGN, AttributeError):
                self._stream.close()
            with suppress(*FOREIGN):
                self._stream._response.close()  # type: ignore[attr-defined]  # its own `close` leaves it open

    def _concerned(self, event: Any) -> str | None:
        about = ((event.get("Actor") or {}).get("Attributes") or {}) if isinstance(event, dict) else {}
        if about.get(reading.PROJECT) == self._project:
            return str(about.get(reading.SERVICE, ""))
        return "" if self._container and about.get("name") == self._container else None
