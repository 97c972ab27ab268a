"""The journal: `.rollout/state.db`, one sqlite file. What must survive a crash, and nothing that can be observed
instead.

Rollback journal and synchronous=FULL: a commit that returned is on the disk. The rollback journal's file stays
(PERSIST): to make and remove it costs more than to write it. Not WAL, whose shared memory is fragile on bind mounts. A
file that is torn is put aside and begun anew: what runs can always be observed again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rollout.errors import StateError
from rollout.journal_pruning import KEPT, UNFINISHED, prune
from rollout.journal_schema import bring_up_to_date, is_newer
from rollout.model import Pool, Revision, RevisionKey
from rollout.ports import Clock, RolloutRecord, Warm, Wished


class SqliteJournal:
    """`Journal` in one sqlite file. One connection; not shared between threads."""

    def __init__(
        self, path: Path, clock: Clock, notice: Callable[[str], None] = lambda text: None, kept: int = KEPT
    ) -> None:
        self._path, self._clock, self._notice, self._kept = path, clock, notice, kept
        self._connection: sqlite3.Connection | None = None
        self._done: list[tuple[float, str, int, int]] = []  # steps whose end goes with the next write

    def unfinished(self, service: str) -> RolloutRecord | None:
        marks = ",".join("?" * len(UNFINISHED))
        rows = self._read(
            f"SELECT * FROM rollout WHERE service = ? AND state IN ({marks}) ORDER BY id DESC LIMIT 1",  # noqa: S608
            (service, *UNFINISHED),
        )
        return self._record(rows[0]) if rows else None

    def begin(
        self,
        *,
        what: str,
        strategy: str,
        target: Revision,
        old: Sequence[str],
        previous: Pool | None,
        marker: str,
        forced: bool,
        before: Revision | None = None,
    ) -> RolloutRecord:
        service, now = target.service, self._clock.wall()
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO rollout"
                " (service, what, state, strategy, target, before, old, previous, forced, marker, started_at)"
                " VALUES (?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    service,
                    what,
                    strategy,
                    target.number,
                    before.number if before is not None else None,
                    json.dumps(list(old)),
                    _pool_text(previous),
                    forced,
                    marker,
                    now,
                ),
            )
            number = int(cursor.lastrowid or 0)
        return RolloutRecord(
            number, service, what, "running", strategy, target, tuple(old), previous, False, now, forced, marker, before
        )

    def step_begun(self, rollout: int, index: int, step: str, detail: Mapping[str, Any]) -> None:
        with self._write() as db:
            db.execute(
                "INSERT INTO step (rollout, position, step, detail, begun_at) VALUES (?, ?, ?, ?, ?)",
                (rollout, index, step, json.dumps(detail), self._clock.wall()),
            )

    def step_done(self, rollout: int, index: int, result: Mapping[str, Any]) -> None:
        # Another write follows at once, and a commit is the dearest thing here. Nothing but the history is lost when a
        # crash comes between: what was done is observed, never read.
        self._done.append((self._clock.wall(), json.dumps(result), rollout, index))

    def mark_state(
        self, rollout: int, *, state: str | None = None, switched: bool | None = None, marker: str | None = None
    ) -> None:
        with self._write() as db:
            db.execute(
                "UPDATE rollout SET state = coalesce(?, state), switched = coalesce(?, switched),"
                " marker = coalesce(?, marker) WHERE id = ?",
                (state, switched, marker, rollout),
            )

    def finish(self, rollout: int, state: str, receipt: Mapping[str, Any]) -> None:
        with self._write() as db:
            db.execute("UPDATE rollout SET state = ?, receipt = ? WHERE id = ?", (state, json.dumps(receipt), rollout))
            _add_up(db, rollout, state, receipt)
            if state == "deployed":
                db.execute(
                    "INSERT INTO live (service, number) SELECT service, target FROM rollout WHERE id = ?"
                    " ON CONFLICT (service) DO UPDATE SET number = excluded.number",
                    (rollout,),
                )
            prune(db, rollout, self._kept)

    def wish(self, rollout: int, wish: str, who: str) -> None:
        with self._write() as db:
            db.execute(
                "INSERT INTO wish (rollout, wish, who, asked_at) VALUES (?, ?, ?, ?)",
                (rollout, wish, who, self._clock.wall()),
            )

    def wishes(self, rollout: int) -> list[Wished]:
        rows = self._read("SELECT * FROM wish WHERE rollout = ? ORDER BY seq", (rollout,))
        return [Wished(row["wish"], row["who"], row["asked_at"]) for row in rows]

    def last_step(self, rollout: int) -> str:
        rows = self._read("SELECT step FROM step WHERE rollout = ? ORDER BY seq DESC LIMIT 1", (rollout,))
        return str(rows[0]["step"]) if rows else ""

    def cut(self, rollout: int) -> int:
        done = self._read("SELECT result FROM step WHERE rollout = ? AND result IS NOT NULL", (rollout,))
        return sum(int(json.loads(row["result"]).get("cut", 0)) for row in done)

    def revision(self, service: str, key: RevisionKey, image: str, config: str) -> Revision:
        known = self._read(
            "SELECT * FROM revision WHERE service = ? AND config_hash = ? AND image_id = ?",
            (service, key.config_hash, key.image_id),
        )
        if known and (known[0]["config"] or not config):
            return _revision(known[0])
        with self._write() as db:
            db.execute(
                "INSERT INTO revision (service, number, config_hash, image_id, image, config, created_at) VALUES"
                " (?, (SELECT coalesce(max(number), 0) + 1 FROM revision WHERE service = ?), ?, ?, ?, ?, ?)"
                " ON CONFLICT (service, config_hash, image_id) DO UPDATE SET config = excluded.config",
                (service, service, key.config_hash, key.image_id, image, config, self._clock.wall()),
            )
        return self.revision(service, key, image, "")

    def revisions(self, service: str) -> list[Revision]:
        return [
            _revision(row)
            for row in self._read("SELECT * FROM revision WHERE service = ? ORDER BY number DESC", (service,))
        ]

    def live(self, service: str) -> Revision | None:
        rows = self._read(
            "SELECT revision.* FROM live JOIN revision USING (service, number) WHERE service = ?", (service,)
        )
        return _revision(rows[0]) if rows else None

    def warm(self, service: str) -> Warm | None:
        rows = self._read("SELECT * FROM warm WHERE service = ?", (service,))
        if not rows:
            return None
        row = rows[0]
        return Warm(service, row["number"], tuple(json.loads(row["replicas"])), row["until"])

    def set_warm(self, service: str, warm: Warm | None) -> None:
        with self._write() as db:
            db.execute("DELETE FROM warm WHERE service = ?", (service,))
            if warm is not None:
                db.execute(
                    "INSERT INTO warm (service, number, replicas, until) VALUES (?, ?, ?, ?)",
                    (service, warm.revision, json.dumps(list(warm.replicas)), warm.until),
                )

    def history(self, service: str | None, limit: int) -> list[RolloutRecord]:
        rows = self._read(
            "SELECT * FROM rollout WHERE ?1 IS NULL OR service = ?1 ORDER BY id DESC LIMIT ?2", (service, limit)
        )
        return [self._record(row) for row in rows]

    def rollout(self, number: int) -> RolloutRecord | None:
        rows = self._read("SELECT * FROM rollout WHERE id = ?", (number,))
        return self._record(rows[0]) if rows else None

    def totals(self) -> Totals:
        """Of all rollouts that have ended, those forgotten too."""
        ended = self._read("SELECT * FROM total", ())
        phases = self._read("SELECT * FROM phase_total", ())
        cut: dict[str, int] = {}
        for row in ended:
            cut[row["service"]] = cut.get(row["service"], 0) + row["cut"]
        return Totals(
            {(row["service"], row["outcome"]): row["rollouts"] for row in ended},
            cut,
            {(row["service"], row["phase"]): (row["rollouts"], row["seconds"]) for row in phases},
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- one connection, one way to fail

    def _record(self, row: sqlite3.Row) -> RolloutRecord:
        spoken_of = (row["service"], row["target"], row["before"])
        revisions = self._read("SELECT * FROM revision WHERE service = ? AND number IN (?, ?)", spoken_of)
        known = {one["number"]: _revision(one) for one in revisions}
        return RolloutRecord(
            id=row["id"],
            service=row["service"],
            what=row["what"],
            state=row["state"],
            strategy=row["strategy"],
            target=known[row["target"]],
            old=tuple(json.loads(row["old"])),
            previous=_pool(row["previous"]),
            switched=bool(row["switched"]),
            started_at=row["started_at"],
            forced=bool(row["forced"]),
            marker=row["marker"],
            before=known.get(row["before"]),
            receipt=json.loads(row["receipt"]),
        )

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._translated():
            return self._open().execute(sql, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._open() as db:
            db.executemany(
                "UPDATE step SET done_at = ?, result = ? WHERE seq ="
                " (SELECT max(seq) FROM step WHERE rollout = ? AND position = ?)",
                self._done,
            )
            yield db
        self._done.clear()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            deleted = self._connection is not None and not self._path.exists()
            self.close()
            if deleted:
                raise StateError(
                    f"the journal {self._path} was deleted while it was in use",
                    hint="run it again: the journal is begun anew from what runs",
                ) from error
            raise StateError(
                f"the journal {self._path} cannot be read or written: {error}",
                hint="check the disk's free space and the permissions of that directory, or set ROLLOUT_STATE_DIR",
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._put_aside()
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        new = not self._path.exists()
        db = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        if new:
            self._path.chmod(0o600)  # stored configurations may hold secrets
        try:
            return self._prepared(db)
        except BaseException:
            db.close()
            raise

    def _prepared(self, db: sqlite3.Connection) -> sqlite3.Connection:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = PERSIST")
        db.execute("PRAGMA synchronous = FULL")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()  # a page that is torn is else met in mid-deploy
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if version := is_newer(db):
            raise StateError(
                f"the journal {self._path} was written by a newer rollout (version {version} of its format)",
                hint="upgrade rollout",
            )
        bring_up_to_date(db)
        return db

    def _put_aside(self) -> None:
        aside = self._path.with_name(f"{self._path.name}.broken-{int(self._clock.wall())}")
        self._path.replace(aside)
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)  # else played back into the new one
        self._notice(f"the journal was damaged and is begun anew from what runs; the old file is {aside}")


@dataclass(frozen=True, slots=True)
class Totals:
    """`outcomes` by service and outcome, `cut` connections by service; of each service and phase how many rollouts had
    it, and the seconds that they spent there."""

    outcomes: Mapping[tuple[str, str], int]
    cut: Mapping[str, int]
    phases: Mapping[tuple[str, str], tuple[int, float]]


def _add_up(db: sqlite3.Connection, rollout: int, outcome: str, receipt: Mapping[str, Any]) -> None:
    db.execute(
        "INSERT INTO total (service, outcome, rollouts, cut) SELECT service, ?, 1, ? FROM rollout WHERE id = ?"
        " ON CONFLICT (service, outcome) DO UPDATE SET rollouts = rollouts + 1, cut = cut + excluded.cut",
        (outcome, int(receipt.get("cut") or 0), rollout),
    )
    db.executemany(
        "INSERT INTO phase_total (service, phase, rollouts, seconds) SELECT service, ?, 1, ? FROM rollout WHERE id = ?"
        " ON CONFLICT (service, phase) DO UPDATE SET rollouts = rollouts + 1, seconds = seconds + excluded.seconds",
        [(phase, float(seconds), rollout) for phase, seconds in (receipt.get("phases") or {}).items()],
    )


def _revision(row: sqlite3.Row) -> Revision:
    key = RevisionKey(row["config_hash"], row["image_id"])
    return Revision(row["service"], row["number"], key, row["image"], row["config"], row["created_at"])


def _pool_text(pool: Pool | None) -> str | None:
    return json.dumps(asdict(pool)) if pool is not None else None


def _pool(text: str | None) -> Pool | None:
    return Pool.from_json(json.loads(text)) if text is not None else None
