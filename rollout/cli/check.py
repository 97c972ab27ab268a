"""rollout check"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rollout.cli.options import global_options
from rollout.cli.session import Session, session

if TYPE_CHECKING:
    from rollout.model import Finding
    from rollout.wiring import Wired


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@global_options
@click.pass_context
def command(ctx: click.Context, services: tuple[str, ...]) -> int:
    """Is this project safe to deploy? Looks at the engine, Compose, the proxy, its mounts and settings, the services.

    Exit code 0: nothing stands in the way (warnings may); 2: something does.
    """
    with session(ctx) as running, running.project(services, looks_only=True) as wired:
        from rollout.model import Severity

        parts = _parts(wired)
        found = [*wired.findings(services), *_proxy_findings(wired, services)]
        errors = sum(f.severity is Severity.ERROR for f in found)
        data = {"ok": not errors, **dict(parts), "findings": [_as_json(f) for f in found]}
        running.show(data, lambda: _text(running, parts, found))
        return 2 if errors else 0


def _parts(wired: Wired) -> list[tuple[str, str]]:
    return [
        ("engine", f"Docker {wired.engine.version()}, API {wired.connection.client.api_version}"),
        ("compose", " ".join(wired.compose.program)),
        ("project", f"{wired.project.name}, {wired.project.directory}"),
        ("services", ", ".join(wired.project.services)),
        ("proxy", f"{wired.project.proxy.type.value}, {wired.process.describe()}"),
        ("state", str(wired.state.path)),
    ]


def _proxy_findings(wired: Wired, services: tuple[str, ...]) -> list[Finding]:
    """What the proxy says of itself; that it cannot be reached is one of the things to find."""
    from rollout.errors import RolloutError, SpecError
    from rollout.model import Finding, Severity

    found: list[Finding] = []
    try:
        if (misplaced := wired.misplaced()) is not None:
            return [misplaced]  # what else is wrong with its mounts follows from it
        found += wired.proxy.findings()
        for name in services or tuple(wired.project.services):
            wired.proxy.network(wired.project.services[name])
    except SpecError as error:
        found += [Finding(Severity.ERROR, "spec", f.path, f.message, f.hint) for f in error.faults]
    except RolloutError as error:
        found.append(Finding(Severity.ERROR, "proxy-unreachable", "x-rollout.proxy", error.message, error.hint))
    return found


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.value,
        "code": finding.code,
        "where": finding.where,
        "message": finding.message,
        "fix": finding.fix,
    }


def _text(running: Session, parts: list[tuple[str, str]], found: list[Finding]) -> str:
    lines = [f"{name:<9} {value}" for name, value in parts]
    for finding in found:
        severity = finding.severity.value
        tone = "red" if severity == "error" else "yellow"
        head = click.style(severity, fg=tone, bold=True) if running.colors else severity
        lines += ["", f"{head}: {finding.where}: {finding.message} [{finding.code}]"]
        if finding.fix:
            lines.append(f"  write: {finding.fix}")
    errors = sum(f.severity.value == "error" for f in found)
    return "\n".join([*lines, "", _verdict(errors, len(found) - errors)])


def _verdict(errors: int, warnings: int) -> str:
    from rollout.report.words import plural

    if errors:
        return f"not safe to deploy: {plural(errors, 'error')}, {plural(warnings, 'warning')}"
    return f"safe to deploy, {plural(warnings, 'warning')}" if warnings else "safe to deploy"
