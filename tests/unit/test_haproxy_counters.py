"""Requests since a marker: HAProxy's counters begin anew with a worker and with a server: never hidden."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rollout.model import Counters
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
    deleted.add("web", replace(A, requests=99))  # before the marker
    text = marker(WORKER, {"a": A}, deleted.last)
    deleted.add("web", replace(A, requests=17))
    deleted.add("api", replace(A, requests=50))
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


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"worker": "1@2", "servers": {"a": 1}, "deleted": 0}'])
def test_a_marker_that_is_none(text: str) -> None:
    assert since(text, WORKER, [], {"a": A}).missing
