"""Where HAProxy's sockets are, once it may have come back elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollout.errors import ProxyUnreachable
from rollout.model import ProxySettings, ProxyType
from rollout.proxies import haproxy
from rollout.proxies.haproxy import HAProxy
from tests.clocks import HandClock


class Master:
    def __init__(self, alive: bool) -> None:
        self.alive = alive

    def workers(self) -> list[int]:
        if not self.alive:
            raise ProxyUnreachable("HAProxy does not answer")
        return [8, 12]


class Sockets:
    def __init__(self, alive: bool) -> None:
        self.master = Master(alive)


def test_a_haproxy_that_was_killed_is_looked_for_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is back at another address; the one from before answers nobody any more."""
    found = [Sockets(alive=False), Sockets(alive=True)]
    monkeypatch.setattr(haproxy, "find_sockets", lambda *_: found.pop(0))
    settings = ProxySettings(ProxyType.HAPROXY, str(tmp_path), service="edge")
    process: Any = None  # nobody asks it anything but through the sockets
    proxy = HAProxy(settings, process, HandClock(), str(tmp_path / "lock"))
    with pytest.raises(ProxyUnreachable):
        proxy.old_workers()
    assert proxy.old_workers() == 1
    assert not found
