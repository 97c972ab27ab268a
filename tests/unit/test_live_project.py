"""The sidecar's project: taken up when its files have changed, kept when they are broken, and asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.compose import Options
from rollout.events import Event, Notice, Warned
from rollout.server.project import LiveProject
from rollout.waiting import LONGEST_RETRY
from tests.clocks import HandClock

PROJECT = """
name: live-project
x-rollout: {{ proxy: {{ type: nginx, container: edge, config: ./conf }} }}
services:
  web: {{ image: "shop:1", {more} x-rollout: {{ port: {port} }} }}
"""


@dataclass
class Live:
    directory: Path
    project: LiveProject
    told: list[Event]
    clock: HandClock

    def write(self, port: int, more: str = "") -> None:
        (self.directory / "compose.yaml").write_text(PROJECT.format(port=port, more=more), encoding="utf-8")

    @property
    def port(self) -> int:
        return self.project.wired.project.services["web"].port

    def rests(self) -> bool:
        """Looked at twice, as files are that may still be written."""
        self.project.changed()
        return self.project.changed()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    (tmp_path / "conf").mkdir()
    (tmp_path / "compose.yaml").write_text(PROJECT.format(port=8001, more=""), encoding="utf-8")
    told, clock = list[Event](), HandClock()
    options = Options((str(tmp_path / "compose.yaml"),))
    with LiveProject(options, clock, told.append) as project:
        yield Live(tmp_path, project, told, clock)


def test_files_that_have_changed_are_taken_up(live: Live) -> None:
    assert not live.rests()
    live.write(8002)
    assert live.rests() and live.port == 8001, "not before it is asked to"
    assert live.project.take_up() and live.port == 8002
    assert not live.rests() and not live.project.take_up()
    assert [type(event) for event in live.told] == [Notice]


def test_a_broken_file_is_told_once_and_the_last_good_one_stays(live: Live) -> None:
    live.write(99999)
    assert not live.rests()
    for _ in range(5):
        live.clock.sleep(LONGEST_RETRY)
        assert not live.rests()
    assert [event.code for event in live.told if isinstance(event, Warned)] == ["project-refused"]
    assert not live.project.take_up() and live.port == 8001
    live.write(8002)
    assert live.project.refresh() and live.port == 8002


def test_a_time_that_only_compose_takes_is_a_broken_file(live: Live) -> None:
    live.write(8002, "stop_grace_period: -1s,")
    assert not live.rests()
    (warned,) = [event for event in live.told if isinstance(event, Warned)]
    assert "services.web.stop_grace_period: '-1s' is not a duration" in warned.text


def test_what_a_file_wanted_may_come_later(live: Live) -> None:
    """The env file is none of those that are looked at: the project that names it was refused."""
    live.write(8002, "env_file: later.env,")
    assert not live.rests() and not live.project.take_up()
    (live.directory / "later.env").write_text("A=1\n", encoding="utf-8")
    assert not live.rests()
    live.clock.sleep(1.0)
    assert live.project.changed() and live.project.take_up() and live.port == 8002
    live.clock.sleep(LONGEST_RETRY)
    assert not live.rests()
