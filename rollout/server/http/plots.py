"""Small plots as SVG: series of values over the same minutes, one line a revision. Pure: points in, paths out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rollout.server.traffic import Point

WIDTH, BASE, TOP = 240.0, 47.0, 3.0  # in the units of the picture
SHORTEST, LONGEST = 120.0, 600.0  # seconds that a plot shows


@dataclass(frozen=True, slots=True)
class Line:
    """`path` is an SVG path's `d`, `area` that of what is below it; `now` the present value as text, "ended" of a
    revision that is gone; `live`: of the live revision."""

    revision: int
    path: str
    area: str
    now: str
    live: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """`label` names it, `scale` says what its height and width are, `said` the whole of it for who cannot see it."""

    label: str
    scale: str
    lines: Sequence[Line]

    @property
    def said(self) -> str:
        return f"{self.label}: " + (", ".join(f"revision {line.revision} {line.now}" for line in self.lines) or "none")


def plots(series: Mapping[int, Sequence[Point]], live: int | None, now: float) -> list[Plot]:
    """Requests a second, errors, latency (left out where the proxy does not tell it). `now` is wall clock."""
    first = min((points[0].at for points in series.values() if points), default=now)
    span = min(LONGEST, max(SHORTEST, now - first))
    found = [
        _plot("requests", series, live, now, span, lambda p: p.rate, rate),
        _plot("errors", series, live, now, span, lambda p: p.errors, percent),
    ]
    if any(point.latency is not None for points in series.values() for point in points):
        found.append(_plot("latency", series, live, now, span, lambda p: p.latency, milliseconds))
    return found


def rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 100 or value == 0 else f"{value:.1f}/s"


def percent(value: float) -> str:
    part = value * 100
    if part >= 10 or part == 0:
        return f"{part:.0f} %"
    return f"{part:.2g} %" if part >= 0.001 else "<0.001 %"


def milliseconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"


def _plot(
    label: str,
    series: Mapping[int, Sequence[Point]],
    live: int | None,
    now: float,
    span: float,
    value: Callable[[Point], float | None],
    text: Callable[[float], str],
) -> Plot:
    shown = {
        revision: [(p.at, v) for p in points if p.at >= now - span and (v := value(p)) is not None]
        for revision, points in series.items()
    }
    top = max((v for points in shown.values() for _, v in points), default=0.0)
    newest = max((points[-1].at for points in series.values() if points), default=now)
    lines = []
    for revision, points in sorted(shown.items()):
        if points:
            spots = [(_x(at, now, span), _y(v, top)) for at, v in points]
            present = text(points[-1][1]) if points[-1][0] == newest else "none"
            ended = series[revision][-1].at < newest
            lines.append(Line(revision, *_paths(spots), "ended" if ended else present, revision == live))
    scale = f"0 to {text(top)}, {span / 60:.0f} min" if top else f"{span / 60:.0f} min"
    whole = all(p.whole for points in series.values() for p in points if p.at >= now - span)
    return Plot(label, scale if whole else f"{scale}, not all counted", lines)


def _paths(spots: Sequence[tuple[float, float]]) -> tuple[str, str]:
    if len(spots) == 1:
        spots = [(max(0.0, spots[0][0] - 1.0), spots[0][1]), spots[0]]
    line = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    return line, f"{line} L{spots[-1][0]:.1f} {BASE:g} L{spots[0][0]:.1f} {BASE:g}Z"


def _x(at: float, now: float, span: float) -> float:
    return min(WIDTH, max(0.0, WIDTH * (1.0 - (now - at) / span)))


def _y(value: float, top: float) -> float:
    return BASE - (BASE - TOP) * (value / top if top else 0.0)
