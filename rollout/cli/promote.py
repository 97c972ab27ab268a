"""rollout promote"""

from __future__ import annotations

import click

from rollout.cli import wishes
from rollout.cli.options import global_options


@click.command()
@click.argument("service")
@global_options
@click.pass_context
def command(ctx: click.Context, service: str) -> None:
    """Let a held rollout switch to the new version (`promotion: manual`)."""
    wishes.ask(ctx, service, "promote")
