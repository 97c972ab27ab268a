"""Long histories, found by Hypothesis: deploys, rollbacks, crashes, faults, and people who do not know of rollout.

The world checks G1 and G2 at every port call. Whatever has happened: a calm deploy after it goes through and leaves
exactly the declared replicas of one version, all routed, and nothing else (G4).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from rollout.model import FailureAction, Order, Promotion, Strategy, UpdateConfig
from tests.seeded import whatever_was_imported
from tests.simulation.history import SERVICES, VERSIONS, Happening, History

EXAMPLES, STEPS = 80, 50  # of each of the four; an example may end before its last step
AT_LEAST = 2500  # steps of each

DURING = (
    "crash", "crash", "crash", "interrupt", "error", "error", "answer lost", "disk full", "disk free",
    "the config is refused", "the config is taken", "a stranger", "the other service", "abort", "pause",
)  # fmt: skip
BY_OTHERS = (
    "compose up", "scale", "clock jump", "stop", "start", "die and return", "return elsewhere",
    "die, and a stranger comes", "pause", "sicken", "vanish",
)  # fmt: skip

services = st.sampled_from(SERVICES)
keys = st.sampled_from(VERSIONS)
picks = st.integers(0, 9)
happenings = st.lists(
    st.builds(Happening, at=st.integers(1, 160), what=st.sampled_from((*DURING, *BY_OTHERS)), pick=picks), max_size=3
)
troubles = st.lists(st.sampled_from(("interrupt", "error", "answer lost")), min_size=1, max_size=3)
updates = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 2),
    delay=st.sampled_from((0.0, 1.0)),
    order=st.sampled_from(Order),
    failure_action=st.sampled_from(FailureAction),
    monitor=st.sampled_from((0.0, 2.0)),
    max_failure_ratio=st.sampled_from((0.0, 0.5)),
)
changes = st.fixed_dictionaries(
    {
        "replicas": st.integers(1, 3),
        "strategy": st.sampled_from(Strategy),
        "promotion": st.sampled_from(Promotion),
        "update": updates,
        "keep_warm": st.sampled_from((0.0, 60.0)),
        "drain_timeout": st.just(5.0),
        "remove_first": st.booleans(),
    }
)
faults = st.sampled_from(("never healthy", "exits at once", "exits in a while", "cannot be started", "slow", "good"))


class Histories(RuleBasedStateMachine):
    history: History

    @initialize(everything=st.booleans(), healthchecks=st.booleans(), number=st.integers(0, 999))
    def begin(self, everything: bool, healthchecks: bool, number: int) -> None:
        self.history = History(reload_loads_all=everything, healthchecks=healthchecks, seed=number)

    def teardown(self) -> None:
        if hasattr(self, "history"):
            for service in SERVICES:
                self.history.calm_deploy(service, VERSIONS[1])

    @rule(service=services, key=keys, changes=changes)
    def edit_the_compose_file(self, service: str, key: Any, changes: dict[str, object]) -> None:
        self._count()
        self.history.change(service, key, changes)

    @rule(service=services, meanwhile=happenings, force=st.booleans())
    def deploy(self, service: str, meanwhile: list[Happening], force: bool) -> None:
        self._count()
        self.history.run(service, self.history.files[service].key, "deploy", meanwhile, force=force)

    @rule(service=services, key=keys, meanwhile=happenings)
    def edit_and_deploy(self, service: str, key: Any, meanwhile: list[Happening]) -> None:
        self._count()
        self.history.files[service].key = key
        self.history.run(service, key, "deploy", meanwhile, force=False)

    @rule(service=services, key=keys, meanwhile=happenings)
    def roll_back(self, service: str, key: Any, meanwhile: list[Happening]) -> None:
        self._count()
        known = [r.key for r in self.history.journal.revisions(service) if r.config]
        if key in known:
            self.history.run(service, key, "rollback", meanwhile, force=False)

    @rule(service=services, key=keys, at=st.integers(1, 120), again=st.integers(1, 40), troubles=troubles)
    def a_run_that_can_be_judged(self, service: str, key: Any, at: int, again: int, troubles: list[str]) -> None:
        """It finds everything in order and nobody meddles: its exit code is about what it met itself."""
        self._count()
        self.history.calm_deploy(service, key)
        self.history.files[service].key = VERSIONS[VERSIONS.index(key) - 1]
        meanwhile = [Happening(at + again * number, what, 0) for number, what in enumerate(troubles)]
        self.history.run(service, self.history.files[service].key, "deploy", meanwhile, force=False)

    @rule(service=services, at=st.integers(1, 160), again=st.integers(1, 120))
    def crash_and_crash_in_recovery(self, service: str, at: int, again: int) -> None:
        self._count()
        for call in (at, again):
            crash = [Happening(call, "crash", 0)]
            self.history.run(service, self.history.files[service].key, "deploy", crash, force=False)

    @rule(key=keys, what=faults)
    def the_next_build_is(self, key: Any, what: str) -> None:
        self._count()
        image = self.history.world.images[key.image_id]
        image.healthy = what != "never healthy"
        image.exits_after = {"exits at once": 0.0, "exits in a while": 1.5}.get(what)
        image.startable = what != "cannot be started"
        image.boot = 2.0 if what == "slow" else 0.05

    @rule(service=services, what=st.sampled_from(BY_OTHERS), pick=picks)
    def somebody_else(self, service: str, what: str, pick: int) -> None:
        self._count()
        self.history.other(what, service, pick)

    @rule(passes=st.integers(1, 6), meanwhile=happenings, events=st.booleans())
    def a_sidecar_runs(self, passes: int, meanwhile: list[Happening], events: bool) -> None:
        self._count()
        self.history.follow(passes, meanwhile, sees_events=events)

    @rule()
    def a_calm_sidecar(self) -> None:
        self._count()
        self.history.calm_follow()

    @rule(forever=st.booleans())
    def old_workers_end(self, forever: bool) -> None:
        self._count()
        self.history.world.drains_forever = not forever

    @rule(refused=st.booleans())
    def the_config_is(self, refused: bool) -> None:
        self._count()
        self.history.world.reject_pools = refused

    @rule(seconds=st.sampled_from((0.01, 1.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        self._count()
        self.history.world.advance(seconds)

    @rule()
    def the_journal_is_lost(self) -> None:
        self._count()
        self.history.lose_journal()

    @rule(service=services, key=keys)
    def calm_deploy(self, service: str, key: Any) -> None:
        self._count()
        self.history.files[service].key = key
        self.history.calm_deploy(service, key)

    def _count(self) -> None:
        self.history.done["steps"] += 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(4))
def test_whatever_happens_the_guarantees_hold(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    History.done.clear()
    limits = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with whatever_was_imported():
        run_state_machine_as_test(seed(number)(type(f"Histories{number}", (Histories,), {})), settings=limits)
    done = History.done
    with capsys.disabled():
        print(f"\n{done['steps']} steps, {done['runs']} runs, {done['port calls']} port calls looked at")
        print({what: count for what, count in sorted(done.items()) if what.startswith("exit codes judged")})
    assert done["steps"] >= AT_LEAST
    assert done["runs that ended: deployed"] > done["runs"] * 0.1
    assert done["runs that ended: crashed"] > done["runs"] * 0.05
    assert done["passes"] > 0
    assert done["exit codes judged: 0"] > done["runs"] * 0.3 and done["exit codes judged: 1"] > 2
    assert all(done[f"exit codes judged: {code}"] > 0 for code in (4, 5, 130))
