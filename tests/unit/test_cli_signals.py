"""Signals: what the first leads to depends on how far a rollout is; the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from rollout import events, signals
from rollout.errors import Interrupted
from rollout.signals import Interruption

STARTED = events.RolloutStarted("web", 1, "deploy", "rolling", 2, 1, 2, ("start",))
SWITCHING = events.StepStarted("web", 2, "switch", "switch")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def interruption(said: list[str]) -> Iterator[Interruption]:
    found = Interruption(said.append, lambda: None)
    with found.watching():
        yield found


@pytest.mark.parametrize("number", signals.WATCHED)
def test_while_nothing_is_touched_a_signal_ends_what_goes_on(interruption: Interruption, number: int) -> None:
    with pytest.raises(Interrupted, match=r"^interrupted; nothing was touched$"):
        os.kill(os.getpid(), number)
    assert interruption()


def test_between_two_services_it_is_said_which_are_done(interruption: Interruption) -> None:
    for event in (events.Finished("api", "deployed"), events.NothingToDo("job", 3, 1)):
        interruption.follow(event)
    with pytest.raises(Interrupted, match=r"^interrupted; api, job ended before, nothing else was touched$"):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("heard", "sentence"),
    [
        ([], signals.SETTLING),
        ([STARTED], signals.BEFORE_SWITCH),
        ([STARTED, SWITCHING], signals.AFTER_SWITCH),
        ([STARTED, SWITCHING, events.UndoStarted("web", "unhealthy", ())], signals.UNDOING),
        ([STARTED, events.UndoStarted("web", "unhealthy", ()), SWITCHING], signals.UNDOING),
        ([STARTED, SWITCHING, events.Finished("web", "deployed")], signals.SETTLING),
        ([STARTED, SWITCHING, events.Finished("web", "deployed"), STARTED], signals.BEFORE_SWITCH),
    ],
)
def test_during_a_rollout_it_is_asked_to_end_and_says_how(
    interruption: Interruption, said: list[str], heard: list[events.Event], sentence: str
) -> None:
    with interruption.guarded():
        for event in heard:
            interruption.follow(event)
        os.kill(os.getpid(), signal.SIGTERM)
    assert interruption()
    assert said == [sentence]


def test_the_second_leaves_at_once() -> None:
    code = """
import os, signal
from rollout.signals import Interruption
interruption = Interruption(lambda text: None, lambda: print("left", flush=True))
with interruption.watching(), interruption.guarded():
    os.kill(os.getpid(), signal.SIGINT)
    print("going on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stdout.split("\n")[:-1] == ["going on", "left"]


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in signals.WATCHED]
    with Interruption(lambda text: None, lambda: None).watching():
        assert [signal.getsignal(number) for number in signals.WATCHED] != before
    assert [signal.getsignal(number) for number in signals.WATCHED] == before
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize("number", signals.WATCHED)
def test_what_the_program_was_told_to_ignore_stays_ignored(said: list[str], number: int) -> None:
    """`nohup` ignores the terminal's end, a shell without job control its key for an interruption."""
    former = signal.signal(number, signal.SIG_IGN)
    try:
        found = Interruption(said.append, lambda: None)
        with found.watching():
            os.kill(os.getpid(), number)
            with found.guarded():
                os.kill(os.getpid(), number)
            assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
        assert (found(), said) == (False, [])
    finally:
        signal.signal(number, former)


DEAF = """
import signal, threading
from rollout.signals import WATCHED, Interruption
found = Interruption(print, lambda: print("left", flush=True))
with found.watching(), found.guarded():
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    print("deaf", flush=True)
    threading.Event().wait()
"""


def test_the_second_leaves_although_the_main_thread_hears_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "deaf\n"
    for _ in range(100):  # two at once may be one to the kernel
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    assert process.wait(10) == 130
    assert process.stdout.read().endswith("left\n")
    process.stdout.close()
