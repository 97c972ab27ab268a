"""What people ask of a rollout while it goes on: pause, resume, abort, promote.

A wish is a row in the journal, so it reaches the rollout whichever process performs it. That one looks between its
steps and within the waits that last; nothing else is sent to it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollout.errors import StateError, UsageError
from rollout.ports import Clock, Journal, RolloutRecord, Wished

GLANCE = 0.25  # seconds; within a wait, a wish is seen this soon
BY_FAILURE_ACTION = "failure_action"  # who pauses as `update_config.failure_action: pause` says
BY_NEXT_RUN = "the next deploy"
LONGEST_NAME = 200


class Wish(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class Standing:
    """What all the wishes of a rollout amount to. Each field: by whom, empty when it is not so."""

    paused: str = ""
    resumed: str = ""
    aborted: str = ""
    promoted: str = ""


def standing(wishes: Sequence[Wished]) -> Standing:
    """The newest of pause and resume counts; an abort and a promotion stay."""
    by = {wished.wish: wished.who for wished in wishes}
    stops = [wished for wished in wishes if wished.wish in (Wish.PAUSE, Wish.RESUME)]
    paused = bool(stops) and stops[-1].wish == Wish.PAUSE
    return Standing(
        paused=stops[-1].who if paused else "",
        resumed=stops[-1].who if stops and not paused else "",
        aborted=by.get(Wish.ABORT, ""),
        promoted=by.get(Wish.PROMOTE, ""),
    )


def ask(journal: Journal, service: str, wish: Wish, who: str, *, at_work: bool = True) -> RolloutRecord:
    """Ask the rollout of this service that is under way for it; answers the rollout.

    `who` is kept with it: `cli:anna`, `api:ci`. `at_work`: whether any process performs the rollout now (someone holds
    the service's lock). Raises UsageError for what makes no sense, nothing asked; StateError.
    """
    if not who.isprintable() or not 0 < len(who) <= LONGEST_NAME:
        raise UsageError("who asks must be one line of text", hint="like cli:anna")
    record = journal.unfinished(service)
    if record is None:
        raise UsageError(
            f"service {service}: no rollout is under way", hint=f"`rollout history {service}` shows past ones"
        )
    now = standing(journal.wishes(record.id))
    refused = _REFUSE[wish](record, now, journal.last_step(record.id), at_work)
    if refused:
        reason, hint = refused
        raise UsageError(f"service {service}: rollout {record.id} {reason}", hint=hint.format(service=service))
    journal.wish(record.id, wish, who)
    return record


def stays_paused(journal: Journal, record: RolloutRecord) -> bool:
    """Whether whoever was not asked to deploy has to leave this rollout as it is."""
    now = standing(journal.wishes(record.id))
    return bool(now.paused) and not now.aborted


def condition(record: RolloutRecord, now: Standing, last_step: str) -> str:
    """What an unfinished rollout is doing: running | held | paused | aborting | undoing."""
    if record.state == "undoing":
        return "undoing"
    if now.aborted:
        return "aborting"
    if now.paused:
        return "paused"
    return "held" if _is_held(now, last_step) else "running"


class Wishes:
    """The wishes of a rollout as its performer sees them. Safe from several threads. A journal that cannot be read
    changes nothing: what was known last is answered."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._lock = threading.Lock()
        self._known: dict[int, Standing] = {}
        self._looked_at = float("-inf")

    def of(self, rollout: int, *, fresh: bool = False) -> Standing:
        """Read at most every GLANCE seconds, unless `fresh`. Rollout 0 is none."""
        if not rollout:
            return Standing()
        with self._lock:
            if fresh or rollout not in self._known or self._clock.now() - self._looked_at >= GLANCE:
                self._look(rollout)
            return self._known[rollout]

    def _look(self, rollout: int) -> None:
        self._looked_at = self._clock.now()
        try:
            self._known[rollout] = standing(self._journal.wishes(rollout))
        except StateError:
            self._known.setdefault(rollout, Standing())


# --- what makes no sense, and why: (reason, hint), None when it makes sense

Refusal = tuple[str, str] | None


def _over(record: RolloutRecord, now: Standing) -> Refusal:
    if record.state == "undoing":
        return "is being taken back already", "wait for it, or see `rollout status {service}`"
    if now.aborted:
        return f"is being aborted already, asked by {now.aborted}", "wait for it, or see `rollout status {service}`"
    return None


def _pause(record: RolloutRecord, now: Standing, _: str, at_work: bool) -> Refusal:
    if now.paused:
        return f"is paused already, by {now.paused}", "`rollout resume {service}` or `rollout abort {service}`"
    if not at_work:
        return (
            "has lost its process: there is nothing to pause",
            "`rollout sync {service}` finishes it or takes it back",
        )
    return _over(record, now)


def _resume(record: RolloutRecord, now: Standing, _: str, at_work: bool) -> Refusal:
    return _over(record, now) or (None if now.paused else ("is not paused", "see `rollout status {service}`"))


def _abort(record: RolloutRecord, now: Standing, last_step: str, at_work: bool) -> Refusal:
    if last_step in ("remove", "keep_warm"):
        return (
            "has put the new version in place already, and its old containers are going",
            "`rollout rollback {service}` goes back to the version before",
        )
    return _over(record, now)


def _promote(record: RolloutRecord, now: Standing, last_step: str, at_work: bool) -> Refusal:
    if record.switched:
        return "has switched already: there is nothing to promote", "see `rollout status {service}`"
    if now.promoted:
        return f"is promoted already, by {now.promoted}", "see `rollout status {service}`"
    if not _is_held(now, last_step):
        return (
            "is not held: there is nothing to promote",
            "with promotion: manual it waits before its switch; `rollout status {service}` says when",
        )
    if not at_work:
        return (
            "has lost the process that held it; it is taken back before anything else",
            "`rollout deploy {service}` begins again",
        )
    return _over(record, now)


def _is_held(now: Standing, last_step: str) -> bool:
    return last_step == "hold" and not now.promoted


_REFUSE = {Wish.PAUSE: _pause, Wish.RESUME: _resume, Wish.ABORT: _abort, Wish.PROMOTE: _promote}
