"""The shape of `x-rollout`, at the top level and in a service. Its values are in `values`, what they mean together is
looked at where they are read."""

from __future__ import annotations

from rollout.spec import values
from rollout.spec.section import ListOf, Section

PORT = values.whole(1, 65535)

HEALTH = Section({
    "path": values.url_path,
    "tcp": values.flag,
    "command": values.command,
    "port": PORT,
    "host": values.host_header,
    "headers": values.headers,
    "expect": values.statuses,
    "interval": values.seconds,
    "timeout": values.seconds,
    "healthy_threshold": values.whole(1, 1000),
    "start_period": values.seconds,
    "min_healthy_time": values.seconds,
    "healthy_deadline": values.seconds,
})  # fmt: skip

HOOK = Section({
    "command": values.argv,
    "host_command": values.argv,
    "timeout": values.seconds,
    "failure": values.one_of("fail", "continue"),
})  # fmt: skip

HOOKS = Section({"pre_deploy": HOOK, "post_switch": HOOK, "pre_stop": HOOK})

SCHEDULE = Section(
    {"interval": values.seconds, "jitter": values.seconds, "window": values.windows}, needed=["interval"]
)

SERVICE = Section({
    "port": PORT,
    "strategy": values.one_of("rolling", "blue-green", "recreate"),
    "promotion": values.one_of("auto", "manual"),
    "health": HEALTH,
    "hooks": HOOKS,
    "drain_timeout": values.seconds,
    "keep_warm": values.seconds,
    "keep": values.whole(1, 1000),
    "progress_deadline": values.seconds,
    "hosts": ListOf(values.host_name, alone=True),
    "balance": values.one_of("roundrobin", "leastconn", "random"),
    "keepalive": values.whole(0, 65535),
    "keepalive_timeout": values.seconds,
    "schedule": SCHEDULE,
})  # fmt: skip

PROXY = Section({
    "type": values.one_of("nginx", "haproxy"),
    "config": values.file_path,
    "service": values.service_name,
    "container": values.service_name,
    "host": values.flag,
    "templates": values.file_path,
    "status_port": PORT,
    "socket": values.file_path,
    "master_socket": values.file_path,
    "pid_file": values.file_path,
    "binary": values.file_path,
    "main_config": values.file_path,
}, needed=["type", "config"])  # fmt: skip

WEBHOOK = Section(
    {"secret_file": values.file_path, "images": ListOf(values.printable, alone=True)}, needed=["secret_file", "images"]
)

NOTIFY = Section({
    "url": values.web_address,
    "url_file": values.file_path,
    "format": values.one_of("json", "slack"),
    "secret_file": values.file_path,
    "on": ListOf(
        values.one_of("deployed", "undone", "aborted", "interrupted", "failed", "unfinished", "held", "paused"),
        alone=True,
    ),
})  # fmt: skip

PROJECT = Section({"proxy": PROXY, "serve": Section({"webhook": WEBHOOK}), "notify": ListOf(NOTIFY)}, needed=["proxy"])

# Compose's own: what it does not know it refuses itself, but it takes times that are negative
HEALTHCHECK = Section({
    "interval": values.seconds,
    "timeout": values.seconds,
    "retries": values.whole(0),
    "start_period": values.seconds,
}, others=True)  # fmt: skip

# `update_config` and `rollback_config`
UPDATE = Section({
    "parallelism": values.whole(0),
    "delay": values.seconds,
    "order": values.one_of("start-first", "stop-first"),
    "failure_action": values.one_of("rollback", "pause", "continue"),
    "monitor": values.seconds,
    "max_failure_ratio": values.ratio,
}, others=True)  # fmt: skip
