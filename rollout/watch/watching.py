"""The story of watching: changes are gathered, decided upon, carried out; what comes meanwhile is taken up after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from rollout.errors import DeployFailed, Interrupted, NotUndone, RolloutError, StateError
from rollout.ports import Clock
from rollout.waiting import Backoff
from rollout.watch.changes import Changes
from rollout.watch.decision import Seen, Work, decide, difference
from rollout.watch.observer import Observer

PATIENCE = 0.5  # seconds within which the end is noticed, and a directory that was made anew


class Doing(Protocol):
    """How things are done: by this process, or by the sidecar's operations. All raise RolloutErrors."""

    def read(self) -> Seen:
        """The project as the files say it now."""

    def apply(self, services: Sequence[str]) -> None:
        """Render these services' configuration again and switch to it: tested first, and seen live."""

    def deploy(self, service: str, *, build: bool) -> None: ...


class Watching:
    """`first` is what there is to do before anything changes. `tell` is given what went wrong, a fault in the files
    only once. `busy`: something is being done. Raises what `doing.read` raises."""

    def __init__(
        self, doing: Doing, clock: Clock, tell: Callable[[RolloutError], None], *, first: Callable[[Seen], Work]
    ) -> None:
        self._doing = doing
        self._tell = tell
        self._changes = Changes(clock)
        self._observer = Observer(self._hear)
        self.seen = doing.read()  # as it was taken up last
        self._pending = first(self.seen)
        self._told = ""
        self._again = Backoff(clock)
        self.busy = False

    def run(self, ended: Callable[[], bool]) -> None:
        """Until `ended`, or interrupted. Raises StateError where nothing can be watched."""
        with self._observer as observer:
            observer.watch(self.seen.scope.places())
            self._take_up(frozenset())
            while not ended():
                changed = self._changes.take(PATIENCE)
                if changed or self.due():
                    self._take_up(changed)
                self._renew(observer)

    def due(self) -> bool:
        """Whether what could not be begun is to be tried again."""
        return self._again.due()

    def _take_up(self, changed: frozenset[str]) -> None:
        self.busy = True
        try:
            self.take_up(changed)
        finally:
            self.busy = False

    def take_up(self, changed: frozenset[str]) -> None:
        """Do what these changes ask for. What could not be begun is tried again, by and by and with the next change;
        what failed is not: another edit will mend it, and ask again."""
        self._pending |= decide(self.seen.scope, changed)
        if changed:
            self._again.reset()
        try:
            if self._pending.read:
                self._read()
            if self._pending.apply:
                self._doing.apply([name for name in self.seen.order if name not in self._pending.deploy])
                self._pending = replace(self._pending, apply=False)
            self._deploy()
            self._told = ""
            self._again.reset()
        except Interrupted:
            raise
        except RolloutError as error:
            self._again.failed()
            self._tell_once(error)

    def _read(self) -> None:
        before, self.seen = self.seen, self._doing.read()
        self._pending |= difference(before, self.seen)
        self._observer.watch(self.seen.scope.places())
        self._pending = replace(self._pending, read=False)

    def _deploy(self) -> None:
        """One that cannot be begun holds up no other; raises what stood in the way of the first, after them all."""
        in_the_way: list[RolloutError] = []
        for name in [name for name in self.seen.order if name in self._pending.deploy]:
            try:
                self._deploy_one(name)
            except Interrupted:
                raise
            except RolloutError as error:
                in_the_way.append(error)
        if in_the_way:
            raise in_the_way[0]

    def _deploy_one(self, name: str) -> None:
        try:
            self._doing.deploy(name, build=name in self._pending.build)
        except (DeployFailed, NotUndone) as error:
            self._tell(error)
            self._pending = replace(self._pending, read=True)  # a file that is not watched may have changed
        self._pending = self._pending.without(name)

    def _renew(self, observer: Observer) -> None:
        try:
            observer.renew()
        except StateError as error:
            self._tell_once(error)

    def _tell_once(self, error: RolloutError) -> None:
        text = "\n".join([error.message, *error.details])
        if text != self._told:
            self._tell(error)
        self._told = text

    def _hear(self, path: str) -> None:
        if self.seen.scope.concerns(path):
            self._changes.add(path)
