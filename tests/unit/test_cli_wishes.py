"""A wish from the command line is in the sidecar's audit record, as one that the sidecar is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from rollout.cli import wishes
from rollout.clock import SystemClock
from rollout.errors import StateError
from rollout.journal import SqliteJournal
from rollout.server.audit import Audit
from rollout.state import StateDirectory
from tests.api.bench import remember

AT_WORK = SimpleNamespace(holder=lambda service: {})  # of the lock: a process performs the rollout


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Iterator[SqliteJournal]:
    """Of a rollout of `web` that is under way as number 2, in the project that the command line finds."""
    clock = SystemClock()
    journal = SqliteJournal(tmp_path / "state.db", clock)
    remember(journal)
    ports = SimpleNamespace(journal=journal)
    wired = SimpleNamespace(state=StateDirectory(tmp_path), ports=ports, lock=AT_WORK)

    @contextmanager
    def project(wanted: Any, *, looks_only: bool) -> Iterator[SimpleNamespace]:
        yield wired

    @contextmanager
    def session(ctx: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(clock=clock, project=project, show=lambda data, text, indent: said.append(text()))

    monkeypatch.setattr(wishes, "session", session)
    yield journal
    journal.close()


def ask(wish: str) -> None:
    wishes.ask(cast("click.Context", None), "web", wish)


def test_a_wish_is_recorded_with_who_had_it(journal: SqliteJournal, tmp_path: Path) -> None:
    audit = Audit(tmp_path, SystemClock())
    audit.write("schedule", "deploy")
    ask("pause")
    line = list(audit.lines())[-1]
    assert (line["who"], line["what"], line["services"]) == (wishes.user(), "pause", ["web"])
    assert len(journal.wishes(2)) == 1


def test_what_cannot_be_recorded_is_not_done(journal: SqliteJournal, tmp_path: Path) -> None:
    (tmp_path / "audit.log").mkdir()
    with pytest.raises(StateError, match="audit record"):
        ask("abort")
    assert journal.wishes(2) == []


def test_without_a_sidecars_record_none_is_begun(journal: SqliteJournal, tmp_path: Path) -> None:
    ask("pause")
    assert not (tmp_path / "audit.log").exists()
    assert len(journal.wishes(2)) == 1


def test_promoted_while_it_is_paused_it_does_not_switch_yet(journal: SqliteJournal, said: list[str]) -> None:
    journal.step_begun(2, 0, "hold", {})
    ask("pause")
    ask("promote")
    assert said[-1] == "web: rollout 2 is promoted; it is paused: `rollout resume web` lets it switch"


def test_promoted_it_switches(journal: SqliteJournal, said: list[str]) -> None:
    journal.step_begun(2, 0, "hold", {})
    ask("pause")
    ask("resume")
    ask("promote")
    assert said[-1] == "web: rollout 2 is promoted: it switches now"
