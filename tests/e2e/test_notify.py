"""Web hooks hear how rollouts end, from the command line and from the sidecar, and nobody sees their address."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, eventually, running
from tests.receiver import receiver

pytestmark = [pytest.mark.e2e]

PLANTED = "planted-hunter2"


def test_each_outcome_is_told_by_who_carries_it_out(short_directory: Path) -> None:
    with receiver(503) as at, running(EDGES[2], short_directory) as shop:
        for name, content in (("url", f"{at.url}/{PLANTED}"), ("secret", PLANTED)):
            (short_directory / name).write_text(content)
        shop.notify = [{"url_file": "./url", "secret_file": "./secret"}]
        shop.service("web", **{"x-rollout": {"strategy": "blue-green", "promotion": "manual"}})
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        run.wait_for("held")
        assert [told.status for told in at.wait_for(2)] == [503, 200], "a receiver that fails first is told again"
        shop.rollout("promote", "web")
        assert run.end().code == 0
        shop.tag("1")
        killed = shop.spawn("deploy", "web")
        killed.wait_for("held")
        at.wait_for(4)
        killed.signal(signal.SIGKILL)
        killed.end()
        sidecar = shop.spawn("serve")
        sidecar.wait_for("finished", outcome="undone")
        sidecar.signal(signal.SIGTERM)
        assert sidecar.end().code == 0
        told = [one.json for one in at.wait_for(5) if one.status == 200]
        assert [(one["outcome"], one["project"], one["service"]) for one in told] == [
            (outcome, shop.name, "web") for outcome in ("held", "deployed", "held", "undone")
        ]
        assert told[1]["receipt"]["revision"] == 2 and all("X-Rollout-Signature" in r.headers for r in at.requests)

        shop.tag("2")
        said = [shop.rollout(verb, *flags).said for verb in ("status", "plan", "check", "history")
                for flags in ((), ("--json",))]  # fmt: skip
        kept = [file.read_bytes() for file in (short_directory / ".rollout").rglob("*") if file.is_file()]
        assert PLANTED not in "".join(said) and not any(PLANTED.encode() in content for content in kept)


def test_whom_nobody_reaches_fails_and_delays_no_deploy(short_directory: Path) -> None:
    with receiver(*[404] * 9) as at, running(EDGES[2], short_directory) as shop:
        shop.notify = [{"url": f"{at.url}/{PLANTED}"}, {"url": "http://127.0.0.1:9/", "on": ["undone"]}]
        shop.write()
        shop.tag("2")
        done = shop.rollout("deploy", "web")
        assert "127.0.0.1 was not told that rollout 1 is deployed: it answered 404" in done.err
        assert PLANTED not in done.said and done.err.count("not-notified") == 1
        assert shop.answers() == "2"


def test_through_the_sidecar_it_is_told_once_and_its_socket_takes_a_wish(short_directory: Path) -> None:
    with receiver() as at, running(EDGES[2], short_directory) as shop:
        shop.notify = [{"url": at.url}]
        shop.service("web", **{"x-rollout": {"strategy": "blue-green", "promotion": "manual"}})
        sidecar = shop.spawn("serve")
        socket = short_directory / ".rollout/api.sock"
        eventually(socket.exists, "the sidecar's socket")
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        sidecar.wait_for("held")
        url = "http://rollout/v1/services/web/promote"
        argv = ["curl", "-s", "--unix-socket", str(socket), "-X", "POST", "-H", "Content-Type: application/json"]
        answer = subprocess.run([*argv, "-d", "{}", url], capture_output=True, text=True, check=True).stdout
        assert json.loads(answer) | {"who": ""} == {
            "service": "web", "rollout": 1, "wish": "promote", "who": "", "at_work": True,
        }, answer  # fmt: skip
        assert run.end().code == 0 and shop.answers() == "2"
        again = subprocess.run([*argv, "-d", "{}", url], capture_output=True, text=True, check=True).stdout
        assert "no rollout is under way" in again
        sidecar.signal(signal.SIGTERM)
        assert sidecar.end().code == 0
        assert [told.json["outcome"] for told in at.requests] == ["held", "deployed"]
