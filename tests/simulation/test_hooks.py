"""The user's hooks: when they run, how often, and what their failure means; also when the controller dies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from rollout.control import Wish
from rollout.errors import Aborted, DeployFailed, NotUndone
from rollout.events import HookOutput, StepStarted, Warned
from rollout.model import Hook, Hooks, ServiceSettings, Strategy, UpdateConfig
from rollout.ports import ExecResult
from tests.simulation.fakes import FakeEngine, FakeHost
from tests.simulation.scenario import V1, V2, Scenario, settings
from tests.simulation.test_crashes import _telling_calls
from tests.simulation.test_deploys import HOOKS
from tests.simulation.world import Crash, Program

IN_BATCHES = settings(replicas=3, hooks=HOOKS)
HOOKED: dict[str, ServiceSettings] = {
    "rolling": IN_BATCHES,
    "blue-green": replace(IN_BATCHES, strategy=Strategy.BLUE_GREEN),
    "recreate": replace(IN_BATCHES, strategy=Strategy.RECREATE),
    "kept warm": replace(IN_BATCHES, keep_warm=60.0),
    "on the host": settings(hooks=Hooks(*(Hook(host_command=("./hook",)) for _ in range(3)))),
}
hooked = pytest.mark.parametrize("way", HOOKED.values(), ids=HOOKED)


def ran(scenario: Scenario) -> Counter[str]:
    return Counter(hook for hook, _ in scenario.world.ran)


def kinds(scenario: Scenario) -> list[str]:
    return [e.step for e in scenario.events if isinstance(e, StepStarted)]


@hooked
def test_each_runs_once_a_deploy_and_pre_stop_once_an_old_replica(way: ServiceSettings) -> None:
    scenario = Scenario(way)
    old = set(scenario.world.containers)
    scenario.deploy(V2)
    stopped = 0 if way.keep_warm else way.replicas
    assert ran(scenario) == Counter({"pre_deploy": 1, "post_switch": 1, "pre_stop": stopped})
    if not way.hooks.pre_stop or way.hooks.pre_stop.command:
        assert {where for hook, where in scenario.world.ran if hook == "pre_stop"} == (old if stopped else set())
    assert kinds(scenario)[0] == "pre_deploy"
    assert any(isinstance(e, HookOutput) and e.hook == "pre_deploy" for e in scenario.events)
    scenario.assert_settled(V2, warm=way.replicas if way.keep_warm else 0)


def test_what_was_kept_warm_gets_its_pre_stop_when_its_time_is_over() -> None:
    scenario = Scenario(HOOKED["kept warm"])
    scenario.deploy(V2)
    scenario.world.advance(100.0)
    scenario.sync()
    assert ran(scenario)["pre_stop"] == 3
    scenario.assert_settled(V2)


def test_nothing_is_prepared_for_more_replicas_or_the_way_back() -> None:
    scenario = Scenario(settings(replicas=4, hooks=HOOKS), running=2)
    scenario.deploy(V1)
    assert "pre_deploy" not in ran(scenario)
    scenario.deploy(V2)
    scenario.world.ran.clear()
    scenario.deploy(V1, what="rollback")
    assert ran(scenario) == Counter({"post_switch": 1, "pre_stop": 4})


@pytest.mark.parametrize("on_host", [False, True])
def test_the_last_words_of_a_failing_hook_move_no_terminal(on_host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = ExecResult(3, "\x1b]0;title\x07\x1b[31mbad\x1b[0m\n\x9b2J last")
    monkeypatch.setattr(FakeEngine, "exec", lambda *_, **__: raw)
    monkeypatch.setattr(FakeHost, "run", lambda *_: raw)
    hook = Hook(host_command=("./hook",)) if on_host else Hook(("smoke",))
    with pytest.raises(DeployFailed, match="exit code 3") as failure:
        Scenario(settings(hooks=Hooks(post_switch=hook))).deploy(V2)
    assert len(failure.value.details) == 2 and all(line.isprintable() for line in failure.value.details)


@hooked
def test_a_failing_pre_deploy_cancels_and_nothing_has_changed(way: ServiceSettings) -> None:
    scenario = Scenario(way)
    before = scenario.fingerprint()
    scenario.world.images[V2.image_id].job_exit = 3
    scenario.world.programs = {"./hook": Program(3)}
    with pytest.raises(DeployFailed, match="pre_deploy hook failed: it ended with exit code 3") as failure:
        scenario.deploy(V2)
    assert failure.value.exit_code == 1 and failure.value.details
    assert scenario.fingerprint() == before and scenario.world.stops == []


@pytest.mark.parametrize("why", ["too slow", "cannot be started"])
def test_a_job_that_does_not_end_or_begin(why: str) -> None:
    scenario = Scenario(settings(hooks=HOOKS))
    before = scenario.fingerprint()
    image = scenario.world.images[V2.image_id]
    image.job_seconds, image.startable = 1e6, why == "too slow"
    began = scenario.world.now
    with pytest.raises(DeployFailed, match="longer than 60 s" if why == "too slow" else "could not be started"):
        scenario.deploy(V2)
    assert scenario.world.now - began < 62
    assert scenario.fingerprint() == before


def test_a_long_job_is_not_held_against_the_progress_deadline() -> None:
    scenario = Scenario(settings(progress_deadline=6.0, hooks=HOOKS))
    scenario.world.images[V2.image_id].job_seconds = 50.0
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_an_abort_ends_the_job() -> None:
    scenario = Scenario(settings(hooks=HOOKS))
    before = scenario.fingerprint()
    scenario.world.images[V2.image_id].job_seconds = 50.0
    scenario.world.on_tick = lambda: _abort_in_job(scenario)
    with pytest.raises(Aborted):
        scenario.deploy(V2)
    assert scenario.fingerprint() == before


def _abort_in_job(scenario: Scenario) -> None:
    if any(job.replica.running for job in scenario.world.jobs.values()):
        scenario.world.on_tick = lambda: None
        scenario.ask(Wish.ABORT)


@hooked
def test_a_failing_post_switch_goes_back(way: ServiceSettings) -> None:
    scenario = Scenario(way)
    old = set(scenario.world.containers)
    scenario.world.images[V2.image_id].hook_exit = 1
    if way is HOOKED["on the host"]:
        scenario.settings = replace(way, hooks=Hooks(post_switch=Hook(host_command=("./hook",))))
        scenario.world.programs = {"./hook": Program(1)}
    with pytest.raises(DeployFailed, match="post_switch hook failed"):
        scenario.deploy(V2)
    assert set(scenario.world.containers) == old
    scenario.assert_settled(V1)


@pytest.mark.parametrize("fails", [False, True])
def test_a_failing_pre_stop_is_told_or_ends_the_deploy_as_asked(fails: bool) -> None:
    way = settings(update=UpdateConfig(parallelism=0), hooks=Hooks(pre_stop=Hook(("leave",), fails=fails)))
    scenario = Scenario(way)
    for container in scenario.world.containers.values():
        container.image = replace(container.image, hook_exit=1)
    if not fails:
        scenario.deploy(V2)
        assert [e.code for e in scenario.events if isinstance(e, Warned)] == ["hook-failed"] * 2
        scenario.assert_settled(V2)
        return
    with pytest.raises(NotUndone, match="pre_stop hook failed"):
        scenario.deploy(V2)
    assert len(scenario.world.containers) == 4, "the old ones run on, out of the pool"
    for container in scenario.world.containers.values():
        container.image.hook_exit = 0
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_killed_anywhere_no_job_is_left_and_none_runs_beside_another() -> None:
    way = settings(hooks=HOOKS)
    for call in _telling_calls(Scenario(way), lambda scenario: scenario.deploy(V2)):
        scenario = Scenario(way)
        with pytest.raises(Crash):
            scenario.deploy(V2, crash_at=call)
        scenario.world.on_tick = lambda scenario=scenario: _at_most_one(scenario)  # type: ignore[misc]
        scenario.sync()
        assert scenario.world.jobs == {}
        scenario.deploy(V2)
        scenario.assert_settled(V2)
        assert ran(scenario)["pre_deploy"] <= 2


def _at_most_one(scenario: Scenario) -> None:
    assert len(scenario.world.jobs) <= 1
