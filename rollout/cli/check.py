"""rollout check"""

from __future__ import annotations

from typing import Any

import click

from rollout.cli.options import global_options
from rollout.cli.session import Session, session


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@global_options
@click.pass_context
def command(ctx: click.Context, services: tuple[str, ...]) -> int:
    """Is this project safe to deploy? Looks at the engine, Compose, the proxy, its mounts and settings, the services.

    Exit code 0: nothing stands in the way (warnings may); 2: something does.
    """
    with session(ctx, document=True) as running, running.project(services, looks_only=True) as wired:
        from rollout import actions

        found = actions.check(wired, services)
        running.show(found, lambda: _text(running, found))
        return 0 if found["ok"] else 2


def _text(running: Session, found: dict[str, Any]) -> str:
    findings = found["findings"]
    lines = [f"{name:<9} {value}" for name, value in found.items() if isinstance(value, str)]
    for finding in findings:
        severity = finding["severity"]
        tone = "red" if severity == "error" else "yellow"
        head = click.style(severity, fg=tone, bold=True) if running.colors else severity
        lines += ["", f"{head}: {finding['where']}: {finding['message']} [{finding['code']}]"]
        if finding["fix"]:
            lines.append(f"  write: {finding['fix']}")
    errors = sum(f["severity"] == "error" for f in findings)
    return "\n".join([*lines, "", _verdict(errors, len(findings) - errors)])


def _verdict(errors: int, warnings: int) -> str:
    from rollout.report.words import plural

    if errors:
        return f"not safe to deploy: {plural(errors, 'error')}, {plural(warnings, 'warning')}"
    return f"safe to deploy, {plural(warnings, 'warning')}" if warnings else "safe to deploy"
