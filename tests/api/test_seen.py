"""What is shown: requests by revision as they are counted, plots, metrics, a rollout's steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout import events
from rollout.errors import ProxyRejected, Unreachable
from rollout.model import Counted, Counters, Pool, RevisionKey, Switched
from rollout.server.http.plots import percent, plots
from rollout.server.metrics import in_sync, ready_count
from rollout.server.progress import Progress
from rollout.server.tally import Tally, counting
from rollout.server.traffic import Point, Traffic
from tests.api.bench import FixedView, replica, service, serving
from tests.simulation.fakes import FakeClock, MemoryJournal, ports
from tests.simulation.world import World


class ScriptedProxy:
    """Counts what it is told to have counted since the last mark."""

    def __init__(self) -> None:
        self.since: dict[str, Counters] = {}
        self.seconds: dict[str, float] = {}
        self.missing = ""

    def mark(self, scope: str) -> str:
        self.since, self.seconds = {}, {}
        return "marked"

    def count_and_mark(self, scope: str, marker: str) -> tuple[Counted, str]:
        return Counted(self.since, self.missing, self.seconds), self.mark(scope)


class BusyProxy(ScriptedProxy):
    """One request comes with each question that it is asked."""

    served = 0

    def mark(self, scope: str) -> str:
        self.served += 1
        return str(self.served)

    def count(self, scope: str, marker: str) -> Counted:
        self.served += 1
        return Counted({"10.0.0.1:8000": Counters(self.served - int(marker), 0)})

    def count_and_mark(self, scope: str, marker: str) -> tuple[Counted, str]:
        return self.count(scope, marker), str(self.served)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(World())


class Watched:
    """Traffic over a scripted proxy."""

    def __init__(self, clock: FakeClock) -> None:
        self.proxy, self.clock = ScriptedProxy(), clock
        self.view = FixedView(None, None)  # type: ignore[arg-type]  # no journal is looked into
        self.view._wired.ports.proxy = self.proxy
        self.traffic = Traffic(self.view, clock)

    def look(self, seconds: float, **counted: tuple[int, int, float]) -> None:
        """So long after the last look, with requests, failures and seconds by last number of an address."""
        self.proxy.since = {f"10.0.0.{k[1:]}:8000": Counters(r, f) for k, (r, f, _) in counted.items()}
        self.proxy.seconds = {f"10.0.0.{k[1:]}:8000": s for k, (_, _, s) in counted.items()}
        self.clock.sleep(seconds)
        self.traffic.look()


def test_requests_are_counted_by_revision_between_two_looks(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.look(10.0, _1=(60, 3, 1.2), _2=(40, 2, 0.8))
    point = watched.traffic.points["web", 2][-1]
    assert [point.rate, point.errors, point.latency] == pytest.approx([10.0, 0.05, 0.02], rel=0.01)
    assert watched.traffic.totals["web", 2] == Counters(100, 5)
    assert watched.traffic.totals["api", 2] == Counters(0, 0)


def test_who_looks_too_soon_sees_what_the_last_look_saw_and_nothing_is_counted_twice(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.look(10.0, _1=(10, 0, 0.0))
    watched.look(0.5, _1=(10, 0, 0.0))
    assert watched.traffic.totals["web", 2].requests == 10
    watched.look(600.0, _1=(999, 0, 0.0))
    assert watched.traffic.totals["web", 2].requests == 10, "nobody looked for so long: counting begins anew"


def test_who_scrapes_every_five_minutes_misses_nothing_and_what_has_gone_is_forgotten(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.look(300.0, _1=(10, 0, 0.0))
    assert watched.traffic.totals["web", 2].requests == 10
    watched.view.shown["services"][0]["replicas"] = [replica("web", 1, 3)]
    for _ in range(4):
        watched.look(300.0, _1=(5, 0, 0.0))
    assert {revision: total.requests for revision, total in watched.traffic.totals.items() if revision[0] == "web"} == {
        ("web", 3): 20
    }


def test_what_comes_while_it_looks_is_counted_once(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.view._wired.ports.proxy = proxy = BusyProxy()
    for _ in range(10):
        watched.look(10.0)
    assert watched.traffic.totals["web", 2].requests == proxy.served - 1, "all but the one before the first mark"


def test_an_address_belongs_to_its_newest_owner_and_what_has_gone_is_still_known(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.view.shown["services"][0]["replicas"] = [replica("web", 1, 3), replica("web", 3, 3)]
    watched.look(10.0, _1=(5, 0, 0.1), _2=(7, 0, 0.1), _3=(9, 0, 0.1))
    assert watched.traffic.totals["web", 3].requests == 14
    assert watched.traffic.totals["web", 2].requests == 7


def test_a_proxy_that_does_not_count_says_why(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.proxy.missing = "no log"
    watched.look(10.0)
    assert watched.traffic.missing == {"": "no log"}


def test_a_revision_that_is_gone_ends_at_zero_once(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.look(10.0, _1=(100, 10, 1.0))
    watched.view.shown["services"][0]["replicas"] = [replica("web", 3, 3), replica("web", 4, 3)]
    watched.look(10.0, _3=(100, 0, 1.0))
    ended = list(watched.traffic.points["web", 2])
    assert [round(point.rate) for point in ended] == [10, 0]
    watched.look(10.0, _3=(50, 0, 1.0))
    assert list(watched.traffic.points["web", 2]) == ended
    of_web = {number: points for (name, number), points in watched.traffic.points.items() if name == "web"}
    assert [plot.said for plot in plots(of_web, 3, clock.wall())] == [
        "requests: revision 2 ended, revision 3 5.0/s",
        "errors: revision 2 ended, revision 3 0 %",
        "latency: revision 2 ended, revision 3 20 ms",
    ]


def test_what_is_not_known_of_a_look_is_told_though_something_was_counted(clock: FakeClock) -> None:
    watched = Watched(clock)
    watched.look(1.0)
    watched.proxy.missing = "what web-1 served is not known"
    watched.look(10.0, _2=(100, 0, 1.0))
    watched.proxy.missing = ""
    watched.look(10.0, _2=(100, 0, 1.0))
    assert [point.whole for point in watched.traffic.points["web", 2]] == [False, True]
    of_web = {2: watched.traffic.points["web", 2]}
    assert plots(of_web, 2, clock.wall())[0].scale == "0 to 10.0/s, 2 min, not all counted"
    assert plots(of_web, 2, of_web[2][0].at + 601.0)[0].scale == "0 to 10.0/s, 10 min", "until it has left the plot"


def series(*points: tuple[float, float, float, float | None]) -> deque[Point]:
    return deque(Point(*point) for point in points)


def test_plots_are_lines_by_revision_and_words() -> None:
    made = plots(
        {1: series((0.0, 5.0, 0.0, 0.02)), 2: series((60.0, 10.0, 0.5, 0.04), (120.0, 2.5, 0.0, None))}, 2, 120.0
    )
    assert [plot.said for plot in made] == [
        "requests: revision 1 ended, revision 2 2.5/s",
        "errors: revision 1 ended, revision 2 0 %",
        "latency: revision 1 ended, revision 2 none",
    ]
    assert made[0].lines[1].path == "M120.0 3.0 L240.0 36.0"
    assert [line.live for line in made[0].lines] == [False, True]
    assert made[0].scale == "0 to 10.0/s, 2 min"


def test_parts_are_told_without_exponents() -> None:
    assert [percent(part) for part in (0.0, 1e-7, 0.00123, 0.05, 0.5, 0.996, 1.0)] == [
        "0 %", "<0.001 %", "0.12 %", "5 %", "50 %", "100 %", "100 %",
    ]  # fmt: skip


def test_latency_that_the_proxy_does_not_tell_is_left_out() -> None:
    assert [plot.label for plot in plots({1: series((0.0, 1.0, 0.0, None))}, 1, 1.0)] == ["requests", "errors"]
    assert [plot.lines for plot in plots({}, None, 1.0)] == [[], []]


def test_the_pool_is_in_sync_when_it_is_the_ready_replicas_of_the_live_revision() -> None:
    one = service("web")
    assert in_sync(one)
    for change in ({"pool": "out"}, {"ready": False}, {"revision": 1}):
        assert not in_sync({**one, "replicas": [{**one["replicas"][0], **change}, one["replicas"][1]]}), change
    assert in_sync({**one, "replicas": [*one["replicas"], replica("web", 9, 1, pool="warm")]})
    assert not in_sync({**one, "stale": ["10.0.0.9:8000"]}), "half of the requests go where nobody is"
    between = {**one, "replicas": [replica("web", 9, 3), replica("web", 8, 2, pool="out")]}
    assert not in_sync(between)
    assert in_sync({**between, "lock": {"what": "deploy"}}), "a rollout sees to it"
    assert in_sync({**between, "unfinished": {"state": "paused"}}), "it waits for a person"


def test_warm_replicas_are_not_ready_to_serve() -> None:
    one = service("web")
    ill = [{**each, "ready": False} for each in one["replicas"]]
    assert ready_count(one) == 2
    assert ready_count({**one, "replicas": [*ill, replica("web", 9, 1, pool="warm")]}) == 0


def test_the_metrics_of_what_the_journal_knows(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        lines = set(api.unix("GET", "/metrics").body.decode().splitlines())
    about = 'project="shop",service="web"'
    assert {
        f'rollout_rollouts_total{{outcome="deployed",{about}}} 1.0',
        f'rollout_phase_duration_seconds_sum{{phase="start",{about}}} 1.5',
        f"rollout_drain_seconds_sum{{{about}}} 0.5",
        f"rollout_connections_cut_total{{{about}}} 3.0",
        f"rollout_revision{{{about}}} 2.0",
        'rollout_revision_weight{project="shop",revision="2",service="web"} 1.0',
        f"rollout_replicas_ready{{{about}}} 2.0",
        f"rollout_sync_lag_seconds{{{about}}} 0.0",
        'rollout_proxy_reloads_total{project="shop"} 3.0',
        'rollout_old_workers{project="shop"} 1.0',
        f'rollout_rollouts_total{{outcome="undone",{about}}} 0.0',
        'rollout_connections_cut_total{project="shop",service="api"} 0.0',
    } <= lines, "and what has never happened is 0, or its first time would be no increase"


def tallied(proxy: Any, tally: Tally) -> Any:
    """The proxy of a project whose rollouts are counted."""
    world = World()
    made = replace(ports(world, MemoryJournal(FakeClock(world)), lambda config: RevisionKey("", "")), proxy=proxy)
    wired: Any = SimpleNamespace(ports=made)  # as much of a project as this needs
    counting(wired, tally)
    return wired.ports.proxy


def test_reloads_and_refusals_are_tallied() -> None:
    pool = Pool("web")
    outcomes: Iterator[bool | ProxyRejected] = iter([True, False, ProxyRejected("no")])

    class Proxy:
        def switch(self, pool: Pool) -> Switched:
            outcome = next(outcomes)
            if isinstance(outcome, ProxyRejected):
                raise outcome
            return Switched(pool, pool, reloaded=outcome)

        def switch_all(self, pools: list[Pool]) -> list[Any]:
            return [Switched(pool, pool, reloaded=True), Switched(pool, pool, reloaded=True), ProxyRejected("no")]

    tally = Tally()
    proxy = tallied(Proxy(), tally)
    proxy.switch(pool)
    proxy.switch(pool)
    with pytest.raises(ProxyRejected):
        proxy.switch(pool)
    proxy.switch_all([pool, pool])
    assert (tally.reloads, tally.refusals) == (2, 2)


def test_a_rollout_that_is_refused_is_one_refusal() -> None:
    """A deploy meets it before its switch, in `prepare`; its undo may meet it once more."""
    refused, pool = [True], Pool("web")

    class Proxy:
        def prepare(self, pool: Pool) -> None:
            if refused[0]:
                raise ProxyRejected("no")

        def switch(self, pool: Pool) -> Switched:
            self.prepare(pool)
            return Switched(pool, pool)

    tally = Tally()
    proxy = tallied(Proxy(), tally)
    for asked in (proxy.prepare, proxy.switch):
        with pytest.raises(ProxyRejected):
            asked(pool)
        assert tally.refusals == 1
    with pytest.raises(ProxyRejected):
        proxy.prepare(Pool("api"))
    assert tally.refusals == 2, "another service's is another one"
    refused[0] = False
    proxy.switch(pool)
    refused[0] = True
    with pytest.raises(ProxyRejected):
        proxy.prepare(pool)
    assert tally.refusals == 3


def test_a_project_that_cannot_be_read_is_told_to_the_page_s_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this header it knows the sidecar's own 503."""

    def broken() -> dict[str, Any]:
        raise Unreachable("the Docker engine does not answer")

    with serving(tmp_path) as api:
        monkeypatch.setattr(api.site.view, "status", broken)
        answer = api.unix("GET", "/fragment")
        whole = api.unix("GET", "/").body.decode()
    assert answer.status == 503
    assert answer.headers["rollout-csrf"] and b"the Docker engine does not answer" in answer.body
    assert '<div id="connection" role="status"' in whole, "it is there before it says something"


def test_a_rollout_is_followed_step_by_step_with_its_replicas_by_name(clock: FakeClock) -> None:
    progress, names = Progress(clock), {"0123456789ab": "web-1"}
    assert progress.of("web", names) is None
    steps = ("start 1 new replica", "stop 0123456789ab")
    progress(events.RolloutStarted("web", 7, "deploy", "rolling", 2, 1, 1, steps))
    progress(events.StepStarted("web", 0, "start", steps[0]))
    clock.sleep(3.0)
    shown = progress.of("web", names)
    assert shown is not None
    assert [(row["text"], row["state"]) for row in shown["rows"]] == [
        ("start 1 new replica", "running"), ("stop web-1", "waiting"),
    ]  # fmt: skip
    assert shown["rows"][0]["seconds"] >= 3.0
    for end in (events.Finished("web", "deployed", {}), events.Unfinished("web", 7, "no engine", "run it again")):
        progress(events.RolloutStarted("web", 7, "deploy", "rolling", 2, 1, 1, steps))
        progress(end)
        assert progress.of("web", names) is None, end


def test_every_event_comes_back_from_its_json_as_it_was() -> None:
    for event in (
        events.RolloutStarted("web", 7, "deploy", "rolling", 2, None, 1, ("a", "b")),
        events.StepFailed("web", 1, "check", "why", ("line",)),
        events.Finished("web", "deployed", {"rollout": 7}),
    ):
        assert events.from_json({**event.as_json(), "number": 3, "at": 1.0}) == event
    assert events.from_json({"event": "from_the_future", "service": "web"}) is None
