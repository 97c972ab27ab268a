"""Moments as people read them."""

from __future__ import annotations

from datetime import datetime


def moment(wall: float) -> str:
    """Local time: `2026-11-23 14:05:09`."""
    return datetime.fromtimestamp(wall).astimezone().strftime("%Y-%m-%d %H:%M:%S")
