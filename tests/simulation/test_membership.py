"""The sidecar killed at every call of its pass, whatever it was following: the next one brings every pool in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollout.controller import Pass
from rollout.events import Notice, Warned
from rollout.model import ReplicaState
from tests.simulation.history import SERVICES, VERSIONS, Happening, History

CASES: dict[str, Callable[[History], None]] = {
    "a replica has died": lambda h: h.other("stop", "web", 0),
    "a replica came back elsewhere": lambda h: h.other("return elsewhere", "api", 1),
    "two services have changed": lambda h: two_changes(h),
    "more were started": lambda h: h.others.scale("web", VERSIONS[0], 4),
    "all were recreated": lambda h: h.others.up("web", VERSIONS[1], 2),
    "a run died in its switch": lambda h: interrupted_at(h, "switch"),
    "a run died before its switch": lambda h: interrupted_at(h, "check"),
}


def history(*, everything: bool, seed: int) -> History:
    return History(reload_loads_all=everything, healthchecks=False, seed=seed)


def two_changes(h: History) -> None:
    h.other("stop", "web", 0)
    h.other("vanish", "api", 1)


def interrupted_at(h: History, step: str) -> None:
    """A deploy is killed as this step begins."""
    seen = len(h.events)

    def watch() -> None:
        if any(getattr(event, "step", "") == step for event in h.events[seen:]):
            h.pending = [Happening(0, "crash", 0)]
        former()

    former, h.world.on_tick = h.world.on_tick, watch
    h.files["web"].key = VERSIONS[1]
    assert h.run("web", VERSIONS[1], "deploy", [], force=False) == "crashed"
    h.world.on_tick = former


@pytest.mark.parametrize("everything", [True, False], ids=["nginx", "haproxy"])
@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_the_next_one_brings_it_in_order(case: str, everything: bool) -> None:
    crashed = 0
    for call in range(1, 400):
        h = history(everything=everything, seed=call)
        CASES[case](h)
        h.world.advance(1.0)
        outcome = h.follow(2, [Happening(call, "crash", 0)], sees_events=True)
        h.calm_follow()
        if outcome == "followed":
            break
        assert outcome == "crashed"
        crashed += 1
    assert 10 < crashed < 399


@pytest.mark.parametrize("what", ["error", "answer lost", "disk full", "the config is refused"])
def test_what_fails_is_done_by_a_later_pass(what: str) -> None:
    for call in range(1, 60):
        h = history(everything=True, seed=call)
        h.other("stop", "web", 0)
        h.follow(2, [Happening(call, what, 0)], sees_events=True)
        h.calm_follow()


def test_a_pass_in_which_nothing_has_changed_changes_nothing() -> None:
    """The first confirms what it finds, whatever it is; those after it have nothing to do."""
    changes = []
    for passes in (1, 5):
        h = history(everything=True, seed=1)
        h.follow(passes, [], sees_events=True)
        changes.append(h.world.changes)
        assert h.events == []
    assert changes[0] == changes[1]


def routed(h: History) -> set[str]:
    """The addresses in the pool of web."""
    return {upstream.host for upstream in h.world.disk["web"].upstreams}


def test_a_death_is_followed_although_the_list_does_not_know_it_yet() -> None:
    """The engine sends `die` before it brings its list up to date; the next event may be long in coming."""
    h = history(everything=True, seed=1)
    victim = h.others.of("web")[0]
    address = victim.ip

    def die() -> None:
        assert address in routed(h)
        h.world.outdate(victim.replica)
        h.other("stop", "web", 0)

    h.follow(2, [], sees_events=True, between=die)
    assert address not in routed(h)


def test_an_end_of_a_pause_is_followed_although_the_list_does_not_know_it_yet() -> None:
    """The engine sends `unpause`, too, before it brings its list up to date."""
    h = history(everything=True, seed=1)
    held = h.others.of("web")[0]
    h.others.pause(held)
    paused = held.replica

    def go_on() -> None:
        if held.replica is paused:
            assert held.ip not in routed(h)
            h.world.outdate(paused)
            held.replica = replace(paused, state=ReplicaState.RUNNING)

    h.follow(2, [], sees_events=True, between=go_on)
    assert held.ip in routed(h)


def test_a_stranger_at_the_address_of_one_that_would_come_is_not_let_in() -> None:
    """Its probe passes as well: the engine's list still says that this is the replica's address."""
    h = history(everything=True, seed=1)
    one = h.others.of("web")[0]
    h.others.stop(one)
    h.follow(2, [], sees_events=True)
    h.others.start(one)
    running, address = one.replica, one.ip
    h.others.lose_address(one)
    h.world.outdate(running)
    assert h.follow(2, [], sees_events=True) == "followed"
    assert address in h.world.foreign and address not in routed(h)


def test_a_restart_just_before_a_resync_is_seen_all_the_same() -> None:
    """Back at its own address, before its hint has come: ready is only who has proved it since."""
    h = history(everything=True, seed=1)
    one = h.others.of("web")[0]
    restarts: list[float] = []

    def restart() -> None:
        if not restarts:
            assert one.ip in routed(h)
            h.others.restart(one, elsewhere=False)
            h.others.sicken(one)
            restarts.append(h.world.now)

    h.follow(3, [], sees_events=True, between=restart, resyncs=[1])
    assert restarts and one.ip not in routed(h)


def test_that_nothing_is_ready_is_said_once_and_the_pool_stays() -> None:
    h = history(everything=True, seed=1)
    for container in h.others.of("web"):
        h.others.stop(container)
    before = dict(h.world.disk)
    h.follow(6, [], sees_events=False)
    assert [e.code for e in h.events if isinstance(e, Warned)] == ["nothing-ready"]
    assert h.world.disk == before


def test_a_refused_pool_is_said_once_for_each_service() -> None:
    h = history(everything=True, seed=1)
    h.other("stop", "web", 0)
    h.follow(4, [Happening(1, "the config is refused", 0)], sees_events=False)
    told = sorted((e.service, e.code) for e in h.events if isinstance(e, Warned))
    assert told == [("api", "pool-refused"), ("web", "pool-refused")]
    h.calm_follow()
    assert [e.service for e in h.events if isinstance(e, Notice)] == ["web"]


def test_who_has_proved_itself_and_is_not_taken_waits_and_does_not_begin_again() -> None:
    h = history(everything=True, seed=1)
    found: list[Pass] = []
    h.others.scale("web", VERSIONS[0], 3)
    h.world.reject_pools = True
    h.follow(3, [], sees_events=False, hear=found.append)
    assert [done.waiting for done in found] == [{"web", "api"}] * 3
    h.world.reject_pools = False
    h.follow(1, [], sees_events=False, hear=found.append)
    assert found[-1].waiting == set()


@pytest.mark.parametrize("everything", [True, False], ids=["nginx", "haproxy"])
def test_another_version_that_compose_has_brought_up_is_followed_for_good(everything: bool) -> None:
    h = history(everything=everything, seed=1)
    h.files["web"].key = VERSIONS[1]
    assert h.run("web", VERSIONS[1], "deploy", [], force=False) == "deployed"
    h.others.up("web", VERSIONS[2], 2)
    h.calm_follow()
    h.others.scale("web", VERSIONS[2], 4)
    h.calm_follow()
    assert len(routed(h)) == 4
    one = h.others.of("web")[0]
    for act in (h.others.stop, h.others.start):
        act(one)
        h.calm_follow()
    assert routed(h) == {c.ip for c in h.others.of("web")}
    assert h.run("web", VERSIONS[2], "deploy", [], force=False) == "deployed", "two of the four are too many"


@pytest.mark.parametrize("step", ["check", "drain"])
def test_a_replica_that_dies_leaves_the_pool_though_a_dead_run_cannot_be_settled(step: str) -> None:
    h = history(everything=True, seed=1)
    h.settles = False
    interrupted_at(h, step)
    before = routed(h)
    victim = next(c for c in h.others.of("web") if c.ip in before)
    address = victim.ip
    h.others.stop(victim)
    found: list[Pass] = []
    h.follow(3, [], sees_events=False, hear=found.append)
    assert routed(h) == before - {address}, "and nobody came in"
    assert [done.unsettled for done in found] == [{"web"}] * 3
    h.settles = True
    h.calm_follow()
    assert h.journal.unfinished("web") is None


@pytest.mark.parametrize("step", ["start", "check", "switch"])
@pytest.mark.parametrize("stuck", [False, True], ids=["at once", "after a failed attempt"])
def test_an_old_replica_that_is_ill_does_not_keep_a_dead_run_from_being_taken_back(step: str, stuck: bool) -> None:
    """It stays in the pool until then: an undo brings back what was there, and does not wait for it to become well."""
    h = History(reload_loads_all=True, healthchecks=True, seed=1)
    interrupted_at(h, step)
    h.others.sicken(next(c for c in h.others.of("web") if c.ip in routed(h)))
    h.world.advance(1.0)
    if stuck:
        h.settles = False
        h.follow(2, [], sees_events=False)
        h.settles = True
    assert h.follow(2, [], sees_events=False) == "followed"
    assert h.journal.unfinished("web") is None
    assert {c.replica.key for c in h.others.of("web")} == {VERSIONS[0]}, "nothing new is left over"


def test_warm_replicas_whose_time_is_over_do_not_keep_the_pool_from_being_followed() -> None:
    h = history(everything=True, seed=1)
    h.files["web"].settings = replace(h.files["web"].settings, keep_warm=60.0)
    h.files["web"].key = VERSIONS[1]
    assert h.run("web", VERSIONS[1], "deploy", [], force=False) == "deployed"
    h.world.advance(61.0)
    h.settles = False
    victim = next(c for c in h.others.of("web") if c.ip in routed(h))
    address, before = victim.ip, routed(h)
    h.others.stop(victim)
    h.follow(2, [], sees_events=True)
    assert routed(h) == before - {address}
    h.others.start(victim)
    h.follow(3, [], sees_events=False)
    assert routed(h) == (before - {address}) | {victim.ip}, "and who comes back comes in"
    h.settles = True
    h.calm_follow()
    assert h.journal.warm("web") is None


def test_a_paused_rollout_is_left_paused() -> None:
    h = history(everything=True, seed=1)
    interrupted_at(h, "switch")
    record = h.journal.unfinished("web")
    assert record is not None
    h.journal.mark_state(record.id, state="paused")
    before = {c.replica.id for c in h.others.of("web")}
    h.calm_follow()
    assert {c.replica.id for c in h.others.of("web")} == before
    assert h.journal.unfinished("web") is not None
    assert SERVICES[0] == "web"
