"""rollout init"""

from __future__ import annotations

import json
from pathlib import Path

import click

from rollout.cli.options import gathered, global_options
from rollout.paths import is_directory

COMPOSE = """\
# at the top level of {file}:
x-rollout:
  proxy:
    type: {type}
    service: {proxy}             # the Compose service that is the proxy
    config: ./{proxy}/rollout.d  # written by rollout, mounted into the proxy

# in the service {proxy}:
    volumes:
      - ./{proxy}/rollout.d:{inside}:ro

# in each service to deploy (remove its `ports:` and `container_name:`):
    x-rollout:
      port: 8000
      health: {{ path: /healthz }}
      # strategy: rolling         # or blue-green, recreate
      # drain_timeout: 30s        # what is still open then is cut, and counted in the receipt
      # keep_warm: 0s             # how long the old replicas run on: a rollback is only a switch meanwhile
      # keep: 3                   # revisions to which `rollout rollback` can go back
      # progress_deadline: 10m    # how long a deploy may take up to its switch
      # balance: roundrobin       # or leastconn, random
      # hooks: {{ pre_deploy: {{ command: ["./manage.py", "migrate"] }} }}
"""
PROXY = {
    "nginx": """\
# in nginx.conf, within http {{}}; a service's upstream has the service's name:
    include /etc/nginx/rollout.d/*.conf;
    access_log /dev/stdout rollout;   # optional: counts requests by revision for the receipt
    keepalive_timeout 15s;
    keepalive_min_timeout 15s;        # nginx before 1.27.4: keepalive_timeout 0; instead of both
    proxy_connect_timeout 1s;         # a replica that has died is given up soon, and the next one asked
    server {{
        listen 80;
        location / {{
            proxy_pass http://web;        # without a port: that is the upstream's
            proxy_http_version 1.1;
            proxy_set_header Connection $rollout_connection;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $host;
        }}
    }}
""",
    "haproxy": """\
# in haproxy.cfg; a service's backend has the service's name:
global
    stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 15s
    timeout tunnel 1h
    option idle-close-on-response
frontend http
    bind :80
    default_backend web

# in the service {proxy}, besides what is there:
    user: "0:0"                 # owns the sockets: the user that runs rollout
    command: >-
      haproxy -W -db -S /run/haproxy/master.sock,level,admin
      -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/rollout.d
    volumes:
      - ./{proxy}/run:/run/haproxy  # the sockets, where rollout reaches them
""",
}
AFTER = """\
# then, in this order (a proxy that runs already is made anew once, for its new mount: docker compose stop {proxy}):
#   rollout render && docker compose up -d {proxy} && rollout check && rollout deploy"""


@click.command()
@click.option("--type", "kind", type=click.Choice(sorted(PROXY)), default="nginx", show_default=True,
              help="The proxy in use.")  # fmt: skip
@click.option(
    "--proxy", default="edge", show_default=True, metavar="SERVICE", help="The Compose service that is the proxy."
)
@global_options
@click.pass_context
def command(ctx: click.Context, kind: str, proxy: str) -> None:
    """Show what to add to the Compose file and to the proxy's configuration, and create the directory for the latter.

    No file of yours is changed.
    """
    from rollout.compose import Compose, Options
    from rollout.errors import UsageError
    from rollout.spec.faults import Refused
    from rollout.spec.values import service_name

    try:
        service_name(proxy)
    except Refused as error:
        raise UsageError(f"--proxy: {error.message}", hint=error.hint) from error
    said = gathered(ctx)
    compose = Compose(Options(tuple(said.files), "", said.project_directory))
    directory = Path(compose.directory, proxy, "rollout.d")
    created = _made(directory)
    file = Path(compose.files[0]).name if compose.files else "compose.yaml"
    inside = f"/etc/{kind}/rollout.d"
    shown = {
        "compose": COMPOSE.format(file=file, type=kind, proxy=proxy, inside=inside),
        "proxy": PROXY[kind].format(proxy=proxy),
        "then": AFTER.format(proxy=proxy),
    }
    if said.json:
        click.echo(json.dumps({"directory": str(directory), "created": created, **shown}, indent=2))
    else:
        click.echo("\n".join([*([f"# created {directory}\n"] if created else []), *shown.values()]))


def _made(directory: Path) -> bool:
    """Whether it was not there before. Raises StateError."""
    from rollout.errors import StateError

    if is_directory(str(directory)):
        return False
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "run as a user who may write there, or name another service with --proxy"
        raise StateError(f"{directory} cannot be made: {error.strerror}", hint=hint) from error
    return True
