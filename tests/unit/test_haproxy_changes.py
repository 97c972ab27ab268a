"""From the servers HAProxy has to those it should have: no command when it is there, and any state leads there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.proxies.haproxy_answers import Server
from rollout.proxies.haproxy_changes import Command, admit, leftovers, not_serving, retire
from rollout.proxies.haproxy_config import ServerLine
from tests.seeded import whatever_was_imported


@pytest.fixture(scope="module", autouse=True)
def same_examples_in_any_order_of_tests() -> Iterator[None]:
    with whatever_was_imported():
        yield


def server(name: str, status: str = "no check", *, port: int = 80, weight: int = 1, sessions: int = 0) -> Server:
    return Server(name, f"172.17.0.2:{port}", status, weight, sessions, 0, 0, 0)


def line(name: str, *options: str, port: int = 80, weight: int = 1) -> ServerLine:
    return ServerLine(name, f"172.17.0.2:{port}", weight, options)


def texts(commands: list[Command]) -> list[str]:
    return [command.text for command in commands]


def test_a_new_server_is_added_with_its_options_and_then_made_ready() -> None:
    assert texts(admit("web", {"a": line("a", "pool-purge-delay", "2s", weight=3)}, {})) == [
        "add server web/a 172.17.0.2:80 pool-purge-delay 2s weight 3",
        "set server web/a state ready",
    ]


def test_a_checked_server_has_its_check_enabled() -> None:
    assert "enable health web/a" in texts(admit("web", {"a": line("a", "check")}, {}))


def test_what_is_not_wanted_goes_into_maintenance_never_into_drain() -> None:
    live = {"a": server("a"), "b": server("b", "DRAIN"), "c": server("c", "DOWN"), "d": server("d", "MAINT")}
    assert texts(retire("web", {}, live)) == [f"set server web/{name} state maint" for name in "abc"]


def test_a_server_in_rotation_is_only_told_what_differs() -> None:
    live = {"a": server("a", port=81, weight=2)}
    assert texts(admit("web", {"a": line("a")}, live)) == [
        "set server web/a addr 172.17.0.2 port 80",
        "set server web/a weight 1",
    ]


def test_an_ipv6_address_is_sent_without_its_brackets() -> None:
    wanted = {"a": replace(line("a"), address="[fd00::2]:80")}
    assert texts(admit("web", wanted, {"a": server("a")})) == ["set server web/a addr fd00::2 port 80"]


def test_a_server_that_serves_nothing_is_named_with_its_state() -> None:
    wanted = {"a": line("a"), "b": line("b"), "c": line("c")}
    live = {"a": server("a"), "b": server("b", "DOWN 1/2")}
    assert not_serving(wanted, live) == ["b is DOWN 1/2", "c is not there"]


def test_a_leftover_with_a_session_stays() -> None:
    live = {"a": server("a", "MAINT"), "b": server("b", "MAINT", sessions=1), "c": server("c")}
    assert leftovers({}, live) == ["a"]


NAMES = st.sampled_from("abcd")
LIVE = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(["no check", "MAINT", "DRAIN"]), st.integers(80, 82), st.integers(1, 3)),
).map(lambda rows: {n: server(n, status, port=port, weight=weight) for n, (status, port, weight) in rows.items()})
WANTED = st.dictionaries(NAMES, st.tuples(st.integers(80, 82), st.integers(1, 3))).map(
    lambda rows: {n: line(n, port=port, weight=weight) for n, (port, weight) in rows.items()}
)


@settings(deadline=None, derandomize=True, database=None)
@given(LIVE, WANTED, st.integers(0, 30))
def test_cut_off_anywhere_it_converges_and_never_empties_a_pool(
    live: dict[str, Server], wanted: dict[str, ServerLine], cut: int
) -> None:
    """A model of HAProxy obeys the first `cut` commands; begun anew from there, all of them end at the wanted pool."""
    served = any(s.serving for s in live.values())
    for command in (admit("web", wanted, live) + retire("web", wanted, live))[:cut]:
        obey(live, command.text)
        assert not (served and wanted) or any(s.serving for s in live.values())
    for command in admit("web", wanted, live) + retire("web", wanted, live):
        obey(live, command.text)
    assert admit("web", wanted, live) + retire("web", wanted, live) == []
    assert {n for n, s in live.items() if s.serving} == set(wanted)


def obey(live: dict[str, Server], command: str) -> None:
    words = command.split()
    name = words[2].partition("/")[2]
    if words[0] == "add":
        port = words[3].rpartition(":")[2]
        assert name not in live
        live[name] = server(name, "MAINT", port=int(port), weight=int(words[-1]))
    elif words[3] == "addr":
        live[name] = replace(live[name], address=f"{words[4]}:{words[6]}")
    elif words[3] == "weight":
        live[name] = replace(live[name], weight=int(words[4]))
    else:
        live[name] = replace(live[name], status={"ready": "no check", "maint": "MAINT"}[words[4]])
