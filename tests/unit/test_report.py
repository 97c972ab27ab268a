"""The reports: each says every event, none ends a rollout, the receipt tells losses in its first line."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from dataclasses import replace

import pytest

from rollout import events
from rollout.errors import EngineError
from rollout.model import Counters, Finding, Replica, ReplicaState, RevisionKey, Severity, Usage
from rollout.receipt import Receipt
from rollout.report import words
from rollout.report.json import JsonReport
from rollout.report.lines import LinesReport
from rollout.report.live import LiveReport
from rollout.report.naming import Naming
from rollout.report.receipt import outcome, receipt_lines
from rollout.report.relay import Relay
from rollout.report.screen import Screen
from rollout.report.sinks import ERASE, LOADING, Style, report_for

RECEIPT = Receipt(
    service="web", rollout=7, what="deploy", outcome="deployed", strategy="rolling", revision=4, previous=3, replicas=2,
    started_at=0.0, seconds=2.41, phases={"start": 0.31, "check": 0.0524},
    requests={"3": Counters(1204, 0), "4": Counters(388, 0)}, old=Usage(12.3, 45 << 20), new=Usage(0.3, 43 << 20),
)  # fmt: skip
STARTED = events.RolloutStarted("web", 7, "deploy", "rolling", 4, 3, 2, ("start 1 new replica", "drain 0123456789ab"))
STORY: list[events.Event] = [
    STARTED,
    events.StepStarted("web", 0, "start", "start 1 new replica"),
    events.StepProgress("web", 0, "start", "shop-web-3: connection refused"),
    events.StepFinished("web", 0, "start", "start 1 new replica", 0.31),
    events.Notice("web", "an implied health check"),
    events.Warned("web", "nginx-keepalive", "a reload loses requests"),
    events.Finished("web", "deployed", RECEIPT.as_json()),
]


PLAIN = Style()


class StillClock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Gone(io.StringIO):
    """A pipe whose reader has left, a terminal that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def lines_of(story: list[events.Event], style: Style = PLAIN) -> tuple[str, str]:
    results, progress = io.StringIO(), io.StringIO()
    report = LinesReport(style, results, progress, StillClock())
    for event in story:
        report(event)
    report.close()
    return results.getvalue(), progress.getvalue()


# --- lines


def test_one_line_an_event_each_with_time_and_service() -> None:
    results, progress = lines_of(STORY[:-1])
    assert results == ""
    told = progress.splitlines()
    assert len(told) == 5  # progress that comes at once is not worth a line
    assert all(re.match(r"\d\d:\d\d:\d\d web: \S", line) for line in told)
    assert "start 1 new replica: done in 310 ms" in told[2]
    assert told[4].endswith("warning: a reload loses requests [nginx-keepalive]")


def test_every_kind_of_event_has_words_of_its_own() -> None:
    kinds = {kind.__name__ for kind in events.Event.__subclasses__()}
    assert kinds == {kind.__name__ for kind in words._SAYINGS}


def test_progress_is_told_when_it_lasts_and_is_new() -> None:
    clock = StillClock()
    results, progress = io.StringIO(), io.StringIO()
    report = LinesReport(Style(), results, progress, clock)
    report(STORY[1])
    for text in ("refused", "refused", "503"):
        clock.time += 3
        report(events.StepProgress("web", 0, "check", text))
    report(events.StepProgress("web", 0, "check", "too soon"))
    assert [line.split()[-1] for line in progress.getvalue().splitlines()[1:]] == ["refused", "503"]


def test_quiet_leaves_warnings_failures_and_the_outcome() -> None:
    story = [*STORY[:-1], events.StepFailed("web", 1, "check", "it exited with code 1", ("log: boom",)), STORY[-1]]
    results, progress = lines_of(story, Style(quiet=True))
    assert [line.split(" ", 1)[1] for line in progress.splitlines()] == [
        "web: warning: a reload loses requests [nginx-keepalive]",
        "web: check failed: it exited with code 1",
        "web:   log: boom",
    ]
    assert results == "web: deployed revision 4 (was 3) in 2.41 s, no request failed\n"


def test_the_reason_of_an_undo_is_not_said_twice() -> None:
    failed = events.StepFailed("web", 1, "check", "it exited")
    _, progress = lines_of([failed, events.UndoStarted("web", "it exited", ()), events.Undone("web", 0.2)])
    assert progress.count("it exited") == 1
    _, progress = lines_of([events.UndoStarted("web", "the run that began it died", ())])
    assert "the run that began it died" in progress


def test_the_receipt_is_a_result() -> None:
    results, _ = lines_of(STORY)
    assert results.splitlines() == [
        "web: deployed revision 4 (was 3) in 2.41 s, no request failed",
        "  phases    start 310 ms, check 52 ms",
        "  requests  revision 3: 1,204 (0 failed), revision 4: 388 (0 failed)",
        "  cut       no connection",
        "  usage     old 12.30 s CPU 45 MiB, new 300 ms CPU 43 MiB",
    ]


def test_nothing_to_do_is_a_result() -> None:
    results, progress = lines_of([events.NothingToDo("web", 4, 2)])
    assert (results, progress) == ("web: nothing to do: revision 4 runs already (2 replicas)\n", "")


# --- the receipt


@pytest.mark.parametrize(
    ("receipt", "line"),
    [
        (replace(RECEIPT, requests={"4": Counters(9, 1)}), "deployed revision 4 (was 3) in 2.41 s, 1 request FAILED"),
        (
            replace(RECEIPT, requests={"3": Counters(9, 1), "4": Counters(9, 2)}, cut=1),
            "deployed revision 4 (was 3) in 2.41 s, 3 requests FAILED and 1 connection cut",
        ),
        (replace(RECEIPT, cut=3), "deployed revision 4 (was 3) in 2.41 s, 3 connections cut"),
        (
            replace(RECEIPT, requests={}, uncounted="no log"),
            "deployed revision 4 (was 3) in 2.41 s, requests not counted",
        ),
        (replace(RECEIPT, previous=None), "deployed revision 4 in 2.41 s, no request failed"),
        (replace(RECEIPT, what="rollback"), "rolled back to revision 4 (was 3) in 2.41 s, no request failed"),
        (
            replace(RECEIPT, outcome="undone"),
            "not deployed after 2.41 s: revision 4 was taken back, revision 3 serves as before",
        ),
        (
            replace(RECEIPT, outcome="undone", requests={"3": Counters(9, 2)}),
            "not deployed after 2.41 s: revision 4 was taken back, revision 3 serves as before, 2 requests FAILED",
        ),
        (replace(RECEIPT, outcome="interrupted", previous=None), "interrupted after 2.41 s: revision 4 was taken back"),
        (
            replace(RECEIPT, outcome="undone", replicas=0),
            "not deployed after 2.41 s: revision 4 was taken back; no replica of revision 3 runs",
        ),
        (
            replace(RECEIPT, outcome="failed", replicas=0),
            "failed after 2.41 s: revision 4 was neither finished nor taken back",
        ),
    ],
)
def test_the_first_line_tells_what_it_cost(receipt: Receipt, line: str) -> None:
    assert outcome(receipt) == f"web: {line}"


def test_colors_only_when_asked_for() -> None:
    assert "\x1b" not in "".join(receipt_lines(RECEIPT.as_json()))
    good = receipt_lines(RECEIPT.as_json(), color=True)[0]
    lossy = receipt_lines(replace(RECEIPT, requests={"4": Counters(9, 1)}).as_json(), color=True)[0]
    assert good.startswith("\x1b[1;32m")
    assert lossy.startswith("\x1b[1;33m")


def test_no_request_at_all_is_said() -> None:
    assert "  requests  none" in receipt_lines(replace(RECEIPT, requests={}).as_json())


def test_why_requests_are_not_counted() -> None:
    told = receipt_lines(replace(RECEIPT, requests={}, uncounted="no log").as_json())
    assert "  requests  not counted: no log" in told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0524, "52 ms"),
        (0.9996, "1.00 s"),
        (2.414, "2.41 s"),
        (185, "3 min 05 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(13 << 20, "13 MiB"), (1536 << 20, "1.50 GiB"), (0, "0 MiB")])
def test_memory(count: int, text: str) -> None:
    assert words.memory(count) == text


# --- json


def test_json_is_one_object_a_line_and_the_receipt_comes_last() -> None:
    results = io.StringIO()
    report = JsonReport(results)
    for event in STORY:
        report(event)
    told = [json.loads(line) for line in results.getvalue().splitlines()]
    assert [one["event"] for one in told] == [events.kind(event) for event in STORY]
    assert told[-1]["receipt"]["requests"]["4"] == {"requests": 388, "failed": 0}
    assert Receipt.from_json(told[-1]["receipt"]) == RECEIPT


def test_a_reader_that_has_gone_does_not_end_the_rollout() -> None:
    JsonReport(Gone())(STARTED)
    lines = LinesReport(Style(), Gone(), Gone(), StillClock())
    live = LiveReport(Style(live=True), Gone(), Gone(), StillClock())
    for event in STORY:
        lines(event)
        live(event)
    live.close()


def test_a_signal_whose_words_nobody_reads_ends_no_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_fd: int, _data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", write)
    for style in (Style(), Style(json=True), Style(live=True)):
        report_for(style, Gone(), Gone(), StillClock()).interrupting("taking back what was started")


# --- live


def test_the_live_view_ends_with_all_steps_ticked_and_the_cursor_shown() -> None:
    results, progress = io.StringIO(), io.StringIO()
    report = LiveReport(Style(live=True), results, progress, StillClock())
    for event in STORY:
        report(event)
    report.close()
    shown = progress.getvalue()
    assert "✓" in shown
    assert "start 1 new replica" in shown
    assert "warning: a reload loses requests" in shown
    assert results.getvalue().startswith("web: deployed revision 4")
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")


def test_before_the_first_event_a_line_says_that_it_reads_and_goes_away() -> None:
    results, progress = io.StringIO(), io.StringIO()
    report = report_for(Style(live=True), results, progress, StillClock())
    assert progress.getvalue() == LOADING
    report.close()
    assert progress.getvalue() == LOADING + ERASE


def test_the_screen_tells_waiting_running_done_and_failed_apart() -> None:
    screen = Screen(StillClock())
    for event in STORY[:4]:
        screen.hear(event)
    assert [(row.text, row.state) for row in screen.visible(10)] == [
        ("start 1 new replica", "done"), ("drain 0123456789ab", "waiting"),
    ]  # fmt: skip
    screen.hear(events.StepStarted("web", 1, "drain", "drain"))
    screen.hear(events.StepProgress("web", 1, "drain", "a: 1"))
    screen.hear(events.StepProgress("web", 1, "drain", "b: 1"))
    screen.hear(events.StepProgress("web", 1, "drain", "a: 2"))
    assert screen.visible(10)[1].lines() == ["a: 2", "b: 1"]
    screen.hear(events.StepFailed("web", 1, "drain", "engine gone"))
    assert screen.visible(10)[1].lines() == ["engine gone"]


def test_an_undo_comes_below_what_was_done() -> None:
    screen = Screen(StillClock())
    for event in STORY[:2]:
        screen.hear(event)
    screen.hear(events.StepFailed("web", 0, "start", "no"))
    screen.hear(events.UndoStarted("web", "no", ("stop x",)))
    screen.hear(events.StepStarted("web", 0, "stop", "stop x"))
    assert [(row.text, row.state) for row in screen.visible(10)] == [
        ("start 1 new replica", "failed"), ("undoing", "heading"), ("stop x", "running"),
    ]  # fmt: skip


def test_a_recovery_shows_steps_that_nobody_announced() -> None:
    screen = Screen(StillClock())
    screen.hear(events.Recovering("web", "rollout 6 was left running: finishing it"))
    screen.hear(events.StepStarted("web", 0, "drain", "drain x"))
    screen.hear(events.StepStarted("web", 1, "stop", "stop x"))
    assert [row.text for row in screen.visible(10)] == ["drain x", "stop x"]


def test_a_long_plan_shows_what_is_around_the_present_step() -> None:
    screen = Screen(StillClock())
    screen.hear(replace(STARTED, steps=tuple(f"step {n}" for n in range(50))))
    screen.hear(events.StepStarted("web", 25, "drain", "step 25"))
    rows = screen.visible(11)
    assert len(rows) <= 13
    assert rows[0].text == "20 more above"
    assert "step 25" in [row.text for row in rows]
    assert rows[-1].text == "19 more to come"


# --- between core and report


def finding(code: str = "nginx-keepalive", severity: Severity = Severity.WARNING) -> Finding:
    return Finding(severity, code, "nginx.conf:4", "loses requests", "keepalive_timeout 0;")


def test_findings_are_told_once_and_before_the_receipt() -> None:
    heard: list[events.Event] = []
    looked = threading.Event()

    def look() -> list[Finding]:
        looked.wait(10)
        return [finding(), finding(), finding("other")]

    relay = Relay(heard.append, look)
    relay(STORY[0])
    looked.set()
    relay(STORY[-1])
    relay(STORY[-1])
    assert [events.kind(e) for e in heard] == ["rollout_started", "warned", "warned", "finished", "finished"]
    assert heard[1] == events.Warned(
        "web", "nginx-keepalive", "nginx.conf:4: loses requests; write: keepalive_timeout 0;"
    )


def test_a_proxy_that_cannot_be_asked_fails_nothing() -> None:
    def look() -> list[Finding]:
        raise EngineError("gone")

    heard: list[events.Event] = []
    Relay(heard.append, look)(STORY[-1])
    assert heard == [STORY[-1]]


def test_people_read_names_where_plans_have_ids() -> None:
    replica = Replica("0123456789ab" + "c" * 52, "shop-web-1", "web", 1, RevisionKey("", ""), ReplicaState.RUNNING)
    heard: list[events.Event] = []
    naming = Naming(heard.append, lambda service: [replica])
    naming(STARTED)
    naming(events.StepStarted("web", 1, "drain", "drain 0123456789ab"))
    assert heard[0] == replace(STARTED, steps=("start 1 new replica", "drain shop-web-1"))
    assert heard[1] == events.StepStarted("web", 1, "drain", "drain shop-web-1")
