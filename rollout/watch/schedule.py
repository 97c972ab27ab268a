"""When to ask a registry, and whether its answer is news. Pure: the time and the zone are given.

Windows are of the local clock. A time of day that summer time skips is when it would have come without the change; one
that winter time repeats is the first of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta, tzinfo

from rollout.model import Schedule, Window

DAY = 86_400.0  # seconds
LATE = 60.0  # seconds that a question may come late by itself: the round before it took its time
FIRST_PAUSE = 10.0  # seconds after the first failure to reach a registry; they double, up to the interval
SEARCHED = 16  # days looked through for an opening: a weekly window that summer time skips comes again after 14


def first_question(schedule: Schedule, now: float, zone: tzinfo, chance: float) -> float:
    """When to ask for the first time: now and a little later, within a window. `chance` (0 to 1) says how much later;
    times are wall clock, seconds since the epoch."""
    return _within(schedule.windows, now, schedule.jitter, zone, chance)


def next_question(schedule: Schedule, asked: float, pause: float, zone: tzinfo, chance: float) -> float:
    """When to ask again: `pause` seconds after the question before and a little later, within a window. With windows an
    interval of days counts without what jitter has added since the window opened: added each time, it would soon miss
    every other window."""
    whole = schedule.windows and pause >= schedule.interval >= DAY
    earliest = _an_interval_on(schedule, asked, zone) if whole else asked + pause
    return _within(schedule.windows, earliest, min(schedule.jitter, pause), zone, chance)


def _an_interval_on(schedule: Schedule, asked: float, zone: tzinfo) -> float:
    late = min(schedule.jitter, schedule.interval / 2)  # the half: else a long jitter has it ask at once
    opened = _opening(schedule.windows, asked, zone)[2]
    in_time = asked - max(late, LATE) <= opened.timestamp() <= asked
    since = opened if in_time else datetime.fromtimestamp(asked - late, zone)
    days, rest = divmod(schedule.interval, DAY)
    # of the local clock, as windows are: one that summer time brings after 23 hours is not missed
    return (since + timedelta(days=days)).timestamp() + rest


def _within(windows: Sequence[Window], earliest: float, spread: float, zone: tzinfo, chance: float) -> float:
    """Not all hosts at the stroke of two, and none so late that the window has closed when it asks."""
    if not windows:
        return earliest + chance * spread
    opens, closes = next_opening(windows, earliest, zone)
    begins = max(opens, earliest)
    return begins + chance * min(spread, (closes - begins) / 2)


def is_open(windows: Sequence[Window], now: float, zone: tzinfo) -> bool:
    """Whether it is a time for maintenance; without windows it always is."""
    return not windows or next_opening(windows, now, zone)[0] <= now


def next_opening(windows: Iterable[Window], at: float, zone: tzinfo) -> tuple[float, float]:
    """The window that is open then, or else the next one: when it opens and closes."""
    return _opening(windows, at, zone)[:2]


def _opening(windows: Iterable[Window], at: float, zone: tzinfo) -> tuple[float, float, datetime]:
    """As `next_opening`, and when it opens by the local clock, which may have skipped that time."""
    today = datetime.fromtimestamp(at, zone).date()
    days = [today + timedelta(days=offset) for offset in range(-1, SEARCHED)]
    found = [
        (opens.timestamp(), closes.timestamp(), opens)
        for window in windows
        for opens, closes in _openings(window, days, zone)
    ]
    return min(opening for opening in found if opening[1] > max(opening[0], at))


def _openings(window: Window, days: Iterable[date], zone: tzinfo) -> Iterator[tuple[datetime, datetime]]:
    for day in days:
        if day.weekday() in window.days:
            last = day if window.ends > window.begins else day + timedelta(days=1)
            yield _local(day, window.begins, zone), _local(last, window.ends, zone)


def _local(day: date, minutes: int, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(*divmod(minutes, 60)), zone)


def pause_after(failures: int, schedule: Schedule) -> float:
    """Seconds until a registry is asked again that has failed so many times in a row; 0 failures: the interval."""
    if failures == 0:
        return schedule.interval
    from tenacity import RetryCallState, Retrying, wait_exponential

    grow = wait_exponential(multiplier=FIRST_PAUSE, max=max(schedule.interval, FIRST_PAUSE))
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = failures
    return grow(state)


def is_news(offered: str, running: Sequence[frozenset[str]], *, tried: bool) -> bool:
    """Whether to deploy what the registry offers. `running` are the digests of each replica's image. `tried`: it is
    what was deployed last; where it does not run all the same, it failed or somebody went back from it, and it is not
    for a clock to overrule them. Where nothing runs there is nothing to renew."""
    return bool(running) and not tried and not any(offered in digests for digests in running)
