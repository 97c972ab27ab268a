"""When to ask a registry, and whether its answer is news. Pure: the time and the zone are given.

Windows are of the local clock. A time of day that summer time skips is when it would have come without the change; one
that winter time repeats is the first of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta, tzinfo

from rollout.model import Schedule, Window

DAY = 24 * 60  # minutes
FIRST_PAUSE = 10.0  # seconds after the first failure to reach a registry; they double, up to the interval


def next_question(schedule: Schedule, after: float, now: float, zone: tzinfo, chance: float) -> float:
    """When to ask: `after` seconds from now and a little later, within a window. `chance` (0 to 1) says how much later;
    times are wall clock, seconds since the epoch."""
    wanted = now + after + chance * schedule.jitter
    if not schedule.windows:
        return wanted
    opens, closes = next_opening(schedule.windows, wanted, zone)
    if opens <= wanted:
        return wanted
    return opens + chance * min(schedule.jitter, closes - opens)  # not all hosts at the stroke of two


def is_open(windows: Sequence[Window], now: float, zone: tzinfo) -> bool:
    """Whether it is a time for maintenance; without windows it always is."""
    return not windows or next_opening(windows, now, zone)[0] <= now


def next_opening(windows: Iterable[Window], at: float, zone: tzinfo) -> tuple[float, float]:
    """The window that is open then, or else the next one: when it opens and closes."""
    today = datetime.fromtimestamp(at, zone).date()
    days = [today + timedelta(days=offset) for offset in range(-1, 9)]
    found = [opening for window in windows for opening in _openings(window, days, zone)]
    return min((opens, closes) for opens, closes in found if closes > max(opens, at))


def _openings(window: Window, days: Iterable[date], zone: tzinfo) -> Iterator[tuple[float, float]]:
    for day in days:
        if day.weekday() in window.days:
            last = day if window.ends > window.begins else day + timedelta(days=1)
            yield _instant(day, window.begins, zone), _instant(last, window.ends, zone)


def _instant(day: date, minutes: int, zone: tzinfo) -> float:
    return datetime.combine(day, time(*divmod(minutes, 60)), zone).timestamp()


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
