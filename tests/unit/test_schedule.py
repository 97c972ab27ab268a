"""The schedule: windows by the local clock, pauses, what is news, and what the part makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from rollout.errors import EngineError, UsageError
from rollout.events import Event, Notice, Warned
from rollout.model import (
    Project,
    ProxySettings,
    ProxyType,
    Replica,
    ReplicaState,
    Revision,
    RevisionKey,
    Schedule,
    ServiceSettings,
    Window,
)
from rollout.ports import RolloutRecord
from rollout.server.operations import Asked, Operation
from rollout.server.scheduling import LOCAL_TIME, LONGEST_WAIT, Looking, Scheduling, local_zone
from rollout.spec.faults import Refused
from rollout.spec.values import windows
from rollout.steps.run import Ports
from rollout.watch.schedule import FIRST_PAUSE, is_news, is_open, next_opening, next_question, pause_after
from tests.clocks import HandClock

BERLIN = ZoneInfo("Europe/Berlin")  # summer time 2026: from March 29, 2:00, to October 25, 3:00
NIGHT = windows("Sat,Sun 02:00-04:00")


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "days", "begins", "ends"),
    [
        ("Sat,Sun 02:00-04:00", {5, 6}, 120, 240),
        ("mon-fri 22:00-2:30", {0, 1, 2, 3, 4}, 1320, 150),
        ("Fri-Mon 00:00-24:00", {4, 5, 6, 0}, 0, 0),
        ("3:00-5:00", set(range(7)), 180, 300),
        ("Mon,Wed-Thu  1:05-1:06", {0, 2, 3}, 65, 66),
    ],
)
def test_windows_are_read(text: str, days: set[int], begins: int, ends: int) -> None:
    assert windows(text) == (Window(frozenset(days), begins, ends),)
    assert windows([text, text]) == windows(text) * 2


@pytest.mark.parametrize(
    "text", ["", "Sat", "Sat 2-4", "Sa 02:00-04:00", "25:00-26:00", "1:00-24:30", "1:60-2:00", 3, []]
)
def test_what_is_no_window_is_refused(text: object) -> None:
    with pytest.raises(Refused):
        windows(text)


@pytest.mark.parametrize(
    ("now", "opens", "closes"),
    [
        ("2026-07-01T12:00", "2026-07-04T02:00", "2026-07-04T04:00"),  # a Wednesday
        ("2026-07-04T02:00", "2026-07-04T02:00", "2026-07-04T04:00"),
        ("2026-07-04T03:59", "2026-07-04T02:00", "2026-07-04T04:00"),
        ("2026-07-04T04:00", "2026-07-05T02:00", "2026-07-05T04:00"),
        ("2026-07-05T04:00", "2026-07-11T02:00", "2026-07-11T04:00"),
        ("2026-03-29T01:59", "2026-03-29T03:00", "2026-03-29T04:00"),  # 2:00 does not exist
        ("2026-10-24T12:00", "2026-10-25T02:00", "2026-10-25T04:00"),  # 2:00 comes twice, the window is one
    ],
)
def test_the_next_opening(now: str, opens: str, closes: str) -> None:
    assert next_opening(NIGHT, at(now), BERLIN) == (at(opens), at(closes))
    assert is_open(NIGHT, at(now), BERLIN) is (at(opens) <= at(now))


def test_hours_that_are_skipped_or_repeated() -> None:
    gap = windows("02:15-02:45")
    opens, closes = next_opening(gap, at("2026-03-29T00:00"), BERLIN)
    assert (opens, closes - opens) == (at("2026-03-29T03:15"), 1800)
    opens, closes = next_opening(gap, at("2026-10-25T00:00"), BERLIN)
    assert (opens, closes - opens) == (at("2026-10-25T02:15", fold=0), 1800)
    assert not is_open(gap, at("2026-10-25T02:30", fold=1), BERLIN), "once a day"
    backwards = windows("02:50-03:10")  # its end, not skipped, comes before its beginning
    assert next_opening(backwards, at("2026-03-29T00:00"), BERLIN)[0] == at("2026-03-30T02:50")


def test_a_window_past_midnight_belongs_to_the_day_it_begins() -> None:
    friday = windows("Fri 22:00-02:00")
    assert is_open(friday, at("2026-07-04T01:59"), BERLIN)
    assert not is_open(friday, at("2026-07-04T02:00"), BERLIN)
    assert not is_open(friday, at("2026-07-03T01:00"), BERLIN)


# --- when to ask --------------------------------------------------------------------------------------------------

HOURLY = Schedule(3600.0, 300.0)


def test_the_pause_is_the_interval_and_a_little_more() -> None:
    assert next_question(HOURLY, 3600.0, 1000.0, BERLIN, 0.5) == 1000.0 + 3600.0 + 150.0


def test_outside_of_the_window_it_waits_for_it() -> None:
    nightly = replace(HOURLY, windows=NIGHT)
    opens = at("2026-07-04T02:00")
    assert next_question(nightly, 3600.0, at("2026-07-01T12:00"), BERLIN, 0.5) == opens + 150
    assert next_question(nightly, 3600.0, opens, BERLIN, 0.0) == opens + 3600
    short = replace(HOURLY, windows=windows("02:00-02:01"))
    assert next_question(short, 3600.0, at("2026-07-01T12:00"), BERLIN, 0.5) == at("2026-07-02T02:00") + 30


def test_a_registry_in_trouble_is_asked_less_and_less_often() -> None:
    pauses = [pause_after(failures, HOURLY) for failures in range(1, 12)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == HOURLY.interval
    assert pause_after(0, HOURLY) == HOURLY.interval


# --- what is news -------------------------------------------------------------------------------------------------

OLD, NEW = frozenset({"sha256:old"}), frozenset({"sha256:new"})


@pytest.mark.parametrize(
    ("running", "tried", "news"),
    [
        ([OLD], False, True),
        ([frozenset()], False, True),  # built here
        ([NEW], False, False),
        ([OLD, NEW], False, False),  # a rollout is under way
        ([OLD], True, False),  # it failed, or somebody went back from it
        ([], False, False),
    ],
)
def test_what_is_news(running: Sequence[frozenset[str]], tried: bool, news: bool) -> None:
    assert is_news("sha256:new", running, tried=tried) is news


# --- the part -----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """The ports that a round looks through, one service running `old`, and the operations it asks."""

    settings: ServiceSettings
    clock: HandClock = field(default_factory=lambda: HandClock(at("2026-07-01T12:00")))
    offers: str = "sha256:old"
    down: bool = False
    runs: str = "id-old"
    here: dict[str, str] = field(default_factory=dict)  # reference -> image id
    records: list[RolloutRecord] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    questions: int = 0
    said: list[Event] = field(default_factory=list)
    exit_code: int | None = 0
    live_image: str = "reg:5000/web:1"

    def part(self, zone: Callable[[], tzinfo] = lambda: BERLIN) -> Scheduling:
        ports = cast("Ports", self)
        proxy = ProxySettings(ProxyType.NGINX, "/x", service="edge")

        @contextmanager
        def look() -> Iterator[Looking]:
            yield Looking(ports, self)

        return Scheduling(
            lambda: Project("shop", "/", proxy, {"web": self.settings}, ""), look, cast("Any", self), self.clock,
            self.said.append, zone=zone, chance=lambda: 0.0,
        )  # fmt: skip

    @property
    def engine(self) -> World:
        return self

    images = journal = engine

    def replicas(self, service: str) -> list[Replica]:
        return [Replica("c1", "shop-web-1", service, 1, RevisionKey("h", self.runs), ReplicaState.RUNNING)]

    def warm(self, _service: str) -> None:
        return None

    def live(self, service: str) -> Revision:
        return Revision(service, 1, RevisionKey("h", self.runs), self.live_image, "", 0.0)

    def history(self, _service: str, _limit: int) -> list[RolloutRecord]:
        return self.records

    def image_id(self, reference: str) -> str | None:
        return self.here.get(reference)

    def offered(self, _reference: str) -> str:
        self.questions += 1
        if self.down:
            raise EngineError("no route to the registry")
        return self.offers

    def digests(self, image_id: str) -> frozenset[str]:
        return frozenset({image_id.replace("id-", "sha256:")})

    def submit(self, asked: Asked) -> Operation:
        self.asked.append(asked)
        return Operation(len(self.asked), asked, "queued", 0.0)

    def get(self, number: int) -> Operation:
        return Operation(number, self.asked[number - 1], "running", 0.0, exit_code=self.exit_code)

    def rolled(self, what: str, image: str, state: str = "deployed") -> None:
        """The newest rollout there was."""
        target = Revision("web", 1, RevisionKey("h", image), "", "", 0.0)
        self.records.insert(0, RolloutRecord(1, "web", what, state, "rolling", target, (), None, True, 0.0))


@pytest.fixture
def world() -> World:
    return World(ServiceSettings("web", 8000, image="reg:5000/web:1", schedule=Schedule(3600.0)))


def pass_time(world: World, part: Scheduling, seconds: float) -> None:
    end = world.clock.time + seconds
    while world.clock.time < end:
        world.clock.time = min(end, world.clock.time + max(part.round(), 0.001))


def test_off_by_default(world: World) -> None:
    world.settings = replace(world.settings, schedule=None)
    part = world.part()
    assert part.round() == LONGEST_WAIT
    pass_time(world, part, 86_400)
    assert world.questions == 0


def test_a_new_digest_is_deployed_once(world: World) -> None:
    part = world.part()
    pass_time(world, part, 3 * 3600)
    assert (world.questions, world.asked) == (3, [])
    world.offers, world.exit_code = "sha256:new", None
    pass_time(world, part, 2 * 3600)
    assert world.asked == [Asked("deploy", ("web",), "schedule", pull="always")], "it is still under way"
    world.exit_code, world.runs = 0, "id-new"
    pass_time(world, part, 2 * 3600)
    assert len(world.asked) == 1
    assert world.said == [Notice("web", "the registry has a new image for reg:5000/web:1: sha256:new")]


@pytest.mark.parametrize(("state", "again"), [("undone", False), ("failed", False), ("interrupted", True)])
def test_what_failed_is_not_tried_again(world: World, state: str, again: bool) -> None:
    world.offers, world.here = "sha256:new", {"reg:5000/web@sha256:new": "id-new"}
    world.rolled("deploy", "id-new", state)
    world.part().round()
    assert bool(world.asked) is again


def test_a_rollback_is_not_overruled_but_a_tag_that_goes_back_is_followed(world: World) -> None:
    world.here = {"reg:5000/web@sha256:new": "id-new", "reg:5000/web@sha256:old": "id-old"}
    world.rolled("deploy", "id-old")
    world.rolled("deploy", "id-new")
    world.rolled("rollback", "id-old")
    world.offers = "sha256:new"
    part = world.part()
    pass_time(world, part, 3 * 3600)
    assert world.asked == []
    world.records.pop(0)  # nobody went back: the registry did
    world.runs, world.offers = "id-new", "sha256:old"
    pass_time(world, part, 3600)
    assert len(world.asked) == 1


def test_an_image_that_somebody_chose_is_left_alone_until_the_file_says_it(world: World) -> None:
    """A webhook, or `--image`: the Compose file's own tag would take it back."""
    world.live_image, world.offers = "reg:5000/web:2", "sha256:new"
    part = world.part()
    pass_time(world, part, 3 * 3600)
    assert world.asked == []
    assert [event.text for event in world.said if isinstance(event, Notice)] == [
        "a new image for reg:5000/web:1 is left alone: somebody has deployed reg:5000/web:2"
    ]
    world.live_image = "reg:5000/web:1"
    pass_time(world, part, 3600)
    assert len(world.asked) == 1


def test_nothing_is_asked_outside_of_the_window(world: World) -> None:
    world.settings = replace(world.settings, schedule=Schedule(3600.0, windows=NIGHT))
    world.offers = "sha256:new"
    part = world.part()
    pass_time(world, part, at("2026-07-04T02:00") - world.clock.time)
    assert world.questions == 0
    pass_time(world, part, 60)
    assert (world.questions, len(world.asked)) == (1, 1)


def test_a_registry_that_is_down_is_told_once_and_asked_again(world: World) -> None:
    world.down = True
    part = world.part()
    pass_time(world, part, 3600)
    asked = world.questions
    assert 5 < asked < 12
    assert [type(event) for event in world.said] == [Warned]
    world.down, world.offers = False, "sha256:new"
    pass_time(world, part, 3600)
    assert len(world.asked) == 1
    assert [type(event) for event in world.said] == [Warned, Notice, Notice]


def test_a_zone_that_is_none_is_told_once_and_ends_nothing(world: World) -> None:
    part = world.part(zone=lambda: local_zone({"TZ": "Europe/Atlantis"}))
    pass_time(world, part, 3600)
    assert [event.text for event in world.said if isinstance(event, Warned)] == [
        "schedules are not followed: TZ=Europe/Atlantis names no time zone"
    ]
    assert world.questions == 0


def test_a_changed_schedule_counts_at_once(world: World) -> None:
    part = world.part()
    part.round()
    world.settings = replace(world.settings, schedule=Schedule(600.0))
    pass_time(world, part, 1800)
    assert world.questions == 1 + 3


def test_the_local_zone() -> None:
    assert local_zone({"TZ": "Europe/Berlin"}) == BERLIN
    assert local_zone({"TZ": ":Europe/Berlin"}) == BERLIN
    assert local_zone({}) is not None
    july = datetime(2026, 7, 1, tzinfo=UTC)
    by_path, by_itself = local_zone({"TZ": f":{LOCAL_TIME}"}), local_zone({})
    assert july.astimezone(by_path).utcoffset() == july.astimezone(by_itself).utcoffset()
    for wrong in ("Europe/Atlantis", "../etc/passwd"):
        with pytest.raises(UsageError, match="names no time zone"):
            local_zone({"TZ": wrong})
