"""The command line with a sidecar: the same words and exit codes, one truth; and what happens when it goes away."""

from __future__ import annotations

import json
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.projects import Done, Edge, Shop, addresses, healthy, running, serving
from tests.e2e.sidecars import ask, audited, ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """A project without a sidecar, for the tests of this file one after the other."""
    directory = Path(tempfile.mkdtemp(prefix="rollout-"))
    with running(Edge("nginx", "1.26"), directory) as shop:
        yield shop
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def as_it_was(shop: Shop) -> Iterator[None]:
    """Whichever test comes next, and in whichever order: none finds what another has set."""
    yield
    shop.service("web", **{"x-rollout": {"health": {"min_healthy_time": None}, "hooks": None}})
    shop.env.pop("TAG", None)


def last_json(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return found


def test_what_the_command_line_asks_is_done_by_the_sidecar_as_it_would_be_without(shop: Shop) -> None:
    """An exported variable counts, which the sidecar does not have; the report and the exit codes are the same."""
    shop.env["TAG"] = "2"
    with serving(shop):
        with shop.load() as load:
            load.wait_for(50)
            done = shop.rollout("deploy", "web")
            load.wait_for(100)
        assert load.report().failed == 0, load.report().describe()
        assert (shop.answers(), shop.pool()) == ("2", addresses(shop.running()))
        told = re.match(r"web: deployed revision (\d+) \(was 1\) in ", done.out)
        assert told and re.search(r"-web-\d", done.err), done
        assert audited(shop)[-1]["who"].startswith("cli:")
        again = shop.rollout("deploy", "web", "--json")
        assert last_json(again)["event"] == "nothing_to_do"
        served = [shop.rollout(*verb, code=None) for verb in LOOKS]
        shop.rollout("rollback", "web")
        assert shop.answers() == "1"
        assert "web: " in shop.rollout("sync").out
        faults = [shop.rollout(*verb, code=None) for verb in FAULTS]
        shop.rollout("rollback", "web", "--to", told[1])
    del shop.env["TAG"]
    shop.tag("2")
    assert [done.code for done in faults] == [2, 1, 2, 2]
    for verb, before in zip(FAULTS, faults, strict=True):
        assert last_json(shop.rollout(*verb, code=None)) == last_json(before), verb
    looks = [shop.rollout(*verb, code=None) for verb in LOOKS]
    assert [_without_times(done) for done in looks[:1]] == [_without_times(done) for done in served[:1]]
    assert json.loads(looks[1].out)[-1] == json.loads(served[1].out)[-1]


LOOKS = (("status", "web"), ("history", "--json"))
FAULTS = (
    ("rollback", "web", "--to", "99", "--json"),
    ("deploy", "web", "--image", "rollout-test/python:none", "--pull", "never", "--json"),
    ("deploy", "web", "--image", "A b", "--json"),
    ("status", "nothing", "--json"),
)


def _without_times(done: Done) -> list[str]:
    """Replicas have other numbers and addresses by now."""
    return [line.split(",")[0] for line in done.out.splitlines() if not line.startswith("  ")]


def test_a_deploy_that_fails_there_fails_here(shop: Shop) -> None:
    before = shop.snapshot()
    with serving(shop):
        done = shop.rollout("deploy", "web", "--image", "rollout-test/python:latest", code=1)
    assert done.err.splitlines()[-1].startswith("hint: ") or "error: " in done.err, done
    assert re.search(r"web: not deployed.*revision \d+ serves as before", done.out, re.DOTALL), done
    assert shop.snapshot().containers == before.containers
    assert shop.snapshot().config == before.config


def test_ctrl_c_asks_the_sidecar_to_take_it_back(shop: Shop) -> None:
    shop.service("web", **{"x-rollout": {"health": {"min_healthy_time": "20s"}}})
    before = {c.id for c in shop.containers()}
    with serving(shop):
        deploy = shop.spawn("deploy", "web", "--force")
        deploy.wait_for("step_started", step="check")
        deploy.signal(signal.SIGINT)
        done = deploy.end()
        assert done.code == 130, done
        assert audited(shop)[-1]["what"] == "interrupt"
        assert ask(shop, "GET", "/v1/operations")["operations"][0]["exit_code"] == 130
    assert {c.id for c in shop.containers()} == before
    assert last_json(done)["error"] == "Interrupted"


# each old replica stays, drained, until the file is there
WAITS = {"command": ["sh", "-c", "until test -e /term/go; do sleep 0.05; done"], "timeout": "60s"}


def test_two_at_once_take_turns_and_who_will_not_wait_is_told(shop: Shop) -> None:
    shop.service("web", **{"x-rollout": {"hooks": {"pre_stop": WAITS}}})
    go = shop.directory / "term/go"
    go.unlink(missing_ok=True)
    with serving(shop) as sidecar:
        first = ask(shop, "POST", "/v1/deploy", {"services": ["web"], "force": True})
        sidecar.wait_for("step_started", step="pre_stop")
        second = ask(shop, "POST", "/v1/deploy", {"services": ["web"]})
        assert "another rollout is under way: deploy" in shop.rollout("deploy", "web", code=3).err
        go.touch()
        assert [ended(shop, one)["exit_code"] for one in (first, second)] == [0, 0]
        assert ended(shop, second)["receipts"] == [], "it found nothing left to do"


def test_a_sidecar_that_is_killed_leaves_a_deploy_to_the_command_line(shop: Shop) -> None:
    shop.service("web", **{"x-rollout": {"health": {"min_healthy_time": "8s"}}})
    sidecar = shop.spawn("serve")
    try:
        healthy(shop)
        deploy = shop.spawn("deploy", "web", "--force")
        deploy.wait_for("step_started", step="check")
    finally:
        sidecar.signal(signal.SIGKILL)
        sidecar.end()
    done = deploy.end()
    assert done.code == 0, done
    assert any("going on without it" in str(event.get("text")) for event in deploy.events)
    assert shop.pool() == addresses(shop.running())
    assert (shop.directory / ".rollout/api.sock").exists(), "it had no time to remove it"
    shop.service("web", **{"x-rollout": {"health": {"min_healthy_time": None}}})
    assert "nothing to do" in shop.rollout("deploy", "web").out, "a dead socket is in nobody's way"
    with serving(shop):
        assert ask(shop, "GET", "/v1/services/web")["live"]["image"].startswith("rollout-test/app:")
