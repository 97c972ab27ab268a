"""The schedule: windows by the local clock, pauses, what is news, and what the part makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from itertools import cycle, pairwise
from random import Random
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from rollout.errors import EngineError, UsageError
from rollout.events import Event, Notice, Warned
from rollout.model import (
    Pool,
    Project,
    ProxySettings,
    ProxyType,
    Replica,
    ReplicaState,
    Revision,
    RevisionKey,
    Schedule,
    ServiceSettings,
    Upstream,
    Window,
)
from rollout.ports import RolloutRecord
from rollout.server.operations import Asked, Operation
from rollout.server.scheduling import LOCAL_TIME, LONGEST_WAIT, Looking, Scheduling, local_zone
from rollout.spec.faults import Refused
from rollout.spec.values import windows
from rollout.steps.run import Ports
from rollout.watch.schedule import (
    FIRST_PAUSE,
    first_question,
    is_news,
    is_open,
    next_opening,
    next_question,
    pause_after,
)
from tests.clocks import HandClock

BERLIN = ZoneInfo("Europe/Berlin")  # summer time 2026: from March 29, 2:00, to October 25, 3:00
NIGHT = windows("Sat,Sun 02:00-04:00")
DAY = 86_400.0


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


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Santiago", "UTC"])
@pytest.mark.parametrize("text", ["Sun 02:00-03:00", "Sun 00:00-01:00", "Sun 02:50-03:10", "Sun 01:00-03:30"])
def test_a_window_opens_again_whenever_it_is_asked(zone: str, text: str) -> None:
    """Also the week before the one whose window summer time skips wholly: from 2:00 to 3:00 is no time at all then."""
    here, weekly = ZoneInfo(zone), windows(text)
    for hours in range(0, 366 * 24, 7):
        now = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + hours * 3600
        opens, closes = next_opening(weekly, now, here)
        assert opens < closes > now
        assert opens - now <= 14 * DAY
        assert is_open(weekly, opens, here)


def test_the_week_whose_window_is_skipped_is_left_out() -> None:
    skipped = windows("Sun 02:00-03:00")
    assert next_opening(skipped, at("2026-03-22T03:00"), BERLIN) == (at("2026-04-05T02:00"), at("2026-04-05T03:00"))


def test_a_window_past_midnight_belongs_to_the_day_it_begins() -> None:
    friday = windows("Fri 22:00-02:00")
    assert is_open(friday, at("2026-07-04T01:59"), BERLIN)
    assert not is_open(friday, at("2026-07-04T02:00"), BERLIN)
    assert not is_open(friday, at("2026-07-03T01:00"), BERLIN)


# --- when to ask --------------------------------------------------------------------------------------------------

HOURLY = Schedule(3600.0, 300.0)


def test_the_pause_is_the_interval_and_a_little_more() -> None:
    assert first_question(HOURLY, 1000.0, BERLIN, 0.5) == 1000.0 + 150.0
    assert next_question(HOURLY, 1000.0, 3600.0, BERLIN, 0.5) == 1000.0 + 3600.0 + 150.0
    assert next_question(HOURLY, 1000.0, 10.0, BERLIN, 0.5) == 1000.0 + 10.0 + 5.0, "at most twice as long"


def test_outside_of_the_window_it_waits_for_it() -> None:
    nightly = replace(HOURLY, windows=NIGHT)
    opens = at("2026-07-04T02:00")
    assert first_question(nightly, at("2026-07-01T12:00"), BERLIN, 0.5) == opens + 150
    assert next_question(nightly, at("2026-07-01T12:00"), 3600.0, BERLIN, 0.5) == opens + 150
    assert next_question(nightly, opens, 3600.0, BERLIN, 0.0) == opens + 3600
    short = replace(HOURLY, windows=windows("02:00-02:01"))
    assert first_question(short, at("2026-07-01T12:00"), BERLIN, 0.5) == at("2026-07-02T02:00") + 15


def test_what_jitter_has_added_is_not_added_again() -> None:
    daily = Schedule(DAY, 300.0, windows("02:00-04:00"))
    opens = at("2026-07-04T02:00")
    assert next_question(daily, opens + 299, DAY, BERLIN, 0.0) == opens + DAY
    assert next_question(daily, opens + 3700, DAY, BERLIN, 0.0) == opens + 3700 - 300 + DAY


def test_a_registry_that_fails_is_asked_again_in_the_same_window() -> None:
    daily = Schedule(DAY, 0.1 * DAY, windows("02:00-04:00"))
    failed = at("2026-07-04T02:30")
    assert next_question(daily, failed, FIRST_PAUSE, BERLIN, 1.0) == failed + 2 * FIRST_PAUSE
    late = at("2026-07-04T03:59:59")
    assert next_question(daily, late, FIRST_PAUSE, BERLIN, 0.0) == at("2026-07-05T02:00")
    assert next_question(daily, at("2026-07-04T03:30"), DAY, BERLIN, 0.0) == at("2026-07-05T02:00")


CHANCES = ([0.0], [1.0], [1.0, 0.0], [Random(7).random() for _ in range(997)])


def questions(schedule: Schedule, begins: float, ends: float, chances: Sequence[float]) -> list[float]:
    """When a registry is asked that always answers."""
    chance = cycle(chances)
    found = [first_question(schedule, begins, BERLIN, next(chance))]
    while (later := next_question(schedule, found[-1], schedule.interval, BERLIN, next(chance))) < ends:
        found.append(later)
    return found


def following(schedule: Schedule, begins: float, number: int) -> list[tuple[float, float]]:
    """So many windows: when they open and close."""
    found = [next_opening(schedule.windows, begins, BERLIN)]
    while len(found) < number:
        found.append(next_opening(schedule.windows, found[-1][1], BERLIN))
    return found


@pytest.mark.parametrize("chances", CHANCES, ids=["least", "most", "by turns", "at random"])
@pytest.mark.parametrize(
    ("days", "text", "number"),
    [
        (1, "02:00-04:00", 60),
        (1, "02:15-02:45", 60),  # skipped on the 29th of March: from 3:15 on
        (1, "04:00-04:30", 60),  # and this one is only 23 hours after the one before
        (1, "23:00-01:00", 60),
        (1, "00:00-24:00", 60),
        (7, "Sat 02:00-04:00", 20),
        (7, "Sun 04:00-04:01", 20),
        (7, "Sun 02:15-02:45", 20),
        (7, "Sun 02:00-03:00", 20),  # one Sunday has none
    ],
)
def test_each_window_an_interval_after_the_last_has_one_question(
    chances: list[float], days: int, text: str, number: int
) -> None:
    for begins in (at("2026-02-10T12:00"), at("2026-03-01T02:10"), at("2026-09-06T04:00:30")):
        for jitter in (0.0, 0.1, 3.0):
            schedule = Schedule(days * DAY, jitter * days * DAY, windows(text))
            expected = following(schedule, begins, number)
            asked = questions(schedule, begins, expected[-1][1], chances)
            assert [next_opening(schedule.windows, when, BERLIN) for when in asked] == expected
            assert all(is_open(schedule.windows, when + 10, BERLIN) for when in asked), "there is time left for it"


@pytest.mark.parametrize("chances", CHANCES, ids=["least", "most", "by turns", "at random"])
@pytest.mark.parametrize("hours", [2, 5, 23, 24, 25, 36, 168])
@pytest.mark.parametrize("text", ["02:00-04:00", "Sat,Sun 02:00-04:00", "00:00-24:00"])
def test_it_is_never_asked_more_often_than_interval_and_jitter_say(
    chances: list[float], hours: float, text: str
) -> None:
    begins = at("2026-03-15T12:00")
    for jitter in (0.0, 0.1, 2.0):
        schedule = Schedule(hours * 3600, jitter * hours * 3600, windows(text))
        asked = questions(schedule, begins, begins + 20 * DAY, chances)
        least = schedule.interval - min(schedule.jitter, schedule.interval / 2)
        early = [least - (later - before) for before, later in pairwise(asked) if later - before < least]
        assert len(early) <= 1 and max(early, default=0.0) <= 3600, "on the day that has 23 hours"


@pytest.mark.parametrize("chances", CHANCES, ids=["least", "most", "by turns", "at random"])
def test_an_interval_shorter_than_the_window_asks_several_times_in_it(chances: list[float]) -> None:
    schedule = Schedule(1800.0, 180.0, windows("02:00-04:00"))
    nights = following(schedule, at("2026-07-01T12:00"), 60)
    asked = questions(schedule, nights[0][0], nights[-1][1], chances)
    assert {sum(opens <= when < closes for when in asked) for opens, closes in nights} <= {4, 5}


def test_without_jitter_a_round_that_takes_its_time_does_not_move_the_next_question() -> None:
    schedule = Schedule(24 * 3600.0, 0.0, windows("02:00-02:10"))
    when, asked = at("2026-07-02T02:00"), list[float]()
    for _ in range(400):
        asked.append(when)
        when = next_question(schedule, when + 2.0, schedule.interval, BERLIN, 0.0)
    assert max(later - before for before, later in pairwise(asked)) <= 25 * 3600.0


def test_less_than_a_day_is_never_shortened_by_a_window() -> None:
    for interval, jitter in ((60.0, 60.0), (1800.0, 180.0), (1800.0, 1800.0)):
        schedule = Schedule(interval, jitter, windows("02:00-04:00"))
        asked = questions(schedule, at("2026-07-02T02:00"), at("2026-07-09T02:00"), [1.0, 0.0, 0.0, 0.5])
        assert min(later - before for before, later in pairwise(asked)) >= interval


def test_one_longer_than_a_day_leaves_out_the_windows_that_come_too_early() -> None:
    schedule = Schedule(25 * 3600.0, 0.0, windows("02:00-04:00"))
    begins = at("2026-07-01T12:00")
    asked = questions(schedule, begins, begins + 7 * DAY, [0.0])
    assert asked == [at(f"2026-07-0{day}") for day in ("2T02:00", "3T03:00", "5T02:00", "6T03:00", "8T02:00")]


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
    deployed: str = ""  # the image that was; empty: what runs
    chance: Callable[[], float] = field(default=lambda: 0.0)
    slow: float = 0.0  # seconds a question takes

    def part(self, zone: Callable[[], tzinfo] = lambda: BERLIN) -> Scheduling:
        ports = cast("Ports", self)
        proxy = ProxySettings(ProxyType.NGINX, "/x", service="edge")

        @contextmanager
        def look() -> Iterator[Looking]:
            yield Looking(ports, self)

        return Scheduling(
            lambda: Project("shop", "/", proxy, {"web": self.settings}, ""), look, cast("Any", self), self.clock,
            self.said.append, zone=zone, chance=lambda: self.chance(),
        )  # fmt: skip

    @property
    def engine(self) -> World:
        return self

    images = journal = proxy = engine

    def replicas(self, service: str) -> list[Replica]:
        return [Replica("c1", "shop-web-1", service, 1, RevisionKey("h", self.runs), ReplicaState.RUNNING)]

    def pool(self, service: str) -> Pool:
        return Pool(service, (Upstream("web-c1", "10.0.0.2", 8000),))

    def revisions(self, service: str) -> list[Revision]:
        return [Revision(service, 2, RevisionKey("h", self.runs), "reg:5000/web:1", "", 0.0)]

    def warm(self, _service: str) -> None:
        return None

    def live(self, service: str) -> Revision:
        return Revision(service, 1, RevisionKey("h", self.deployed or self.runs), self.live_image, "", 0.0)

    def history(self, _service: str, _limit: int) -> list[RolloutRecord]:
        return self.records

    def image_id(self, reference: str) -> str | None:
        return self.here.get(reference)

    def offered(self, _reference: str) -> str:
        self.questions += 1
        self.clock.sleep(self.slow)
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


def test_a_choice_that_plain_compose_has_taken_back_keeps_nothing_out(world: World) -> None:
    world.live_image, world.deployed, world.offers = "reg:5000/web:2", "id-chosen", "sha256:new"
    pass_time(world, world.part(), 3600)
    assert len(world.asked) == 1


def test_nothing_is_asked_outside_of_the_window(world: World) -> None:
    world.settings = replace(world.settings, schedule=Schedule(3600.0, windows=NIGHT))
    world.offers = "sha256:new"
    part = world.part()
    pass_time(world, part, at("2026-07-04T02:00") - world.clock.time)
    assert world.questions == 0
    pass_time(world, part, 60)
    assert (world.questions, len(world.asked)) == (1, 1)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_daily_question_falls_in_each_nights_window(world: World, chance: float) -> None:
    """Of 60 nights 37 were asked in, when jitter was added to each day's question."""
    world.settings = replace(world.settings, schedule=Schedule(DAY, 0.1 * DAY, windows("02:00-04:00")))
    world.chance, world.slow = lambda: chance, 30.0
    pass_time(world, world.part(), 60 * DAY)
    assert world.questions == 60


@pytest.mark.parametrize("ahead", [2 * 3600, 365 * DAY])
def test_a_clock_that_is_set_back_is_noticed(world: World, ahead: float) -> None:
    world.clock.time += ahead  # as a host without a clock of its own boots, before it is told the time
    part = world.part()
    part.round()
    world.clock.time -= ahead
    part.round()
    asked = world.questions
    pass_time(world, part, 3 * 3600)
    assert (asked, world.questions) == (2, 4)


def test_a_clock_that_is_set_back_forgets_neither_what_was_asked_for_nor_what_was_told(world: World) -> None:
    world.offers, world.exit_code = "sha256:new", None
    part = world.part()
    part.round()
    world.clock.time -= DAY
    part.round()
    assert len(world.asked) == 1, "it is still under way"
    world.down = True
    pass_time(world, part, 3600)
    world.clock.time -= DAY
    pass_time(world, part, 3600)
    assert [type(event) for event in world.said] == [Notice, Warned]


def test_a_round_that_comes_after_the_window_waits_for_the_next(world: World) -> None:
    world.settings = replace(world.settings, schedule=Schedule(DAY, windows=windows("02:00-04:00")))
    part = world.part()
    part.round()
    world.clock.time = at("2026-07-02T04:00:01")  # the host was asleep
    pass_time(world, part, DAY)
    assert world.questions == 1


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
