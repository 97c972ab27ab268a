"""The live view on a terminal: the steps with ticks and times, what the current one waits for; warnings stay above it.

What it shows is kept in `Screen`; rich only draws it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import IO, Any, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rollout import events
from rollout.ports import Clock
from rollout.report.receipt import receipt_lines
from rollout.report.screen import Row, Screen
from rollout.report.sinks import Style
from rollout.report.words import duration, said

FRAMES_PER_SECOND = 10
MARKS = {"done": Text("✓", "green"), "failed": Text("✗", "bold red"), "waiting": Text("·", "dim")}
TONES = {
    events.Warned: "yellow", events.Recovering: "yellow", events.Notice: "", events.Held: "bold yellow",
    events.Promoted: "", events.Paused: "bold yellow", events.Resumed: "", events.Aborting: "yellow",
    events.ComposeOutput: "dim", events.HookOutput: "dim",
}  # fmt: skip


class _Lasting:
    """A stream whose end is nobody's problem: rich would exit the program in the middle of a rollout."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LiveReport:
    """A Report on a terminal. A terminal that has gone away does not end the rollout."""

    def __init__(self, style: Style, results: TextIO, progress: TextIO, clock: Clock) -> None:
        self._style, self._results, self._clock = style, results, clock
        file = cast("IO[str]", _Lasting(progress))
        self._console = Console(file=file, no_color=not style.color, highlight=False, emoji=False, markup=False)
        self._screen = Screen(clock)
        self._spinner = Spinner("dots", style="cyan")
        self._live: Live | None = None
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            self._show(event)

    def interrupting(self, text: str) -> None:
        self._screen.interruption = text  # drawn with the next frame

    def close(self) -> None:
        self._stop()

    # --- within -------------------------------------------------------------------------------------------------

    def _show(self, event: events.Event) -> None:
        self._screen.hear(event)
        if isinstance(event, events.Finished):
            self._stop()
            self._print_results(receipt_lines(event.receipt, color=self._style.color))
        elif isinstance(event, events.NothingToDo):
            self._stop()
            self._print_results([f"{event.service}: {said(event)}"])
        elif isinstance(event, events.RolloutStarted | events.Recovering):
            self._start()
        if type(event) in TONES:
            self._above(event)
        elif isinstance(event, events.StepFailed):
            for line in event.details:
                self._console.print(Text(f"  {line}", "dim"))

    def _above(self, event: events.Event) -> None:
        prefix = f"{event.service}: " if event.service else ""
        self._console.print(Text(prefix + said(event), TONES[type(event)]))

    def _start(self) -> None:
        self._stop()
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=FRAMES_PER_SECOND,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _print_results(self, lines: list[str]) -> None:
        with suppress(OSError):
            self._results.write("".join(f"{line}\n" for line in lines))
            self._results.flush()

    def _draw(self) -> RenderableType:
        screen = self._screen
        table = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "left", "right"):
            table.add_column(justify=justify)
        for row in screen.visible(max(6, self._console.height - 6)):
            table.add_row(" ", self._mark(row), row.text, Text(self._time(row), "dim"))
            for line in row.lines():
                table.add_row("", "", Text(f"  {line}", "red" if row.state == "failed" else "dim"), "")
        parts: list[RenderableType] = [Text(screen.title, "bold"), table]
        if screen.interruption:
            parts.append(Text(screen.interruption, "bold yellow"))
        return Group(*parts)

    def _mark(self, row: Row) -> RenderableType:
        return self._spinner if row.state == "running" else MARKS.get(row.state, Text(" "))

    def _time(self, row: Row) -> str:
        if row.state == "running":
            return duration(self._clock.now() - row.begun)
        return duration(row.seconds) if row.state in ("done", "failed") and row.seconds else ""
