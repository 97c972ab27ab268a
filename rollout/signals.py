"""Signals: the first asks for a good end, the second leaves at once. Whatever they hit, the next run can go on from."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rollout import events
from rollout.errors import ExitCode, Interrupted

PATIENCE = 1.0  # seconds the main thread has to leave at the second signal
WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN = "(once more: leave at once; the next run then cleans up)"
BEFORE_SWITCH = f"interrupted: nothing was switched yet, taking back what was started {AGAIN}"
AFTER_SWITCH = f"interrupted: the new version is in the pool already, so this rollout is finished first {AGAIN}"
PAUSED = f"interrupted: the rollout is paused after its switch and stays so {AGAIN}"
UNDOING = f"interrupted: the undo that is under way is finished first {AGAIN}"
SETTLING = f"interrupted: ending as soon as the pool is in order {AGAIN}"


class Interruption:
    """Whether a signal asked us to end; calling it tells. While nothing is touched a signal simply ends what goes on
    (it raises Interrupted); within `guarded` it is left to the rollout, which knows when it may stop."""

    def __init__(self, say: Callable[[str], None], leave: Callable[[], None]) -> None:
        """`say` shows a line, `leave` restores the terminal and ends children; both run in a signal handler."""
        self._say = say
        self._leave = leave
        self._asked = False
        self._guarded = False
        self._sentence = SETTLING
        self._ended: list[str] = []  # services whose rollout, or whose having nothing to do, was told

    def __call__(self) -> bool:
        return self._asked

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle signals for the length of the block. Main thread only. What whoever started us had ignored (`nohup`)
        stays ignored."""
        heeded = [number for number in WATCHED if signal.getsignal(number) is not signal.SIG_IGN]
        former = {number: signal.signal(number, self._handle) for number in heeded}
        arrivals, told = os.pipe()
        os.set_blocking(told, False)
        former_fd = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._count, args=(arrivals,), name="signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(former_fd)
            os.close(told)
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        self._guarded, self._sentence = True, SETTLING
        try:
            yield
        finally:
            self._guarded = False

    def follow(self, event: events.Event) -> None:
        """Hear what goes on, to be able to say what a signal will lead to."""
        if isinstance(event, events.RolloutStarted):
            self._sentence = BEFORE_SWITCH
        elif isinstance(event, events.StepStarted) and event.step == "switch" and self._sentence == BEFORE_SWITCH:
            self._sentence = AFTER_SWITCH
        elif isinstance(event, events.Paused) and self._sentence == AFTER_SWITCH:
            self._sentence = PAUSED
        elif isinstance(event, events.Resumed) and self._sentence == PAUSED:
            self._sentence = AFTER_SWITCH
        elif isinstance(event, events.UndoStarted):
            self._sentence = UNDOING
        elif isinstance(event, events.Finished | events.NothingToDo):
            self._sentence = SETTLING
            self._ended.append(event.service)

    def _count(self, arrivals: int) -> None:
        """The second leaves at once whatever the main thread, where Python's handlers run, is doing: it may be in a
        call that does not end, and two that come before it looks are one to it."""
        came = 0
        while number := os.read(arrivals, 1):
            came += number[0] in WATCHED
            if came > 1:
                # where it does look, it is it that leaves: two would tread on each other; a third signal does not wait
                select.select([arrivals], [], [], PATIENCE)
                leaving = threading.Thread(target=self._leave, daemon=True)
                leaving.start()
                leaving.join(PATIENCE)  # it may wait for what the main thread holds
                os._exit(ExitCode.INTERRUPTED)
        os.close(arrivals)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            self._leave()
            os._exit(ExitCode.INTERRUPTED)
        self._asked = True
        if not self._guarded:
            before = f"{', '.join(self._ended)} ended before, " if self._ended else ""
            raise Interrupted(f"interrupted; {before}nothing {'else ' if before else ''}was touched")
        self._say(self._sentence)
