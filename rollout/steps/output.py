"""What containers, probes and hooks have written, as lines that are shown, kept and sent."""

from __future__ import annotations

LOG_LINES = 15  # of what has failed, shown to the user
LONGEST_LINE = 2000  # characters of a line that are shown


def legible(line: str) -> str:
    """The line without what a terminal would obey: it could rename its window, or clear what stands above."""
    return "".join(c if c.isprintable() else " " for c in line[:LONGEST_LINE]).rstrip()
