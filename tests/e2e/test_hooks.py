"""The user's hooks on the real engine, under load: a failing migration changes nothing, a failing check goes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, PROJECT, Edge, Shop, docker, running
from tests.load import Load

pytestmark = [pytest.mark.e2e]

EDGE_PAIR = (EDGES[1], EDGES[2])
WROTE = 'echo "$$ROLLOUT_HOOK $$ROLLOUT_WHAT $$ROLLOUT_REVISION $$VERSION $$SECRET" >> /term/hooks'
SECRET = "planted-hunter2"  # a test looks for it where it must not be


def hooks(**changes: object) -> dict[str, object]:
    each = {name: {"command": ["sh", "-c", WROTE]} for name in ("pre_deploy", "post_switch", "pre_stop")}
    return {"environment": {"SECRET": SECRET}, "x-rollout": {"hooks": {**each, **changes}}}


def wrote(shop: Shop) -> list[str]:
    file = shop.directory / "term/hooks"
    return file.read_text().splitlines() if file.exists() else []


def one_offs(shop: Shop) -> str:
    return docker("ps", "-aq", "--filter", f"label={PROJECT}={shop.name}", "--filter", "label=rollout.job")


def lossless(shop: Shop, load: Load) -> None:
    load.wait_for(load.progress()["total"] + 20)
    report = load.report()
    assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
    assert {line["in_flight"] for line in shop.term_lines()} <= {0}, shop.term_lines()


def test_each_runs_where_and_as_often_as_it_says(short_directory: Path) -> None:
    batches = {"deploy": {"update_config": {"parallelism": 1}}}
    with running(EDGES[2], short_directory, **batches) as shop, shop.load() as load:
        shop.service("web", **hooks())
        shop.tag("2")
        done = shop.rollout("deploy", "web")
        assert wrote(shop) == [
            f"pre_deploy deploy 2 2 {SECRET}", "pre_stop deploy 2 1 ",
            f"post_switch deploy 2 2 {SECRET}", "pre_stop deploy 2 1 ",
        ]  # fmt: skip
        assert shop.answers() == "2" and one_offs(shop) == ""
        assert SECRET not in done.said and "term/hooks" not in done.said, "what a hook is told is its own affair"
        shop.settled()
        shop.compose("up", "-d")
        assert shop.rollout("deploy", "web").out.startswith("web: nothing to do")
        lossless(shop, load)


@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_a_migration_that_fails_changes_nothing(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory) as shop, shop.load() as load:
        before = shop.snapshot()
        script = "echo migrating; echo no such table >&2; exit 3"
        shop.service("web", **hooks(pre_deploy={"command": ["sh", "-c", script]}))
        shop.tag("2")
        done = shop.rollout("deploy", "web", code=1)
        assert "the pre_deploy hook failed: it ended with exit code 3" in done.err and "no such table" in done.err
        assert shop.snapshot() == before and one_offs(shop) == "" and wrote(shop) == []
        for missing in (["no-such-program"], ["--rm", "-v", "/:/host"]):
            shop.service("web", **hooks(pre_deploy={"command": missing}))
            done = shop.rollout("deploy", "web", code=1)
            assert "could not be started" in done.err
            assert shop.snapshot() == before and one_offs(shop) == ""
        assert shop.answers() == "1"
        lossless(shop, load)


def test_a_check_that_fails_after_the_switch_goes_back(short_directory: Path) -> None:
    with running(EDGES[2], short_directory) as shop, shop.load() as load:
        old = {c.id for c in shop.containers()}
        check = shop.directory / "smoke"
        check.write_text('#!/bin/sh\necho "smoke of $ROLLOUT_REPLICA in $ROLLOUT_PROJECT"; exit 7\n')
        check.chmod(0o755)
        shop.service("web", **hooks(post_switch={"host_command": ["./smoke"]}))
        shop.tag("2")
        done = shop.rollout("deploy", "web", code=1)
        assert "the post_switch hook failed: it ended with exit code 7" in done.err
        assert f"smoke of {shop.name}-web-" in done.err and f"in {shop.name}" in done.err
        assert {c.id for c in shop.containers()} == old and shop.answers() == "1"
        shop.settled()
        lossless(shop, load)


def test_a_job_ends_with_the_controller_or_with_the_next_run(short_directory: Path) -> None:
    with running(EDGES[2], short_directory) as shop:
        before = shop.snapshot()
        shop.service("web", **hooks(pre_deploy={"command": ["sh", "-c", "echo begun; exec sleep 1000"]}))
        shop.tag("2")
        for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
            run = shop.spawn("deploy", "web")
            run.wait_for("hook_output", text="begun")
            run.signal(number)
            assert run.end().code == code
            if number == signal.SIGKILL:
                assert one_offs(shop) != ""
                shop.rollout("sync")
            assert one_offs(shop) == "" and shop.snapshot() == before
        shop.service("web", **hooks(pre_deploy={"command": ["sleep", "1000"], "timeout": "500ms"}))
        done = shop.rollout("deploy", "web", code=1)
        assert "longer than 0.5 s" in done.err
        assert one_offs(shop) == "" and shop.snapshot() == before
