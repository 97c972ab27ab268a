"""The program: its verbs, each in a module of its own that is imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from rollout import __version__
from rollout.cli.options import global_options

# in the order people meet them; a verb's module is `rollout.cli.<verb>`, its command there is `command`
VERBS = {
    "deploy": "Bring services to what the Compose file says now, losing no request.",
    "plan": "Show what deploy would do; touch nothing.",
    "status": "What runs, what takes traffic, who is at work.",
    "history": "Past rollouts, newest first.",
    "rollback": "Go back to the revision before, or to revision N.",
    "promote": "Let a held rollout switch to the new version.",
    "pause": "Let a rollout stand still before its next step.",
    "resume": "Let a paused rollout go on.",
    "abort": "Take back the rollout that is under way.",
    "check": "Is this project safe to deploy? Says what would lose requests.",
    "watch": "Deploy what the files say, now and after every change of them.",
    "sync": "Finish what an interrupted run left, and make the proxy follow the replicas.",
    "serve": "Run next to the proxy day and night: its pools follow the replicas.",
    "render": "Write the proxy's configuration from what runs now, also before the proxy runs.",
    "init": "Show what to add to the Compose file and to the proxy's configuration.",
    "lock": "Who holds the lock of which service.",
}


class Verbs(click.Group):
    """Imports a verb's module when it is used; help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"rollout.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], VERBS, 1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@global_options
@click.version_option(__version__, message="rollout %(version)s")
def program() -> None:
    """Zero-downtime deploys of Docker Compose services behind your own nginx or HAProxy."""
