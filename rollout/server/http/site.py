"""What the endpoints are served from."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from rollout.ports import Clock
from rollout.server.audit import Audit
from rollout.server.bus import Bus
from rollout.server.metrics import Metrics
from rollout.server.operations import Operations
from rollout.server.progress import Progress
from rollout.server.traffic import Traffic
from rollout.server.view import View


@dataclass(frozen=True, slots=True)
class Site:
    """The parts of the sidecar that HTTP speaks to. `boot` tells the numbers of this process's events from those of
    the one before."""

    view: View
    operations: Operations
    bus: Bus
    progress: Progress
    traffic: Traffic
    metrics: Metrics
    audit: Audit
    clock: Clock
    boot: str
    closing: threading.Event = field(default_factory=threading.Event)
