"""Which old workers a drain waits for, and which of them are ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rollout.model import Pool, Relief, Switched, Upstream
from rollout.ports import ExecResult, Process
from rollout.proxies.nginx_config import LoadedConfig
from rollout.proxies.nginx_drain import Drain
from rollout.proxies.nginx_workers import END, GENERATIONS, LOOK, Token
from tests.clocks import HandClock

OLD = Upstream("web-a", "10.0.0.5", 8000)
SWITCHED = Switched(Pool("web", (OLD,)), Pool("web", (Upstream("web-b", "10.0.0.6", 8000),)))
MANY = GENERATIONS + 2
CLIENT, OTHER = "0200000A:0050 0100000A:9C41", "0200000A:C350 0700000A:2328"  # of port 80; to 10.0.0.7:9000


class Edge:
    """nginx whose old workers hold one client each, paired with a connection to another service. A pid is 1000 more
    outside of its container than in it. `unlucky`: how many looks are denied. `unseen`: how often the list of
    processes is empty once a worker was told to end."""

    def __init__(self, *old: int, unlucky: int = 0, unseen: int = 0) -> None:
        self.old, self.ended, self.clock = list(old), list[int](), HandClock()
        self.unlucky, self.unseen, self.foreign = unlucky, unseen, list[int]()
        self.drain = Drain(self, self.clock, lambda: LoadedConfig("/n.conf", {}))  # type: ignore[arg-type]  # all it needs

    def processes(self) -> list[Process]:
        if self.ended and self.unseen:
            self.unseen -= 1
            return []
        ending = [Process(1000 + pid, "nginx: worker process is shutting down") for pid in self.old]
        return [Process(1001, "nginx: master process"), Process(1002, "nginx: worker process"), *ending]

    def exec(self, argv: Sequence[str], *, user: str = "") -> ExecResult:
        script, pids = argv[2], [int(pid) for pid in argv[4:]]
        if script == END:
            self.ended += pids
            self.old = [pid for pid in self.old if pid not in pids]
        return ExecResult(0, "\n".join(self._seen()) if script == LOOK else "")

    def _seen(self) -> list[str]:
        """Who has the higher pid has started first."""
        self.unlucky -= 1
        row = "  0: {} 01 0:0 00:0 0 33 0 {} 1"
        rows = [row.format(CLIENT, 10 * pid) for pid in self.old] + [
            row.format(OTHER, 10 * pid + 1) for pid in self.old
        ]
        held = [
            line
            for pid in self.old
            for line in (f"worker {pid} 1 {9000 - pid}", f"3 -> socket:[{10 * pid}]", f"4 -> socket:[{10 * pid + 1}]")
        ]
        others = ["master 2"] if self.foreign else []
        others += [line for pid in self.foreign for line in (f"worker {pid} 2 1", "denied")]
        denied = ["denied"] if self.unlucky >= 0 else []
        return [
            "range 32768 60999", "table first", *rows, "master 1", *held, *denied, *others, "table second", *rows, "end"
        ]  # fmt: skip

    def token(self, unpaired: str = "") -> Token:
        return Token("edge", tuple(1000 + pid for pid in self.old), unpaired)

    def drained(self, unpaired: str = "") -> bool:
        """At the second look: the first is not at the sockets."""
        self.drain.in_flight(self.token(unpaired), SWITCHED, [OLD])
        self.clock.time += 1.0
        return self.drain.in_flight(self.token(unpaired), SWITCHED, [OLD]).drained


@pytest.mark.parametrize("unpaired", ["", "http2 on (/n.conf:3)"])
def test_pairs_prove_something_only_where_a_client_has_one_request_at_a_time(unpaired: str) -> None:
    assert Edge(7).drained(unpaired) is (unpaired == "")


@pytest.mark.parametrize("unpaired", ["", "http2 on (/n.conf:3)"])
def test_a_worker_is_cut_where_pairs_prove_nothing(unpaired: str) -> None:
    edge = Edge(7)
    assert edge.drain.cut(edge.token(unpaired), SWITCHED, [OLD]) == (1 if unpaired else 0)
    assert edge.ended == ([7] if unpaired else [])


def test_too_many_old_workers_are_not_drained_though_done_with_it() -> None:
    assert Edge(*range(10, 10 + GENERATIONS)).drained()
    assert not Edge(*range(10, 10 + MANY)).drained()


def test_a_cut_ends_the_oldest_of_too_many_as_well_and_counts_their_clients() -> None:
    edge = Edge(*range(10, 10 + MANY))
    assert edge.drain.cut(edge.token(), SWITCHED, [OLD]) == 2
    assert edge.ended == [19, 18]


def test_one_unlucky_look_ends_nobody_at_the_limit() -> None:
    edge = Edge(7, 8, 9, unlucky=2)
    assert edge.drain.cut(edge.token(), SWITCHED, [OLD]) == 0
    assert edge.ended == []


def test_where_sockets_cannot_be_read_all_that_shut_down_are_ended_and_count_as_one_connection_each() -> None:
    edge = Edge(7, 8, 9, unlucky=1000)
    assert edge.drain.cut(edge.token(), SWITCHED, [OLD]) == 3
    assert edge.ended == [7, 8, 9]


@pytest.mark.parametrize("unlucky", [0, 1000])
def test_where_it_cannot_be_told_whose_they_are_none_is_ended(unlucky: int) -> None:
    """Another container's pid namespace: a second master is seen, and no pid is as we know it."""
    edge = Edge(7, unlucky=unlucky)
    edge.foreign = [20]
    edge.drain.cut(edge.token("http2 on (/n.conf:3)"), SWITCHED, [OLD])
    assert edge.ended == []


def test_workers_that_are_to_end_have_not_ended_in_a_list_without_any() -> None:
    edge = Edge(7, unseen=2)
    edge.drain.cut(edge.token("http2 on (/n.conf:3)"), SWITCHED, [OLD])
    assert (edge.ended, edge.unseen) == ([7], 0), "looked at until it was seen without the old one"


def test_too_many_are_ended_once_they_have_had_their_time() -> None:
    edge = Edge(*range(10, 10 + MANY))
    assert edge.drain.relieve("edge", 30.0) == Relief()
    edge.clock.time += 29.0
    assert edge.drain.relieve("edge", 30.0) == Relief()
    edge.clock.time += 1.0
    assert edge.drain.relieve("edge", 30.0) == Relief(2, 2)
    assert edge.ended == [19, 18]


def test_those_that_have_come_later_have_their_own_time() -> None:
    edge = Edge(20)
    edge.drain.relieve("edge", 30.0)
    edge.clock.time += 29.0
    edge.old += range(10, 9 + MANY)
    edge.drain.relieve("edge", 30.0)
    edge.clock.time += 1.0
    assert edge.drain.relieve("edge", 30.0) == Relief(1, 1)
    assert edge.ended == [20]
