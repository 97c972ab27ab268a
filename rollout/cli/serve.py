"""rollout serve"""

from __future__ import annotations

import json
import os
import sys
from queue import SimpleQueue

import click

from rollout.cli.options import gathered, global_options
from rollout.cli.session import compose_options

_FORMAT = "One line an event: key=value (line) or an object (json, also with --json)."


@click.command()
@click.option("--log-format", type=click.Choice(["line", "json"]), default="line", show_default=True, help=_FORMAT)
@click.option("--listen", default="", metavar="HOST:PORT", help="Serve the API and the page over TCP as well.")
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    help="Who may come in: TOKEN or NAME:TOKEN, one a line. Made if missing.",
)
@click.option("--tls-cert", default="", metavar="FILE", help="Speak TLS, with this certificate (PEM).")
@click.option("--tls-key", default="", metavar="FILE", help="The certificate's key (PEM).")
@click.option("--client-ca", default="", metavar="FILE", help="Who has a certificate signed by this CA may come in.")
@click.option("--plain-http", is_flag=True, help="No TLS although other hosts can reach it.")
@click.option("--watch", is_flag=True, help="Deploy after every change of the project's files, as `rollout watch`.")
@click.option("--healthy", is_flag=True, help="Only say whether this project's sidecar is at work: exit code 0 or 1.")
@global_options
@click.pass_context
def command(ctx: click.Context, /, log_format: str, watch: bool, healthy: bool, plain_http: bool, **tcp: str) -> int:
    """Run next to the proxy day and night: every pool equals its service's ready replicas.

    What an interrupted run left is finished, whatever crashed, stopped or moved leaves the pool and comes back once it
    is healthy. The proxy keeps serving when this is down. The first signal ends it well, the second at once.
    """
    if healthy:
        return _healthy(ctx)
    from rollout.clock import SystemClock
    from rollout.compose import terminate_all
    from rollout.report.sinks import at_once
    from rollout.server.bus import Bus
    from rollout.server.daemon import Sidecar, serve
    from rollout.server.listening import Tcp
    from rollout.server.logs import logging
    from rollout.signals import Interruption

    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    clock = SystemClock()
    bus = Bus(clock)
    listening = Tcp(**tcp, plain=plain_http)
    listening.refuse()
    said = gathered(ctx)

    def end(text: str) -> None:
        at_once(text)
        ended.put(None)

    interruption = Interruption(end, terminate_all)
    sidecar = Sidecar(compose_options(said), clock, bus, ended, listening, watch)
    as_json = said.json or log_format == "json"
    with interruption.watching(), interruption.guarded(), logging(bus, sys.stdout, as_json=as_json):
        serve(sidecar)
    return 0


def _healthy(ctx: click.Context) -> int:
    """Loads no project: a container's health check runs this again and again."""
    from rollout.clock import SystemClock
    from rollout.compose import Compose
    from rollout.server.daemon import why_not_healthy
    from rollout.state import StateDirectory

    said = gathered(ctx)
    state = StateDirectory.of(Compose(compose_options(said)).directory, os.environ)
    reason = why_not_healthy(state, SystemClock())
    click.echo(json.dumps({"healthy": not reason, "reason": reason}) if said.json else reason or "healthy")
    return 1 if reason else 0
