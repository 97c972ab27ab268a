"""rollout deploy, and what `docker rollout` shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rollout.cli.options import as_seconds, global_options
from rollout.cli.session import Session, session

if TYPE_CHECKING:
    from rollout.wishes import Wishes

STRATEGIES = ("rolling", "blue-green", "recreate")
PULL = ("always", "missing", "never")


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--image", default="", metavar="REF", help="Deploy this image, not the Compose file's; one SERVICE.")
@click.option("--pull", type=click.Choice(PULL), default="missing", show_default=True, help="When to pull the image.")
@click.option("--build", is_flag=True, help="Build the image first.")
@click.option("--force", is_flag=True, help="Replace the replicas even if nothing changed.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Instead of the one in x-rollout.")
@click.option("--wait-lock", default="0", callback=as_seconds, metavar="TIME", help="Wait for another rollout: 10m.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    services: tuple[str, ...],
    image: str,
    pull: str,
    build: bool,
    force: bool,
    strategy: str | None,
    wait_lock: float,
) -> None:
    """Bring services to what the Compose file says now, losing no request.

    Without SERVICE: every service with x-rollout, each after those it depends on, until one fails.
    """
    from rollout.wishes import Wishes

    with session(ctx) as running:
        deploy(running, services, Wishes(image, pull, build, force, strategy or "", wait_lock))


def deploy(running: Session, wanted: Sequence[str], wishes: Wishes) -> None:
    """Deploy the services, told as it goes; by the sidecar where there is one."""
    wishes.refuse_for(wanted)
    with running.project(wanted) as wired:
        from rollout import actions
        from rollout.cli.sidecar import delegate

        def body() -> dict[str, Any]:
            actions.prepare(wired, wanted, wishes)  # images are fetched here: with the user's credentials and builder
            return {
                "services": list(wanted), "image": wishes.image or None, "pull": "never", "force": wishes.force,
                "strategy": wishes.strategy or None, "wait_lock": wishes.wait_lock, "config": wired.loaded.config,
            }  # fmt: skip

        # what else `docker rollout` can ask for, the API does not know
        if wishes.change is not None or delegate(running, wired, "/v1/deploy", body) is None:
            actions.deploy(wired, wanted, wishes, running.teller(wired), running.interruption)
