"""The journal's tables, and how a file of an older version becomes one of this: each script is one version's step."""

from __future__ import annotations

import sqlite3

_TABLES = """
CREATE TABLE revision (
  service TEXT NOT NULL, number INTEGER NOT NULL, config_hash TEXT NOT NULL, image_id TEXT NOT NULL,
  image TEXT NOT NULL, config TEXT NOT NULL, created_at REAL NOT NULL,
  PRIMARY KEY (service, number), UNIQUE (service, config_hash, image_id)
) STRICT;
CREATE TABLE live (service TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT;
CREATE TABLE rollout (
  id INTEGER PRIMARY KEY, service TEXT NOT NULL, what TEXT NOT NULL, state TEXT NOT NULL, strategy TEXT NOT NULL,
  target INTEGER NOT NULL, old TEXT NOT NULL, previous TEXT, switched INTEGER NOT NULL DEFAULT 0,
  forced INTEGER NOT NULL DEFAULT 0, marker TEXT NOT NULL, started_at REAL NOT NULL, receipt TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX rollout_by_service ON rollout (service, id);
CREATE TABLE step (
  rollout INTEGER NOT NULL, seq INTEGER PRIMARY KEY, position INTEGER NOT NULL, step TEXT NOT NULL,
  detail TEXT NOT NULL, begun_at REAL NOT NULL, done_at REAL, result TEXT
) STRICT;
CREATE INDEX step_by_rollout ON step (rollout, position);
CREATE TABLE warm (service TEXT PRIMARY KEY, number INTEGER NOT NULL, replicas TEXT NOT NULL, until REAL NOT NULL)
STRICT
"""

# what was paused by failure_action before there were wishes stays paused
_WISHES = """
CREATE TABLE wish (
  seq INTEGER PRIMARY KEY, rollout INTEGER NOT NULL, wish TEXT NOT NULL, who TEXT NOT NULL, asked_at REAL NOT NULL
) STRICT;
CREATE INDEX wish_by_rollout ON wish (rollout, seq);
INSERT INTO wish (rollout, wish, who, asked_at)
  SELECT id, 'pause', 'failure_action', started_at FROM rollout WHERE state = 'paused'
"""

# what was under way without that number goes back to what had been deployed last
_BEFORE = """
ALTER TABLE rollout ADD COLUMN before INTEGER;
UPDATE rollout SET before = (SELECT number FROM live WHERE live.service = rollout.service)
  WHERE state IN ('running', 'undoing', 'paused')
"""

# sums that go on when the rollouts they are of have been forgotten
_TOTALS = """
CREATE TABLE total (
  service TEXT NOT NULL, outcome TEXT NOT NULL, rollouts INTEGER NOT NULL, cut INTEGER NOT NULL,
  PRIMARY KEY (service, outcome)
) STRICT;
CREATE TABLE phase_total (
  service TEXT NOT NULL, phase TEXT NOT NULL, rollouts INTEGER NOT NULL, seconds REAL NOT NULL,
  PRIMARY KEY (service, phase)
) STRICT;
INSERT INTO total SELECT service, state, count(*), sum(coalesce(json_extract(receipt, '$.cut'), 0)) FROM rollout
  WHERE state NOT IN ('running', 'undoing', 'paused') GROUP BY service, state;
INSERT INTO phase_total SELECT service, phase.key, count(*), sum(phase.value)
  FROM rollout, json_each(rollout.receipt, '$.phases') AS phase
  WHERE state NOT IN ('running', 'undoing', 'paused') GROUP BY service, phase.key
"""

_SCRIPTS = (_TABLES, _WISHES, _BEFORE, _TOTALS)
VERSION = len(_SCRIPTS)


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """In one transaction: a crash leaves the former version whole, another process that does the same waits."""
    if _version(db) == VERSION:
        return
    with db:
        db.execute("BEGIN IMMEDIATE")
        for script in _SCRIPTS[_version(db) :]:
            for statement in script.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")


def is_newer(db: sqlite3.Connection) -> int:
    """The file's version when it is one that this program does not know, else 0."""
    version = _version(db)
    return version if version > VERSION else 0


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
