"""How much load of which kind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Mix:
    """The number of clients of each kind, and how they behave. Times are seconds unless the name says otherwise.

    get, post            closed loops on a kept-alive connection, the next request as soon as the last is answered
    think                as post, after a random pause of 0..think_seconds
    fresh                a new connection for each POST
    preconnected         connect, wait 0..preconnected_seconds, only then POST
    uploads              half of a POST body, upload_seconds of nothing, the other half; kept-alive
    streams              chunked answers that take stream_seconds; kept-alive
    upgrades             upgraded connections, echoing, closed by the client after 0..upgrade_seconds
    http2, http2_idle    HTTP/2 over TLS: connections with four requests at once (get, post, upload, stream), and with
                         one after each pause of 0..think_seconds; the URL must be https
    arrivals             open loop: this many GETs and POSTs a second at a fixed rate, however slow the answers are,
                         over a pool of kept-alive connections; latency counts from the intended arrival
    handler_ms           the server's handler takes one of these times
    rtt                  distance to the server: a request is written this long after its connection was last seen
                         alive. A proxy loses (kept-alive requests per second) x rtt if it closes idle connections,
                         so 0 would hide most of what users on a real network would see
    timeout              an answer that takes longer than this beyond its intended duration is an anomaly
    """

    get: int = 0
    post: int = 0
    think: int = 0
    think_seconds: float = 1.5
    fresh: int = 0
    preconnected: int = 0
    preconnected_seconds: float = 1.0
    uploads: int = 0
    upload_seconds: float = 1.0
    streams: int = 0
    stream_seconds: float = 2.0
    upgrades: int = 0
    upgrade_seconds: float = 2.0
    http2: int = 0
    http2_idle: int = 0
    arrivals: float = 0.0
    handler_ms: tuple[float, ...] = (0, 5, 50)
    rtt: float = 0.02
    connect_timeout: float = 5.0
    timeout: float = 10.0

    @classmethod
    def standard(cls) -> Self:
        """Every kind, a few hundred requests a second: 10,000 in well under a minute, with room left for the engine."""
        return cls(get=4, post=4, think=100, fresh=2, preconnected=4, uploads=4, streams=4, upgrades=4, arrivals=40.0)

    @classmethod
    def light(cls) -> Self:
        """Every kind, about a hundred requests a second: for tests that look at something else than lost requests."""
        return cls(get=1, post=1, think=20, fresh=1, preconnected=1, uploads=1, streams=1, upgrades=1, arrivals=10.0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`standard`, `light`, or a JSON object of the fields above. Raises ValueError."""
        if text == "standard":
            return cls.standard()
        if text == "light":
            return cls.light()
        fields = json.loads(text)
        try:
            if "handler_ms" in fields:
                fields["handler_ms"] = tuple(fields["handler_ms"])
            return cls(**fields)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def to_json(self) -> str:
        return json.dumps(asdict(self))
