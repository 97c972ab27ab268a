"""The part that asks registries for newer images (`x-rollout.schedule`), and has them deployed within a window."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from rollout.compose import Options
from rollout.engines.docker import DockerRegistry
from rollout.errors import RolloutError, UsageError
from rollout.events import Notice, Sink, Warned
from rollout.model import Project, Schedule
from rollout.ports import Clock, Registry
from rollout.server.operations import Asked, Operations
from rollout.steps.run import Ports
from rollout.targets import live_revision
from rollout.watch.schedule import first_question, is_news, is_open, next_question, pause_after
from rollout.wiring import wire

LONGEST_WAIT = 60.0  # seconds; within it a changed schedule, or a clock that was set, is noticed
SEARCHED = 50  # rollouts looked through for the last deploy
LOCAL_TIME = "/etc/localtime"


@dataclass(frozen=True, slots=True)
class Looking:
    """What one round of questions needs."""

    ports: Ports
    registry: Registry


@dataclass(frozen=True, slots=True)
class _Next:
    schedule: Schedule
    at: float  # wall clock
    failures: int = 0  # questions in a row that the registry did not answer
    operation: int = 0  # the deploy that was asked for last


class Scheduling:
    """`project` is the project as it is now; `look` opens what a round needs. `chance` answers 0 to 1."""

    name = "schedule"

    def __init__(
        self,
        project: Callable[[], Project],
        look: Callable[[], AbstractContextManager[Looking]],
        operations: Operations,
        clock: Clock,
        emit: Sink,
        *,
        zone: Callable[[], tzinfo] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._project, self._look, self._operations = project, look, operations
        self._clock, self._emit, self._chance = clock, emit, chance
        self._zone = zone or (lambda: local_zone(os.environ))
        self._agenda: dict[str, _Next] = {}
        self._before = 0.0  # wall clock at the round before
        self._left: dict[str, str] = {}  # service -> the image that somebody has chosen instead
        self._trouble = ""

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self.round()):
            pass

    def round(self) -> float:
        """Ask for each service whose time has come; answers in how many seconds the next round is."""
        now, services = self._clock.wall(), self._project().services
        schedules = {name: settings.schedule for name, settings in services.items() if settings.schedule}
        try:
            self._agenda = {name: self._planned(name, schedule, now) for name, schedule in schedules.items()}
            self._before = now
            due = [name for name, entry in self._agenda.items() if entry.at <= now]
            if due:
                with self._look() as looking:
                    for name in due:
                        self._agenda[name] = self._ask(looking, name, services[name].image, self._agenda[name])
        except RolloutError as error:  # the engine, the project or TZ: not one service's affair
            if error.message != self._trouble:
                self._trouble = error.message
                self._emit(Warned("", "schedule", f"schedules are not followed: {error.message}"))
            return LONGEST_WAIT
        self._trouble = ""
        pauses = [entry.at - self._clock.wall() for entry in self._agenda.values()]
        return max(0.0, min([LONGEST_WAIT, *pauses]))

    def _planned(self, name: str, schedule: Schedule, now: float) -> _Next:
        known = self._agenda.get(name)
        if known is not None and known.schedule == schedule and now >= self._before:
            return known
        # another schedule, or a clock that was set back: what was planned may be a year away
        at = first_question(schedule, now, self._zone(), self._chance())
        return _Next(schedule, at) if known is None else replace(known, schedule=schedule, at=at)

    def _ask(self, looking: Looking, service: str, image: str, entry: _Next) -> _Next:
        schedule, asked, zone = entry.schedule, self._clock.wall(), self._zone()
        if not is_open(schedule.windows, asked, zone):  # this round is late
            return replace(entry, at=first_question(schedule, asked, zone, self._chance()))
        failures, operation = 0, entry.operation
        try:
            offered = looking.registry.offered(image)
        except RolloutError as error:
            failures, asked = entry.failures + 1, self._clock.wall()  # it may have taken long to fail
            if failures == 1:
                self._emit(Warned(service, "registry", error.message))
        else:
            if entry.failures:
                self._emit(Notice(service, f"the registry answers again for {image}"))
            operation = self._take_up(looking, service, image, offered, entry.operation)
        at = next_question(schedule, asked, pause_after(failures, schedule), zone, self._chance())
        return _Next(schedule, at, failures, operation)

    def _take_up(self, looking: Looking, service: str, image: str, offered: str, last: int) -> int:
        under_way = self._operations.get(last) if last else None
        if under_way is not None and under_way.exit_code is None:
            return last
        if not _is_news(looking, service, image, offered):
            return last
        chosen = _chosen_instead(looking.ports, service, image)
        if chosen:
            if self._left.get(service) != chosen:
                self._emit(Notice(service, f"a new image for {image} is left alone: somebody has deployed {chosen}"))
            self._left[service] = chosen
            return last
        self._left.pop(service, None)
        self._emit(Notice(service, f"the registry has a new image for {image}: {offered}"))
        return self._operations.submit(Asked("deploy", (service,), "schedule", pull="always")).id


def looking(options: Options, clock: Clock, emit: Sink) -> Callable[[], AbstractContextManager[Looking]]:
    """Rounds with the project loaded anew: they are an hour apart, and nothing is kept open between them."""

    @contextmanager
    def look() -> Iterator[Looking]:
        with wire(options, (), clock, emit) as wired:
            yield Looking(wired.ports, DockerRegistry(wired.connection))

    return look


def _is_news(looking: Looking, service: str, image: str, offered: str) -> bool:
    ports, registry = looking.ports, looking.registry
    warm = ports.journal.warm(service)
    resting = frozenset(warm.replicas if warm else ())
    replicas = [r for r in ports.engine.replicas(service) if r.running and r.id not in resting]
    running = [registry.digests(image_id) for image_id in {r.key.image_id for r in replicas}]
    return is_news(offered, running, tried=_deployed_last(ports, service, f"{_repository(image)}@{offered}"))


def _chosen_instead(ports: Ports, service: str, image: str) -> str:
    """The image that a webhook or `--image` has deployed instead of the Compose file's; empty when none has."""
    live = live_revision(ports.journal, service, ports.engine.replicas(service), ports.proxy.pool(service))
    return live.image if live is not None and image and live.image != image else ""


def _deployed_last(ports: Ports, service: str, reference: str) -> bool:
    """Whether the last deploy that was seen through, well or badly, was of this image."""
    here = ports.images.image_id(reference)
    history = ports.journal.history(service, SEARCHED)
    last = next((record for record in history if record.what == "deploy" and record.state != "interrupted"), None)
    return here is not None and last is not None and last.target.key.image_id == here


def _repository(image: str) -> str:
    name, colon, tag = image.rpartition(":")
    return name if colon and "/" not in tag else image  # a colon before a slash belongs to a registry's port


def local_zone(environ: Mapping[str, str]) -> tzinfo:
    """The zone that TZ names, else this host's, else UTC. Raises UsageError for a TZ that names none."""
    name = environ.get("TZ", "").lstrip(":")
    try:
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        with Path(name or LOCAL_TIME).open("rb") as file:
            return ZoneInfo.from_file(file)
    except (KeyError, ValueError) as error:
        raise UsageError(f"TZ={name} names no time zone", hint="like TZ=Europe/Berlin; the data is tzdata's") from error
    except OSError:
        return UTC
