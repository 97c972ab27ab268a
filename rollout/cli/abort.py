"""rollout abort"""

from __future__ import annotations

import click

from rollout.cli import wishes
from rollout.cli.options import global_options


@click.command()
@click.argument("service")
@global_options
@click.pass_context
def command(ctx: click.Context, service: str) -> None:
    """Take back the rollout that is under way: before its switch what was started is removed, after it the traffic goes
    back to the old version, as long as that is still there."""
    wishes.ask(ctx, service, "abort")
