"""What the journal forgets, so that it stays small enough to be checked and read whole: the oldest rollouts."""

from __future__ import annotations

import sqlite3

UNFINISHED = ("running", "undoing", "paused")
KEPT = 500  # ended rollouts of a service; the last revisions by number too, used or not


def prune(db: sqlite3.Connection, rollout: int, kept: int) -> None:
    """Forget the oldest rollouts of this one's service, and the revisions that nothing speaks of any more."""
    row = db.execute("SELECT service FROM rollout WHERE id = ?", (rollout,)).fetchone()
    if row is None:
        return  # the journal was lost while it was under way
    (service,) = row
    limit = db.execute(
        "SELECT id FROM rollout WHERE service = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (service, kept)
    ).fetchone()
    if limit is None:
        return
    marks = ",".join("?" * len(UNFINISHED))
    old = f"SELECT id FROM rollout WHERE service = ? AND id <= ? AND state NOT IN ({marks})"  # noqa: S608
    for table, number in (("step", "rollout"), ("wish", "rollout"), ("rollout", "id")):
        db.execute(
            f"DELETE FROM {table} WHERE {number} IN ({old})",  # noqa: S608
            (service, limit["id"], *UNFINISHED),
        )
    db.execute(
        "DELETE FROM revision WHERE service = ?1 AND number NOT IN"
        " (SELECT target FROM rollout WHERE service = ?1 UNION SELECT before FROM rollout WHERE service = ?1"
        " AND before IS NOT NULL UNION SELECT number FROM live WHERE service = ?1"
        " UNION SELECT number FROM warm WHERE service = ?1)"
        " AND number <= (SELECT max(number) FROM revision WHERE service = ?1) - ?2",
        (service, kept),
    )
