"""A reload that is seen through, whatever nginx's log says and however long nginx takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rollout.errors import NotUndone, ProxyRejected, ProxyUnreachable
from rollout.ports import Process
from rollout.proxies.nginx_reload import Reload, refusal
from rollout.proxies.nginx_workers import Workers
from tests.clocks import HandClock

ASKED = '203.0.113.9 - - [20/Nov/2026:12:00:00 +0000] "GET /?q=[emerg] HTTP/1.1" 200 5 "-" "curl" rollout="-" "-" 0.000'
QUOTED = '2026/11/20 12:00:00 [error] 7#7: *1 open() failed, request: "GET /?2026/11/20 12:00:00 [emerg] 1#1: HTTP/1.1"'
SAID = '2026/11/20 12:00:00 [emerg] 1#1: unknown directive "x"'
PLAIN = 'nginx: [emerg] host not found in upstream "db"'


class Slow:
    """nginx that needs `takes` seconds to load what is on disk when it is told to, one after the other as its master
    does it, and refuses what it `refuses`; one worker for each that it has loaded. `log`: what it prints, at a time."""

    def __init__(self, takes: float, *log: tuple[float, str], refuses: Sequence[str] = ()) -> None:
        self.clock, self.takes, self.log, self.refuses = HandClock(1000.0), takes, list(log), refuses
        self.disk = "former"
        self.done = self.clock.time  # when the last load ends
        self.loads: list[tuple[float, str]] = []
        self.reloads = 0

    def reload(self, seen: Sequence[Process]) -> None:
        assert seen
        self.reloads += 1
        self.done = max(self.done, self.clock.time) + self.takes
        if self.disk in self.refuses:
            self.log.append((self.done, SAID))
        else:
            self.loads.append((self.done, self.disk))

    def digest(self) -> str:
        return next((disk for at, disk in reversed(self.loads) if at <= self.clock.time), "former")

    def processes(self) -> list[Process]:
        count = 1 + sum(at <= self.clock.time for at, _ in self.loads)
        return [Process(1, "nginx: master process"), Process(100 + count, "nginx: worker process")]

    def output(self, since: float) -> list[str]:
        return [line for at, line in self.log if since <= at <= self.clock.time]

    def describe(self) -> str:
        return "nginx"

    def load(self, tested: float = 0.0) -> Workers:
        reload = Reload(self, self, self.clock, self.digest)  # type: ignore[arg-type]  # all that it asks of them
        before = reload.workers()
        self.disk = "new"
        return reload.load(before, "new", 1000, self.undo, tested=tested)

    def undo(self) -> str:
        self.disk = "former"
        return "former"


@pytest.mark.parametrize("line", [ASKED, QUOTED])
def test_what_a_client_asks_for_is_no_refusal(line: str) -> None:
    assert refusal([line]) == []
    nginx = Slow(1.0, (1000.1, line))
    assert nginx.load().serving == {102}
    assert nginx.digest() == "new"


@pytest.mark.parametrize("line", [SAID, PLAIN, PLAIN.replace("nginx", "angie")])
def test_nginx_s_own_words_at_its_start_and_in_its_log(line: str) -> None:
    assert refusal(["starting", line]) == [line[line.index("[") :].replace("1#1: ", "")]


@pytest.mark.parametrize("takes", [1.0, 4.9])
def test_words_that_are_not_nginx_s_leave_no_new_pool_behind(takes: float) -> None:
    """Another program of the container says what nginx would, while nginx is still loading."""
    nginx = Slow(takes, (1000.2, SAID))
    with pytest.raises(ProxyRejected):
        nginx.load()
    assert nginx.digest() == "former"
    nginx.clock.time += 60.0
    assert nginx.digest() == "former", "nor does it come afterwards"


def test_a_refusal_from_before_is_none_of_this_reload() -> None:
    nginx = Slow(1.0, (999.999, SAID))
    nginx.load()
    assert (nginx.digest(), nginx.reloads) == ("new", 1)


def test_a_refusal_is_told_in_nginx_s_words_with_the_former_one_loaded_again() -> None:
    nginx = Slow(0.3, refuses=["new"])
    with pytest.raises(ProxyRejected) as refused:
        nginx.load()
    assert refused.value.details == ('[emerg] unknown directive "x"',)
    assert (nginx.digest(), nginx.disk) == ("former", "former")


def test_where_nginx_takes_neither_the_former_one_was_never_left() -> None:
    """What it refuses is in the user's own files: it goes on as it is, and would not start again."""
    nginx = Slow(0.3, refuses=["new", "former"])
    with pytest.raises(ProxyRejected, match="the former one is in force") as refused:
        nginx.load()
    assert "restarted" in refused.value.hint
    assert nginx.clock.time - 1000.0 > 10.0, "it had the time to load either"


def test_where_it_takes_neither_and_something_else_is_live_it_is_not_undone() -> None:
    nginx = Slow(0.3, (1000.2, SAID), refuses=["former"])
    with pytest.raises(NotUndone):
        nginx.load()
    assert nginx.digest() == "new"


@pytest.mark.parametrize(("takes", "tested"), [(8.0, 2.0), (30.0, 10.0)])
def test_what_takes_long_to_test_may_take_longer_to_load(takes: float, tested: float) -> None:
    nginx = Slow(takes)
    assert nginx.load(tested).serving == {102}
    assert nginx.clock.time - 1000.0 == pytest.approx(takes, abs=0.1)


class Starting:
    """nginx whose processes are those of the last of `titles` that has its time."""

    def __init__(self, *titles: tuple[float, list[str]]) -> None:
        self.clock, self.titles = HandClock(), titles

    def processes(self) -> list[Process]:
        now = [titles for at, titles in self.titles if at <= self.clock.time][-1]
        return [Process(number, title) for number, title in enumerate(now)]

    def describe(self) -> str:
        return "container edge"

    def workers(self) -> Workers:
        return Reload(self, self, self.clock, str).workers()  # type: ignore[arg-type]  # all that it asks of them


SINGLE = ["nginx -g daemon off;"]
MASTER = ["nginx: master process nginx -g daemon off;"]


def test_an_nginx_that_has_only_just_started_is_waited_for() -> None:
    nginx = Starting((0.0, SINGLE), (0.3, MASTER), (0.31, [*MASTER, "nginx: worker process"]))
    assert nginx.workers().serving == {1}
    assert nginx.clock.time < 1.0


@pytest.mark.parametrize("titles", [SINGLE, MASTER, [*MASTER, "nginx: worker process is shutting down"], []])
def test_an_nginx_without_a_worker_to_be_seen_is_not_switched(titles: list[str]) -> None:
    with pytest.raises(ProxyUnreachable, match="no worker process of nginx is seen in container edge") as refused:
        Starting((0.0, titles)).workers()
    assert "master_process off" in refused.value.hint


def test_angie_names_its_workers_too() -> None:
    angie = ["angie: master process v1.8.0 #2 [angie]", "angie: worker process is shutting down #1",
             "angie: worker process #2", "angie: cache manager process #2"]  # fmt: skip
    now = Starting((0.0, angie)).workers()
    assert (set(now.serving), set(now.ending)) == ({2}, {1})
