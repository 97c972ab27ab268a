"""The journal's contract, over the file and over the database in memory that the simulation uses."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import StateError
from rollout.journal import SqliteJournal
from rollout.model import Pool, PoolOptions, Revision, RevisionKey, Upstream
from rollout.ports import RolloutRecord, Warm
from tests.simulation.fakes import FakeClock, MemoryJournal
from tests.simulation.world import World

KEY = RevisionKey("hash", "sha256:1")
POOL = Pool("web", (Upstream("web-1", "10.0.0.2", 80, 5),), PoolOptions(hosts=("shop.example",)))


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteJournal]:
    clock = SystemClock()
    path = tmp_path / ".rollout" / "state.db"
    with closing(SqliteJournal(path, clock) if request.param == "file" else MemoryJournal(FakeClock(World()))) as made:
        yield made


def _begin(journal: SqliteJournal, service: str = "web", before: Revision | None = None) -> RolloutRecord:
    target = journal.revision(service, KEY, "shop:1", "yaml")
    return journal.begin(
        what="deploy",
        strategy="rolling",
        target=target,
        old=["a", "b"],
        previous=POOL,
        marker="m",
        forced=True,
        before=before,
    )


def test_a_rollout_survives_as_it_was_begun(journal: SqliteJournal) -> None:
    before = journal.revision("web", RevisionKey("hash", "sha256:0"), "shop:0", "")
    begun = _begin(journal, before=before)
    assert journal.unfinished("web") == begun and begun.before == before
    assert begun.previous == POOL and begun.old == ("a", "b") and begun.forced and not begun.switched


def test_only_this_service_is_unfinished(journal: SqliteJournal) -> None:
    _begin(journal, "api")
    assert journal.unfinished("web") is None


def test_marks_are_kept(journal: SqliteJournal) -> None:
    begun = _begin(journal)
    journal.mark_state(begun.id, switched=True)
    journal.mark_state(begun.id, state="undoing")
    record = journal.unfinished("web")
    assert record is not None and record.switched and record.state == "undoing"


@pytest.mark.parametrize("outcome", ["deployed", "undone", "failed"])
def test_a_finished_rollout_is_no_longer_unfinished(journal: SqliteJournal, outcome: str) -> None:
    begun = _begin(journal)
    journal.step_begun(begun.id, 0, "start", {"count": 1})
    journal.step_done(begun.id, 0, {"replicas": ["c"]})
    journal.finish(begun.id, outcome, {"seconds": 1.5})
    assert journal.unfinished("web") is None
    live = journal.live("web")
    assert (live.number if live else None) == (1 if outcome == "deployed" else None)
    (entry,) = journal.history("web", 10)
    assert entry.state == outcome and entry.receipt == {"seconds": 1.5}


def test_the_oldest_are_forgotten_and_nothing_that_is_spoken_of(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    keys = [RevisionKey(f"hash-{number}", "sha256:1") for number in range(1, 13)]
    with closing(SqliteJournal(path, SystemClock(), kept=3)) as journal:
        other = _begin(journal, "api")
        journal.finish(other.id, "deployed", {})
        first = _begin_of(journal, keys[0])
        journal.finish(first.id, "deployed", {})  # what serves for all that follows
        begun = []
        for key in keys[1:]:
            begun.append(_begin_of(journal, key).id)
            journal.step_begun(begun[-1], 0, "start", {})
            journal.wish(begun[-1], "pause", "cli:anna")
            if key == keys[2]:
                journal.mark_state(begun[-1], state="paused")  # never ended
            else:
                journal.finish(begun[-1], "undone", {})
        assert [entry.id for entry in journal.history("web", 50)] == [*reversed(begun[-3:]), begun[1]]
        assert [entry.id for entry in journal.history("api", 50)] == [other.id], "another's are its own business"
        assert {journal.last_step(number) for number in begun[:1] + begun[2:-3]} == {""}
        assert journal.last_step(begun[1]) == journal.last_step(begun[-1]) == "start"
        assert journal.wishes(begun[0]) == [] and len(journal.wishes(begun[1])) == 1
        assert [r.number for r in journal.revisions("web")] == [12, 11, 10, 3, 1]
        live, unfinished = journal.live("web"), journal.unfinished("web")
        assert live is not None and live.number == 1 and unfinished is not None and unfinished.id == begun[1]
        assert journal.revision("web", RevisionKey("new", "sha256:1"), "shop:1", "yaml").number == 13


def test_sums_go_on_when_their_rollouts_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteJournal(path, SystemClock(), kept=2)) as journal:
        for number in range(5):
            record = _begin_of(journal, RevisionKey(f"hash-{number}", "sha256:1"))
            journal.finish(record.id, "deployed" if number else "undone", {"cut": 2, "phases": {"drain": 0.5}})
    with closing(SqliteJournal(path, SystemClock())) as journal:
        assert len(journal.history("web", 50)) == 2
        totals = journal.totals()
    assert totals.outcomes == {("web", "deployed"): 4, ("web", "undone"): 1}
    assert totals.cut == {"web": 10} and totals.phases == {("web", "drain"): (5, 2.5)}


def test_what_had_ended_before_there_were_sums_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteJournal(path, SystemClock())) as journal:
        _begin(journal, "api")
        for cut in (1, 2):
            receipt = {"cut": cut, "phases": {"start": 1.0, "drain": 0.5}}
            journal.finish(_begin(journal).id, "deployed", receipt)
        journal.finish(_begin(journal).id, "failed", {})
        before = journal.totals()
    assert before.cut == {"web": 3} and before.phases["web", "start"] == (2, 2.0)
    with closing(sqlite3.connect(path)) as db, db:
        _without_sums(db)
        db.execute("PRAGMA user_version = 3")
    with closing(SqliteJournal(path, SystemClock())) as journal:
        assert journal.totals() == before


def _begin_of(journal: SqliteJournal, key: RevisionKey) -> RolloutRecord:
    target = journal.revision("web", key, "shop:1", "yaml")
    return journal.begin(
        what="deploy", strategy="rolling", target=target, old=[], previous=None, marker="m", forced=False
    )


def test_revisions_are_numbered_once_and_keep_their_config(journal: SqliteJournal) -> None:
    unknown = journal.revision("web", KEY, "shop:1", "")
    assert (unknown.number, unknown.config) == (1, "")
    assert journal.revision("web", KEY, "shop:1", "yaml").config == "yaml"
    assert journal.revision("web", KEY, "shop:1", "").config == "yaml"
    other = journal.revision("web", RevisionKey("hash", "sha256:2"), "shop:1", "yaml")
    assert [r.number for r in journal.revisions("web")] == [2, 1] and other.number == 2
    assert journal.revision("api", KEY, "shop:1", "yaml").number == 1


def test_warm_is_one_set_per_service(journal: SqliteJournal) -> None:
    assert journal.warm("web") is None
    journal.set_warm("web", Warm("web", 1, ("a",), 5.0))
    journal.set_warm("web", Warm("web", 2, ("b", "c"), 6.0))
    assert journal.warm("web") == Warm("web", 2, ("b", "c"), 6.0)
    journal.set_warm("web", None)
    journal.set_warm("web", None)
    assert journal.warm("web") is None


def test_wishes_are_of_one_rollout_and_in_order(journal: SqliteJournal) -> None:
    first, other = _begin(journal), _begin(journal, "api")
    for wish in ("pause", "resume", "abort"):
        journal.wish(first.id, wish, f"cli:{wish}")
    assert [(w.wish, w.who) for w in journal.wishes(first.id)] == [
        ("pause", "cli:pause"), ("resume", "cli:resume"), ("abort", "cli:abort"),
    ]  # fmt: skip
    assert all(w.at > 0 for w in journal.wishes(first.id))
    assert journal.wishes(other.id) == []


def test_the_last_step_is_the_one_begun_last(journal: SqliteJournal) -> None:
    begun = _begin(journal)
    assert journal.last_step(begun.id) == ""
    for index, kind in enumerate(("check", "hold", "check")):
        journal.step_begun(begun.id, index, kind, {})
        assert journal.last_step(begun.id) == kind
        journal.step_done(begun.id, index, {})
    journal.step_begun(begun.id, 0, "stop", {})  # an undo counts from 0 again
    assert journal.last_step(begun.id) == "stop"


def test_history_is_newest_first_and_limited(journal: SqliteJournal) -> None:
    ids = [_begin(journal, service).id for service in ("web", "api", "web")]
    assert [r.id for r in journal.history(None, 2)] == [ids[2], ids[1]]
    assert [r.id for r in journal.history("web", 9)] == [ids[2], ids[0]]


def test_another_process_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first, second = (SqliteJournal(path, SystemClock()) for _ in range(2))
    begun = _begin(first)
    assert second.unfinished("web") == begun
    first.close()
    second.close()


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "state.db", SystemClock())
    _begin(journal)
    journal.close()
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0


def _without_sums(db: sqlite3.Connection) -> None:
    db.execute("DROP TABLE total")
    db.execute("DROP TABLE phase_total")


def _as_version_1(path: Path) -> None:
    """What a rollout before there were wishes left: the same tables without what came later."""
    with closing(sqlite3.connect(path)) as db, db:
        _without_sums(db)
        db.execute("DROP TABLE wish")
        db.execute("ALTER TABLE rollout DROP COLUMN before")
        db.execute("PRAGMA user_version = 1")


def test_a_file_of_the_first_format_is_brought_up_to_date_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteJournal(path, SystemClock())) as journal:
        done = _begin(journal, "api")
        journal.step_begun(done.id, 0, "start", {})
        journal.finish(done.id, "deployed", {"seconds": 1.5})
        journal.set_warm("api", Warm("api", 1, ("a",), 5.0))
        paused = _begin(journal)
        journal.mark_state(paused.id, state="paused")
        before = (journal.history(None, 9), journal.revisions("web"), journal.live("api"), journal.warm("api"))
    _as_version_1(path)
    with closing(SqliteJournal(path, SystemClock())) as journal:
        after = (journal.history(None, 9), journal.revisions("web"), journal.live("api"), journal.warm("api"))
        assert after == before and journal.last_step(done.id) == "start"
        assert [(w.wish, w.who) for w in journal.wishes(paused.id)] == [("pause", "failure_action")]
        assert journal.wishes(done.id) == []


def test_an_unfinished_rollout_of_the_second_format_goes_back_to_what_was_live(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteJournal(path, SystemClock())) as journal:
        done = _begin(journal)
        journal.finish(done.id, "deployed", {})
        left = _begin_of(journal, RevisionKey("hash", "sha256:2"))
        assert left.before is None
    with closing(sqlite3.connect(path)) as db, db:
        _without_sums(db)
        db.execute("ALTER TABLE rollout DROP COLUMN before")
        db.execute("PRAGMA user_version = 2")
    with closing(SqliteJournal(path, SystemClock())) as journal:
        record = journal.unfinished("web")
        assert record is not None and record.before == done.target
        assert [entry.before for entry in journal.history("web", 9)] == [done.target, None]


def test_two_that_bring_it_up_to_date_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteJournal(path, SystemClock())) as journal:
        number = _begin(journal).id
    _as_version_1(path)
    with ThreadPoolExecutor(8) as pool:
        journals = [SqliteJournal(path, SystemClock()) for _ in range(8)]
        list(pool.map(lambda one: one.wish(number, "pause", "cli:anna"), journals))
    assert len(journals[0].wishes(number)) == 8
    for one in journals:
        one.close()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda content: b"not a database at all, but long enough to be read as one" * 40,
    "torn": lambda content: content[: len(content) // 2 + 100],
    "whole only in its first page": lambda content: content[:4096] + b"\xff" * (len(content) - 4096),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_torn_file_is_put_aside_and_told(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path, told = tmp_path / "state.db", list[str]()
    whole = SqliteJournal(path, SystemClock())
    _begin(whole)
    whole.close()
    path.write_bytes(damage(path.read_bytes()))
    journal = SqliteJournal(path, SystemClock(), told.append)
    assert journal.unfinished("web") is None
    _begin(journal)
    journal.close()
    assert len(told) == 1 and len(list(tmp_path.glob("state.db.broken-*"))) == 1


def test_the_end_of_a_rollout_that_was_lost_meanwhile_is_nothing_to_write_down(journal: SqliteJournal) -> None:
    """The file was deleted under a rollout, which then goes on with the one that is begun anew."""
    known = _begin(journal)
    journal.step_begun(known.id + 1, 0, "stop", {})
    journal.step_done(known.id + 1, 0, {})
    journal.mark_state(known.id + 1, state="undoing", switched=True)
    journal.finish(known.id + 1, "deployed", {})
    assert journal.live("web") is None and journal.unfinished("web") == known


def test_deleted_while_in_use_it_says_so_and_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.db"
    journal = SqliteJournal(path, SystemClock())
    number = _begin(journal).id
    shutil.rmtree(path.parent)
    with pytest.raises(StateError, match="deleted while it was in use"):
        journal.mark_state(number, switched=True)
    assert journal.unfinished("web") is None
    _begin(journal)
    journal.close()
    assert path.stat().st_mode & 0o077 == 0


def test_a_newer_format_is_refused_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="newer rollout"):
        SqliteJournal(path, SystemClock()).live("web")
    assert path.read_bytes() == before


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError) as failure:
        SqliteJournal(tmp_path / "file" / "state.db", SystemClock()).live("web")
    assert failure.value.hint and failure.value.exit_code == 4
