"""What a look at the sockets proves, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rollout.errors import ProxyUnreachable
from rollout.model import Upstream
from rollout.ports import ExecResult, Process
from rollout.proxies.nginx_config import LoadedConfig
from rollout.proxies.nginx_drain import Drain
from rollout.proxies.nginx_log import counted
from rollout.proxies.nginx_reload import Reload, refusal
from rollout.proxies.nginx_workers import (
    GENERATIONS,
    Socket,
    Sockets,
    Token,
    Workers,
    clients_of,
    pids_only,
    read_sockets,
    remaining,
    surplus,
    unfinished,
    workers,
)
from tests.clocks import HandClock

OLD, PEER, OTHER = ("10.0.0.5", 8000), ("10.0.0.6", 8000), ("10.0.0.7", 9000)


def client(inode: int) -> Socket:
    return Socket(("10.0.0.2", 80), ("10.0.0.1", 40000 + inode), "01", inode)


def to(remote: tuple[str, int], inode: int) -> Socket:
    return Socket(("10.0.0.2", 50000 + inode), remote, "01", inode)


def look(*workers_sockets: list[Socket], later: list[Socket] | None = None) -> Sockets:
    every = {s.inode: s for held in workers_sockets for s in held}
    second = every if later is None else {s.inode: s for s in later}
    held = {pid: {s.inode for s in sockets} for pid, sockets in enumerate(workers_sockets)}
    return Sockets(every, second, {80}, (32768, 60999), held)


@pytest.mark.parametrize(
    ("sockets", "done", "connections"),
    [
        ([client(1), to(OTHER, 2)], True, 0),
        ([], True, 0),
        ([client(1)], False, 1),
        ([client(1), to(OLD, 2)], False, 1),
        ([client(1), client(3), to(OTHER, 2)], False, 1),
        ([client(1), to(PEER, 2)], False, 0),
        ([client(1), to(("10.0.0.9", 53), 2)], False, 1),
        ([to(OTHER, 2)], False, 0),
    ],
)
def test_done_is_every_client_joined_to_another_service(sockets: list[Socket], done: bool, connections: int) -> None:
    seen = remaining(look(sockets), [OLD], [PEER])
    assert seen is not None
    assert (seen.done, seen.connections) == (done, connections)


def test_one_worker_that_is_not_done_is_enough() -> None:
    seen = remaining(look([client(1), to(OTHER, 2)], [client(3)]), [OLD], [])
    assert seen is not None
    assert not seen.done


def test_an_upstream_that_changes_during_the_look_does_not_count_twice() -> None:
    both = [client(1), client(2), to(OTHER, 3), to(OTHER, 4)]
    seen = remaining(look(both, later=[client(1), client(2), to(OTHER, 4)]), [OLD], [])
    assert seen is not None
    assert not seen.done


@pytest.mark.parametrize(
    ("sockets", "unpaired", "left"),
    [
        ([client(1), to(OTHER, 2)], False, False),
        ([client(1), to(OTHER, 2)], True, True),
        ([client(1)], False, True),
        ([client(1), client(3), to(OTHER, 2)], False, True),
        ([client(1), to(PEER, 2)], False, True),
        ([client(1), to(("10.0.0.9", 53), 2)], False, True),
        ([to(OTHER, 2)], True, False),
        ([], True, False),
    ],
)
def test_unfinished_is_a_worker_whose_client_may_bring_a_request(
    sockets: list[Socket], unpaired: bool, left: bool
) -> None:
    assert unfinished(look([], sockets), [OLD], [PEER], unpaired) == ([1] if left else [])


def test_nothing_is_proven_by_what_cannot_be_read() -> None:
    assert remaining(Sockets(held=None), [OLD], []) is None
    assert remaining(Sockets(), [OLD], []) is None


def test_a_client_of_a_port_that_is_no_longer_listened_on_is_a_client() -> None:
    gone = Socket(("10.0.0.2", 81), ("10.0.0.1", 40000), "01", 1)
    seen = remaining(look([gone, to(OTHER, 2)]), [OLD], [])
    assert seen is not None
    assert seen.done


def test_reading_the_tables_and_the_links() -> None:
    row = "   0: 0200000A:{} 0500000A:{} {} 0:0 00:0 0 33 0 {} 1"
    lines = [
        "table first",
        "  sl  local_address rem_address   st tx_queue",
        row.format("0050", "9C41", "01", 11),
        row.format("C350", "1F40", "01", 12),
        "   0: 00000000:0050 00000000:0000 0A 0:0 00:0 0 0 0 9 1",
        "range 32768\t60999",
        "worker 7 4711",
        "lr-x------ 1 www www 64 Nov 23 15:00 3 -> socket:[11]",
        "lr-x------ 1 www www 64 Nov 23 15:00 4 -> socket:[12]",
        "lr-x------ 1 www www 64 Nov 23 15:00 5 -> anon_inode:[eventpoll]",
        "table second",
        "   1: 0000000000000000FFFF00000200000A:0050 0000000000000000FFFF00000100000A:9C41 01 0:0 00:0 0 33 0 11 1",
    ]
    seen = read_sockets(lines)
    assert seen.held == {7: {11, 12}}
    assert seen.started == {7: 4711}
    assert seen.listening == {80}
    assert seen.first[12].remote == ("10.0.0.5", 8000)
    assert seen.second[11].remote == ("10.0.0.1", 40001)
    assert read_sockets([*lines, "denied"]).held is None


def test_titles_tell_generations_apart() -> None:
    titles = ["nginx: master process nginx", "nginx: worker process", "nginx: worker process is shutting down",
              "nginx: cache manager process"]  # fmt: skip
    seen = workers(Process(pid, title) for pid, title in enumerate(titles))
    assert seen == Workers(frozenset({1}), frozenset({2}))


def test_a_token_survives_as_text() -> None:
    token = Token("id", (1, 2), "http2")
    assert Token.of(token.text()) == token
    assert Token.of("nonsense") is None


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("http { server { listen 80; } }", True),
        ("http { keepalive_min_timeout 0; }", True),
        ("http { keepalive_min_timeout 5s; }", False),
        ("http { server { listen 443 ssl http2; } }", False),
        ("http { server { http2 on; } }", False),
        ("http { server { http2 off; location / { auth_request off; } } }", True),
        ("http { server { location / { mirror /m; } } }", False),
        ("http { server { listen unix:/run/x; } }", False),
        ("http { server { location / { proxy_ignore_client_abort on; } } }", False),
        ("http { server { location / { fastcgi_ignore_client_abort off; } } }", True),
        ("http { server { location / { access_by_lua_file x.lua; } } }", False),
        ("http { server { location / { auth_request /a; } } }", False),
        ("http { server { location / { slice 1m; } } }", False),
        ("http { server { location / { add_before_body /b; } } }", False),
        ("http { server { location / { add_after_body /b; } } }", False),
        ("http { server { location / { health_check; } } }", False),
        ("http { server { location / { js_content main.hello; } } }", False),
        ("http { server { location / { perl main::hello; } } }", False),
        ("http { server { location / { ssi on; } } }", False),
        ("http { server { location / { ssi off; } } }", True),
        ("http { server { location / { proxy_cache_background_update on; } } }", False),
        ("http { server { http3 on; } }", False),
        ("http { server { listen 443 quic; } }", False),
        ("http { server { ssl_stapling on; } }", False),
        ("http { server { ssl_ocsp on; } }", False),
        ("http { server { ssl_ocsp leaf; } }", False),
        ("http { server { location / { fastcgi_cache_background_update on; } } }", False),
    ],
)
def test_when_sockets_prove_something(text: str, pairs: bool) -> None:
    assert (pids_only(LoadedConfig("/n", {"/n": text})) == "") is pairs


class Reloaded:
    """nginx's processes as they are at each look, the last for good; `ours` begins the pids of our generation, one of
    which is enough for an answer with its digest. Its log is empty."""

    def __init__(self, ours: str, *looks: str) -> None:
        self.ours, self.looks, self.at = f"+{ours}", list(looks), 0
        self.clock = HandClock()

    def processes(self) -> list[Process]:
        text = self.looks[min(self.at, len(self.looks) - 1)]
        self.at += 1
        kind = {"+": "nginx: worker process", "-": "nginx: worker process is shutting down"}
        return [Process(1, "nginx: master process"), *(Process(int(one[1:]), kind[one[0]]) for one in text.split())]

    def reload(self, seen: Sequence[Process]) -> None:
        assert seen

    def output(self, since: float) -> list[str]:
        return []

    def describe(self) -> str:
        return "nginx"

    def exec(self, argv: Sequence[str], *, user: str = "") -> ExecResult:
        return ExecResult(1, "")  # no shell: sockets cannot be read

    def digest(self) -> str:
        return "new" if self.ours in self.looks[min(self.at, len(self.looks)) - 1] else "former"

    def load(self, size: int = 1000) -> Workers:
        reload = Reload(self, self, self.clock, self.digest)  # type: ignore[arg-type]  # all that it asks of them
        return reload.load(reload.workers(), "new", size, lambda: "former")


def test_a_reload_is_live_once_no_earlier_worker_serves() -> None:
    now = Reloaded("2", "+10 +11 -7", "+10 +11 +20 +21", "-10 +11 +20 +21", "-10 -11 +20 +21").load()
    assert (set(now.serving), set(now.ending)) == ({20, 21}, {10, 11})


@pytest.mark.parametrize(("size", "seconds"), [(1000, 4.5), (10_000_000, 14.0)])
def test_a_slow_machine_is_waited_for_and_longer_for_more_to_read(size: int, seconds: float) -> None:
    slow = Reloaded("2", *["+10"] * int(seconds / 0.03), "-10 +20")
    assert slow.load(size).serving == {20}
    assert slow.clock.time == pytest.approx(seconds, rel=0.1)


def test_a_reload_by_somebody_else_just_before_is_waited_for_as_well() -> None:
    """Its workers were not there when we looked, and have the configuration from before; they serve beside ours."""
    ours = Reloaded(
        "3", "+10 +11", "-10 -11 +20 +21", "-10 -11 +20 +21 +30 +31", "-10 -11 -20 +21 +30 +31", "-20 -21 +30 +31"
    )
    now = ours.load()
    assert (set(now.serving), set(now.ending)) == ({30, 31}, {20, 21}), "they are waited for, and drained"


def test_a_reload_by_somebody_else_with_fewer_workers_is_waited_for_as_well() -> None:
    """Both new generations together are no more than there were before: who came later tells them apart."""
    ours = Reloaded("3", "+10 +11 +12 +13", "-10 +20 +21", "-10 +20 +21 +30 +31", "-20 +21 +30 +31", "-20 -21 +30 +31")
    now = ours.load()
    assert (set(now.serving), set(now.ending)) == ({30, 31}, {20, 21})
    assert ours.clock.time < 0.5, "as soon as the others end"


def test_more_workers_than_before_are_one_generation_once_they_stay() -> None:
    edited = Reloaded("2", "+10", "-10 +20 +21 +22")
    now = edited.load()
    assert now.serving == {20, 21, 22} and 0.5 <= edited.clock.time < 1.0


@pytest.mark.parametrize("upstreams", [[], [Upstream("web-a", "10.0.0.2", 80)]])
def test_a_list_without_workers_is_no_end_of_the_old_ones(upstreams: list[Upstream]) -> None:
    drain = Drain(Reloaded("3", ""), HandClock(), lambda: LoadedConfig("/n.conf", {}, (1, 26, 3)))  # type: ignore[arg-type]
    assert not drain.in_flight(Token("edge", (10, 11)), None, upstreams).drained


def test_at_the_drain_limit_a_list_without_workers_is_no_leave_to_stop() -> None:
    """Whether a request would be cut is not known, nor how many: the receipt must not say none."""
    drain = Drain(Reloaded("3", ""), HandClock(), lambda: LoadedConfig("/n.conf", {}, (1, 26, 3)))  # type: ignore[arg-type]
    with pytest.raises(ProxyUnreachable, match="no worker of nginx is seen"):
        drain.cut(Token("edge", (10, 11)), None, [])


def test_workers_that_are_to_end_have_not_ended_in_a_list_without_any() -> None:
    ending = Reloaded("3", "+30 -10", "+30 -10", "", "", "+30 -10", "+30")
    drain = Drain(ending, ending.clock, lambda: LoadedConfig("/n.conf", {}, (1, 26, 3)))  # type: ignore[arg-type]
    assert drain.cut(Token("edge", (10,)), None, []) == 1
    assert ending.at == 6, "looked at until it was seen without the old one"


def test_a_taken_port_is_a_refusal_only_once_nginx_gave_up() -> None:
    trying = "2026/11/23 15:00:00 [emerg] 1#1: bind() to 0.0.0.0:81 failed (98: Address already in use)"
    gave_up = "2026/11/23 15:00:02 [emerg] 1#1: still could not bind()"
    assert refusal([trying, trying]) == []
    assert refusal([trying, trying, gave_up]) == [
        "[emerg] bind() to 0.0.0.0:81 failed (98: Address already in use)",
        "[emerg] still could not bind()",
    ]
    assert refusal(['2026/11/23 15:00:00 [emerg] 1#1: unknown directive "x"']) == ['[emerg] unknown directive "x"']
    assert refusal(["2026/11/23 15:00:00 [error] 1#1: connect() failed"]) == []


def test_counting_blames_each_upstream_for_its_own() -> None:
    def line(status: int, addresses: str, agent: str = "x") -> str:
        head = f'1.2.3.4 - - [23/Nov/2026:15:00:00 +0000] "GET / HTTP/1.1" {status} 5 "-" "{agent}"'
        return f'{head} rollout="{addresses}" "200" 0.010'

    lines = [
        line(200, "10.0.0.5:80"),
        line(502, "10.0.0.5:80"),
        line(200, "10.0.0.5:80, 10.0.0.6:80"),
        line(404, "[fd00::1]:80"),
        line(200, "-"),
        line(200, "10.0.0.5:80", agent="rollout=\\x226.6.6.6:1\\x22 \\x22200\\x22 0.1"),
        "[emerg] something else",
    ]
    seen = {address: (c.requests, c.failed) for address, c in counted(lines).by_address.items()}
    assert seen == {"10.0.0.5:80": (4, 2), "10.0.0.6:80": (1, 0), "[fd00::1]:80": (1, 0)}


@pytest.mark.parametrize(("serving", "ending", "many"), [(2, 16, 0), (2, 17, 1), (1, 20, 12), (0, 9, 1)])
def test_old_workers_pile_up_only_so_far(serving: int, ending: int, many: int) -> None:
    assert GENERATIONS == 8
    assert Workers(frozenset(range(serving)), frozenset(range(100, 100 + ending))).surplus == many


def test_those_that_shut_down_for_longest_are_the_surplus() -> None:
    seen = look([client(1), to(OTHER, 2)], [client(3), client(5), to(OTHER, 4)], [client(7)])
    seen.started = {0: 900, 1: 100, 2: 500}  # pids are given out again: only the time tells
    assert surplus(seen, 2, []) == [1, 2]
    assert surplus(seen, 2, [1]) == [2], "one ends anyway"
    assert surplus(seen, 1, [0]) == []
    assert clients_of(seen, [1, 2]) == 3
