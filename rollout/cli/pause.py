"""rollout pause"""

from __future__ import annotations

import click

from rollout.cli import wishes
from rollout.cli.options import global_options


@click.command()
@click.argument("service")
@global_options
@click.pass_context
def command(ctx: click.Context, service: str) -> None:
    """Let the rollout that is under way stand still before its next step. Nothing is left half done, and what serves
    goes on serving. `progress_deadline` does not run meanwhile."""
    wishes.ask(ctx, service, "pause")
