"""The figures for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABOUT = """\
One replica, an application that boots in about 50 ms, {rounds} rounds, interleaved. The floor is the engine calls that
no deploy can do without, made by a bare SDK script. Inside the process: `deploy()` called in a warm process, Compose's
creation of the container included. The whole command: the start of `rollout deploy`'s process and Compose's loading
included."""

QUOTED = """\
The floor is the engine calls that no deploy can do without, made by a bare SDK script. Medians of {rounds}, interleaved
in one run; one replica, an application that boots in about 50 ms. Inside the process: `deploy()` in a warm process.
{machine}"""


def write_table(results: Mapping[str, Any]) -> str:
    """RESULTS.md."""
    lines = [
        "# What a deploy costs",
        "",
        f"Measured by `make bench`: {_machine(results)}",
        "",
        ABOUT.format(rounds=results["rounds"]),
        "",
        "| | median | min | max | x floor | limit | |",
        "|---|--:|--:|--:|--:|--:|---|",
        *(_line(row) for row in results["rows"]),
        "",
        "Where the time goes, medians in ms:",
        "",
        f"- floor: {_parts(results['floor_parts_ms'])}",
        *(f"- {proxy}, inside the process: {_parts(phases)}" for proxy, phases in results["phases_ms"].items()),
    ]
    return "\n".join(lines) + "\n"


def quoted(results: Mapping[str, Any]) -> str:
    """What the README says: the same table, shorter."""
    lines = [
        QUOTED.format(rounds=results["rounds"], machine=_machine(results)),
        "",
        "| | median | x floor | limit |",
        "|---|--:|--:|--:|",
        *(_short(row) for row in results["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _machine(results: Mapping[str, Any]) -> str:
    machine, load = results["machine"], results["load_average"]
    words = [
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB",
        f"{machine['system']}, kernel {machine['kernel']}",
        f"engine {machine['engine']}, Compose {machine['compose']}, Python {machine['python']}",
        f"{', '.join(machine['images'])}",
        f"{machine['date']}, commit {machine['commit']}, load average {load['before']:.1f} to {load['after']:.1f}",
    ]
    return "; ".join(words) + "." + (f" {results['note']}" if results["note"] else "")


def _line(row: Mapping[str, Any]) -> str:
    median, least, most = (f"{row[name]:,.0f} {row['unit']}" for name in ("median", "min", "max"))
    ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
    verdict = ("PASS" if row["pass"] else "over") if row["limit"] else ""
    return f"| {row['what']} | {median} | {least} | {most} | {ratio} | {row['limit']} | {verdict} |"


def _parts(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {milliseconds:g}" for name, milliseconds in parts.items())


def _short(row: Mapping[str, Any]) -> str:
    ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
    return f"| {row['what']} | {row['median']:,.0f} {row['unit']} | {ratio} | {row['limit']} |"
