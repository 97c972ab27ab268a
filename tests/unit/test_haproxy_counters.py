"""Requests since a marker: HAProxy's counters begin anew with a worker and with a server: never hidden."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.clock import SystemClock
from rollout.model import Counters, ProxySettings, ProxyType, Upstream
from rollout.proxies import haproxy
from rollout.proxies.haproxy import HAProxy
from rollout.proxies.haproxy_answers import Server, Worker
from rollout.proxies.haproxy_counters import Deleted, marker, since

WORKER = Worker(8, 1700000000, stopping=False, version="3.0")
A = Server("a", "10.0.0.1:80", "UP", 1, 0, 0, requests=10, failed=1)
B = Server("b", "10.0.0.2:80", "UP", 1, 0, 0, requests=0, failed=0)


def test_what_was_counted_before_is_taken_off() -> None:
    text = marker(WORKER, {"a": A}, 0)
    counted = since(text, WORKER, [], {"a": replace(A, requests=17, failed=3), "b": replace(B, requests=5)})
    assert counted.by_address == {"10.0.0.1:80": Counters(7, 2), "10.0.0.2:80": Counters(5, 0)}
    assert counted.missing == ""


def test_a_deleted_server_is_remembered_and_one_added_again_begins_at_zero() -> None:
    deleted = Deleted()
    deleted.add("web", replace(A, requests=99), at=4.0)
    text = marker(WORKER, {"a": A}, 5.0)
    deleted.add("web", replace(A, requests=17), at=6.0)
    deleted.add("api", replace(A, requests=50), at=7.0)
    counted = since(text, WORKER, deleted.of("web"), {"a": replace(A, requests=4, failed=0)})
    assert counted.by_address["10.0.0.1:80"].requests == 7 + 4


def test_a_server_that_another_run_deleted_is_told() -> None:
    counted = since(marker(WORKER, {"a": A}, 0), WORKER, [], {"b": replace(B, requests=5)})
    assert counted.by_address == {"10.0.0.2:80": Counters(5, 0)}
    assert counted.missing.startswith("what a served is not known")


@pytest.mark.parametrize("other", [replace(WORKER, pid=9), replace(WORKER, started=1700000001)])
def test_a_reload_or_a_restart_is_told(other: Worker) -> None:
    counted = since(marker(WORKER, {"a": A}, 0), other, [], {"a": A})
    assert counted.by_address == {}
    assert "reloaded or restarted" in counted.missing


def test_a_backend_that_was_new_is_counted_from_its_first_load() -> None:
    counted = since(marker(WORKER, None, 0), replace(WORKER, pid=9), [], {"a": A})
    assert counted.by_address == {"10.0.0.1:80": Counters(10, 1)}


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '{"worker": "1@2", "servers": {"a": 1}, "at": 0}',
     '{"worker": "1@2", "servers": {}, "at": 1%s}' % ("0" * 400)],
)  # fmt: skip
def test_a_marker_that_is_none(text: str) -> None:
    assert since(text, WORKER, [], {"a": A}).missing


class Haproxy:
    """A running one that knows two servers, one of which is idle and in maintenance. `during` is called while it is
    asked for them."""

    def __init__(self) -> None:
        self.there = {"a": replace(A, status="MAINT"), "b": B}
        self.during: Callable[[], None] = lambda: None
        self.runtime, self.master = self, None

    def worker(self) -> Worker:
        return WORKER

    def servers(self, backend: str) -> dict[str, Server]:
        found, during = dict(self.there), self.during
        self.during = lambda: None
        during()
        return found

    def run(self, command: str, says: str) -> None:
        del self.there[command.rpartition("/")[2]]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Haproxy:
    made = Haproxy()
    monkeypatch.setattr(haproxy, "find_sockets", lambda *_: made)
    return made


def adapter(directory: Path) -> HAProxy:
    process: Any = SimpleNamespace()  # nobody asks it anything but through the sockets
    return HAProxy(ProxySettings(ProxyType.HAPROXY, str(directory)), process, SystemClock(), str(directory / "lock"))


def test_what_another_adapter_of_the_process_deleted_is_counted(running: Haproxy, tmp_path: Path) -> None:
    """A deploy's adapter deletes, the sidecar's counts."""
    seen = adapter(tmp_path)
    text = seen.mark("web")
    running.there["a"] = replace(running.there["a"], requests=17, failed=3)
    adapter(tmp_path).forget("web", [Upstream("a", "10.0.0.1", 80)])
    assert list(running.there) == ["b"]
    counted, text = seen.count_and_mark("web", text)
    assert (counted.by_address["10.0.0.1:80"], counted.missing) == (Counters(7, 2), "")
    assert "10.0.0.1:80" not in seen.count_and_mark("web", text)[0].by_address, "and once"
    other = tmp_path / "other"
    other.mkdir()
    running.there["a"] = A
    text = adapter(other).mark("web")
    del running.there["a"]
    assert adapter(other).count("web", text).missing, "another proxy's servers are not this one's"


def test_a_server_that_is_deleted_during_a_look_is_counted_once(running: Haproxy, tmp_path: Path) -> None:
    seen, deploy = adapter(tmp_path), adapter(tmp_path)
    text = seen.mark("web")
    running.there["a"] = replace(running.there["a"], requests=17)
    deletion = threading.Thread(target=lambda: deploy.forget("web", [Upstream("a", "10.0.0.1", 80)]))

    def delete() -> None:
        deletion.start()
        deletion.join(0.2)

    running.during = delete
    first, text = seen.count_and_mark("web", text)
    deletion.join(10)
    assert list(running.there) == ["b"]
    second, _ = seen.count_and_mark("web", text)
    found = [one.by_address.get("10.0.0.1:80", Counters()).requests for one in (first, second)]
    assert sum(found) == 7
    assert (first.missing, second.missing) == ("", "")
