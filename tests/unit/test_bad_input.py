"""Bad configuration: every case is told with its place, what is wrong and the way out, and all faults come at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.errors import ExitCode, Fault, SpecError, UsageError
from rollout.spec import ensure_known, read_project

Changes = Mapping[str, Any]

GOOD: dict[str, Any] = {
    "name": "shop",
    "x-rollout": {"proxy": {"type": "nginx", "service": "edge", "config": "./conf"}},
    "services": {
        "edge": {"image": "nginx:1.29", "networks": {"default": None}},
        "web": {
            "image": "shop/web:1",
            "networks": {"default": None},
            "deploy": {"replicas": 2, "update_config": {"parallelism": 1}},
            "x-rollout": {"port": 8000, "health": {"path": "/healthz"}},
        },
        "other": {"image": "shop/other:1", "networks": {"default": None}, "x-rollout": {"port": 9000}},
    },
    "networks": {"default": {"name": "shop_default"}},
}

WEB = "services.web.x-rollout"
PROXY = "x-rollout.proxy"
NOTIFY = "x-rollout.notify[0]"
HOOKED = "x-rollout.serve.webhook"
ELSEWHERE = "services.other.x-rollout.prot"  # a second fault, far from the first: it must be told as well


def changed(document: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """A copy with these places set; a place with a leading `-` is removed."""
    result = copy.deepcopy(dict(document))
    for place, value in changes.items():
        target: Any = result
        *parents, last = place.removeprefix("-").split("/")
        for parent in parents:
            target = target.setdefault(parent, {})
        if place.startswith("-"):
            del target[last]
        else:
            target[last] = value
    return result


def faults_of(document: Mapping[str, Any], directory: Path, files: tuple[str, ...] = ()) -> tuple[Fault, ...]:
    with pytest.raises(SpecError) as refused:
        read_project(document, str(directory), "", files=files)
    assert refused.value.exit_code is ExitCode.USAGE
    return refused.value.faults


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "a-file").touch()
    return tmp_path


def w(key: str, value: Any) -> Changes:
    return {f"services/web/x-rollout/{key}": value}


def h(key: str, value: Any) -> Changes:
    return {f"services/web/x-rollout/health/{key}": value}


def hook(value: Any) -> Changes:
    return w("hooks", {"pre_deploy": value})


def n(one: Any) -> Changes:
    return {"x-rollout/notify": [one]}


def p(key: str, value: Any) -> Changes:
    return {f"x-rollout/proxy/{key}": value}


def hooked(webhook: Any) -> Changes:
    return {"x-rollout/serve": {"webhook": webhook}}


def s(key: str, value: Any) -> Changes:
    return {f"services/web/{key}": value}


# changes, path, fragment of the message, fragment of the hint
CASES: list[tuple[Changes, str, str, str]] = [
    # unknown keys and words
    (w("prot", 8000), f"{WEB}.prot", "unknown key prot", "did you mean port?"),
    (h("intervall", "1s"), f"{WEB}.health.intervall", "unknown key intervall", "did you mean interval?"),
    (h("zzz", 1), f"{WEB}.health.zzz", "unknown key zzz", "known: command, expect,"),
    (w("po\nrt", 1), f"{WEB}.po\\nrt", r"unknown key po\nrt", "did you mean port?"),
    (s("x-rollout", {8000: "x", "port": 1}), f"{WEB}[8000]", "keys must be words", ""),
    (p("conifg", "./conf"), f"{PROXY}.conifg", "unknown key conifg", "did you mean config?"),
    ({"x-rollout/proxies": {}}, "x-rollout.proxies", "unknown key proxies", "did you mean proxy?"),
    (w("strategy", "canary"), f"{WEB}.strategy", "canary is not available yet", "rolling, blue-green, recreate"),
    (w("strategy", "bluegreen"), f"{WEB}.strategy", "unknown value 'bluegreen'", "did you mean blue-green?"),
    (w("strategy", ["rolling"]), f"{WEB}.strategy", "unknown value ['rolling']", "known: rolling"),
    (w("balance", "first"), f"{WEB}.balance", "unknown value 'first'", "known: roundrobin"),
    (p("type", "ngnix"), f"{PROXY}.type", "unknown value 'ngnix'", "did you mean nginx?"),
    (p("type", "caddy"), f"{PROXY}.type", "unknown value 'caddy'", "known: nginx, haproxy"),
    (w("promotion", "by hand"), f"{WEB}.promotion", "unknown value 'by hand'", "known: auto, manual"),
    (w("promotion", "manual"), f"{WEB}.promotion", "manual means nothing to rolling", "strategy: blue-green"),
    # hooks
    (w("hooks", {"pre_deplyo": {}}), f"{WEB}.hooks.pre_deplyo", "unknown key pre_deplyo", "did you mean pre_deploy?"),
    (hook({"commnd": ["x"]}), f"{WEB}.hooks.pre_deploy.commnd", "unknown key commnd", "did you mean command?"),
    (hook({}), f"{WEB}.hooks.pre_deploy", "does not say what to run", "command:"),
    (hook(None), f"{WEB}.hooks.pre_deploy", "must be a mapping", ""),
    (hook({"command": ["a"], "host_command": ["b"]}), f"{WEB}.hooks.pre_deploy", "exclude each other", "keep one"),
    (hook({"command": "./migrate; rm -rf /"}), f"{WEB}.hooks.pre_deploy.command", "no shell runs it", '["sh", "-c"'),
    (hook({"command": []}), f"{WEB}.hooks.pre_deploy.command", "must be a list of texts", "like"),
    (hook({"command": ["a", 1]}), f"{WEB}.hooks.pre_deploy.command", "must be a list of texts", "like"),
    (hook({"command": ["", "a"]}), f"{WEB}.hooks.pre_deploy.command", "names no program", "like"),
    (hook({"host_command": ["a\0b"]}), f"{WEB}.hooks.pre_deploy.host_command", "a NUL", "like"),
    (hook({"command": ["a"], "timeout": "0"}), f"{WEB}.hooks.pre_deploy.timeout", "longer than 0", "like 5m"),
    (hook({"command": ["a"], "failure": "ignore"}), f"{WEB}.hooks.pre_deploy.failure", "unknown value", "known"),
    # notify
    (n({"ulr": "https://x.example/"}), f"{NOTIFY}.ulr", "unknown key ulr", "did you mean url?"),
    (n({}), NOTIFY, "does not say where to", "url_file: PATH"),
    (n({"url": "https://x.example/", "url_file": "a-file"}), NOTIFY, "exclude each other", "keep url_file"),
    (n({"url": "ftp://x.example/hunter2"}), f"{NOTIFY}.url", "is not the URL of a web hook", "like https://"),
    (n({"url": "https://x.example:99999/"}), f"{NOTIFY}.url", "is not the URL of a web hook", "like https://"),
    (n({"url": "https:///hunter2"}), f"{NOTIFY}.url", "is not the URL of a web hook", "like https://"),
    (n({"url": "https://x.example/\nX: hunter2"}), f"{NOTIFY}.url", "is not the URL of a web hook", "like https://"),
    (n({"url": ["hunter2"]}), f"{NOTIFY}.url", "is not the URL of a web hook", "like https://"),
    (n({"url_file": "nowhere"}), f"{NOTIFY}.url_file", "there is no file", "one line"),
    (n({"url_file": "~nobody-at-all/x"}), f"{NOTIFY}.url_file", "there is no file", "one line"),
    (n({"url_file": "a" * 300}), f"{NOTIFY}.url_file", "there is no file", "that you may search"),
    (n({"url_file": "a-file", "secret_file": "nowhere"}), f"{NOTIFY}.secret_file", "there is no file", "one line"),
    (n({"url_file": "a-file", "format": "teams"}), f"{NOTIFY}.format", "unknown value 'teams'", "known: json, slack"),
    (n({"url_file": "a-file", "format": "slack", "secret_file": "a-file"}), f"{NOTIFY}.secret_file", "slack", "remove"),
    (n({"url_file": "a-file", "on": ["deployd"]}), f"{NOTIFY}.on[0]", "unknown value 'deployd'", "did you mean dep"),
    (n({"url_file": "a-file", "on": []}), f"{NOTIFY}.on", "names no outcome", "remove it"),
    ({"x-rollout/notify": {"url": "https://x.example/"}}, "x-rollout.notify", "must be a list", ""),
    # the rest of the sidecar's
    (hooked({"secret_file": "a-file", "images": []}), f"{HOOKED}.images", "allows no image", "like registry.example"),
    (hooked({"images": "a:*"}), f"{HOOKED}.secret_file", "is missing", ""),
    (hooked({"secret_file": "a-file", "images": [1]}), f"{HOOKED}.images[0]", "must be text", "quotes"),
    (w("schedule", {"jitter": "1m"}), f"{WEB}.schedule.interval", "is missing", "like 1h"),
    (w("schedule", {"interval": None}), f"{WEB}.schedule.interval", "is missing", "like 1h"),
    (w("schedule", {"interval": "59s"}), f"{WEB}.schedule.interval", "is too often", "60s or more"),
    (w("schedule", {"interval": "9000h"}), f"{WEB}.schedule.interval", "is longer than a year", "24h"),
    # wrong shapes
    (s("x-rollout", "yes"), WEB, "must be a mapping", ""),
    (w("health", "/healthz"), f"{WEB}.health", "must be a mapping", ""),
    (w("port", "http"), f"{WEB}.port", "must be a whole number", ""),
    (w("port", True), f"{WEB}.port", "must be a whole number", ""),
    (w("port", 0), f"{WEB}.port", "must be at least 1", ""),
    (w("port", 65536), f"{WEB}.port", "must be at most 65535", ""),
    (h("port", -1), f"{WEB}.health.port", "must be at least 1", ""),
    (w("keep", 0), f"{WEB}.keep", "must be at least 1", ""),
    (w("keepalive", -1), f"{WEB}.keepalive", "must be at least 0", ""),
    (w("keepalive", 1.5), f"{WEB}.keepalive", "must be a whole number", ""),
    (h("healthy_threshold", 0), f"{WEB}.health.healthy_threshold", "must be at least 1", ""),
    (w("hosts", {"a": 1}), f"{WEB}.hosts", "must be a list", ""),
    (h("tcp", "perhaps"), f"{WEB}.health.tcp", "must be true or false", ""),
    (p("host", "perhaps"), f"{PROXY}.host", "must be true or false", ""),
    (h("headers", ["A: b"]), f"{WEB}.health.headers", "must be a mapping", "X-Probe"),
    (h("command", []), f"{WEB}.health.command", "must be a command", "a line of shell"),
    (h("command", [1]), f"{WEB}.health.command", "must be a command", "curl"),
    (h("expect", "2xx"), f"{WEB}.health.expect", "'2xx' is not an HTTP status", "200-399"),
    (h("expect", [200, 700]), f"{WEB}.health.expect", "700 is not an HTTP status", "[200, 401]"),
    (h("expect", "399-200"), f"{WEB}.health.expect", "399-200 is empty", "write 200-399"),
    (h("expect", []), f"{WEB}.health.expect", "accepts no status", "like 200"),
    # times
    (w("drain_timeout", 30), f"{WEB}.drain_timeout", "30 has no unit", "write 30s"),
    (w("drain_timeout", "-5s"), f"{WEB}.drain_timeout", "'-5s' is not a duration", "not negative"),
    (w("drain_timeout", "5 minutes"), f"{WEB}.drain_timeout", "is not a duration", "1m30s"),
    (w("keep_warm", True), f"{WEB}.keep_warm", "must be a duration", "30s"),
    (h("interval", "0s"), f"{WEB}.health.interval", "must be longer than 0", "500ms"),
    (h("timeout", 0), f"{WEB}.health.timeout", "must be longer than 0", "500ms"),
    (w("keepalive_timeout", "0s"), f"{WEB}.keepalive_timeout", "must be longer than 0", "keepalive: 0"),
    (
        {**h("min_healthy_time", "60s"), **h("healthy_deadline", "60s")},
        f"{WEB}.health.min_healthy_time", "60s is not shorter than healthy_deadline", "min_healthy_time < healthy_dead",
    ),
    (
        {**h("healthy_deadline", "2m"), **w("progress_deadline", "1m")},
        f"{WEB}.progress_deadline", "60s is not longer than healthy_deadline, 120s", "< progress_deadline",
    ),
    (
        {**h("healthy_deadline", "2s"), **h("timeout", "3s")},
        f"{WEB}.health.timeout", "3s is not shorter than healthy_deadline", "below 2s",
    ),
    (
        {**h("healthy_deadline", "10s"), **h("healthy_threshold", 12), **h("interval", "1s")},
        f"{WEB}.health.healthy_threshold", "12 successes 1s apart do not fit into 10s", "lower the threshold",
    ),
    # Compose's own times, which it takes as they are
    (s("stop_grace_period", "-1s"), "services.web.stop_grace_period", "'-1s' is not a duration", "not negative"),
    (s("healthcheck", {"interval": "-1s"}), "services.web.healthcheck.interval", "is not a duration", "not negative"),
    (s("healthcheck", {"timeout": "1d"}), "services.web.healthcheck.timeout", "is not a duration", "like 30s"),
    (s("healthcheck", {"start_period": "-5s"}), "services.web.healthcheck.start_period", "duration", "not negative"),
    # Compose's own update_config
    (
        s("deploy/update_config", {"order": "sideways"}),
        "services.web.deploy.update_config.order", "unknown value 'sideways'", "known: start-first, stop-first",
    ),
    (
        s("deploy/update_config", {"failure_action": "rolback"}),
        "services.web.deploy.update_config.failure_action", "unknown value", "did you mean rollback?",
    ),
    (
        s("deploy/update_config", {"max_failure_ratio": 1.5}),
        "services.web.deploy.update_config.max_failure_ratio", "must be at most 1", "",
    ),
    (
        s("deploy/rollback_config", {"parallelism": -1}),
        "services.web.deploy.rollback_config.parallelism", "must be at least 0", "",
    ),
    # what would be injected into a proxy's configuration or a request
    (w("hosts", ["a.example\nserver evil"]), f"{WEB}.hosts[0]", "line break or control character", "one line"),
    (w("hosts", ["ok.example", 'a"b']), f"{WEB}.hosts[1]", "is not a host name", "shop.example"),
    (w("hosts", "a b"), f"{WEB}.hosts[0]", "'a b' is not a host name", "without scheme or path"),
    (w("hosts", ["http://shop.example/"]), f"{WEB}.hosts[0]", "is not a host name", "without scheme"),
    (w("hosts", ["x;}"]), f"{WEB}.hosts[0]", "is not a host name", "shop.example"),
    (h("host", "a\r\nX: y"), f"{WEB}.health.host", "line break or control character", "one line"),
    (h("host", "a/b"), f"{WEB}.health.host", "'a/b' is not a host", "shop.example:8080"),
    (h("headers", {"X-A": "b\r\nX-B: c"}), f"{WEB}.health.headers", "value of X-A holds a line break", "one line"),
    (h("headers", {"X A": "b"}), f"{WEB}.health.headers", "'X A' is not a header name", "X-Probe"),
    (h("headers", {"Host": "b"}), f"{WEB}.health.headers", "key of its own", "health.host"),
    (h("headers", {"X-A": None}), f"{WEB}.health.headers", "value of X-A must be text", "quotes"),
    (h("headers", {"X-A": "5 €"}), f"{WEB}.health.headers", "value of X-A holds a character that", "encode it"),
    (h("headers", {"X-A": " b"}), f"{WEB}.health.headers", "value of X-A begins or ends with a space", "remove it"),
    (h("headers", {"X-A": "b "}), f"{WEB}.health.headers", "value of X-A begins or ends with a space", "remove it"),
    (h("path", "healthz"), f"{WEB}.health.path", "does not begin with /", "write /healthz"),
    (h("path", "http://web:80/up"), f"{WEB}.health.path", "does not begin with /", "write /up"),
    (h("path", "/a b"), f"{WEB}.health.path", "a character that a path cannot", "%20"),
    (h("path", "/a\nb"), f"{WEB}.health.path", "line break", "one line"),
    (h("path", 5), f"{WEB}.health.path", "must be text", "quotes"),
    (p("service", "edge\n"), f"{PROXY}.service", "line break", "one line"),
    (p("service", 'ed"ge'), f"{PROXY}.service", "is not a service name", "letters, digits"),
    (p("config", 'conf"'), f"{PROXY}.config", "holds a quote", "rename"),
    (p("config", "a\nb"), f"{PROXY}.config", "line break", "one line"),
    (
        {"services/we b": {"image": "x", "networks": {"default": None}, "x-rollout": {"port": 1}}},
        "services.we b", "'we b' is not a service name", "letters, digits",
    ),
    (s("image", "shop/web:1\n  privileged: true"), "services.web.image", "line break", "one line"),
    (s("image", "Shop:1"), "services.web.image", "'Shop:1' is not an image", "lower case"),
    (s("image", "shop web:1"), "services.web.image", "'shop web:1' is not an image", "shop/web:1.2"),
    # keys that contradict each other
    (h("tcp", True), f"{WEB}.health", "path and tcp exclude each other", "keep one"),
    (h("command", "true"), f"{WEB}.health", "path and command exclude each other", "keep one"),
    (w("health", {"tcp": True, "host": "a"}), f"{WEB}.health.host", "only means something with path", "/healthz"),
    (w("health", {"command": "x", "expect": 200}), f"{WEB}.health.expect", "only means something with path", "remove"),
    # the port
    ({"-services/web/x-rollout/port": None}, f"{WEB}.port", "is missing", "like port: 8000"),
    (
        {"-services/web/x-rollout/port": None, **s("expose", ["80", "443"])},
        f"{WEB}.port", "names more than one: 443, 80", "say which",
    ),
    ({"-services/web/x-rollout/port": None, **s("expose", ["53/udp"])}, f"{WEB}.port", "is missing", "like port"),
    # the proxy
    ({"-x-rollout": None}, "x-rollout", "rollout does not know the proxy", "proxy: { type: nginx"),
    ({"x-rollout": None}, PROXY, "is missing", "proxy: { type: nginx"),
    ({"x-rollout": {"proxy": None}}, PROXY, "must be a mapping", ""),
    ({"-x-rollout/proxy/type": None}, f"{PROXY}.type", "is missing", "nginx or haproxy"),
    ({"-x-rollout/proxy/config": None}, f"{PROXY}.config", "is missing", "directory the proxy has mounted"),
    ({"-x-rollout/proxy/service": None}, PROXY, "does not say where the proxy runs", "host: true"),
    (p("container", "nginx"), PROXY, "service and container exclude each other", "keep the one"),
    (p("host", True), PROXY, "service and host exclude each other", "keep the one"),
    (p("service", "egde"), f"{PROXY}.service", "there is no service egde", "did you mean edge?"),
    (p("config", "./none"), f"{PROXY}.config", "there is no directory", "mkdir -p"),
    (p("config", "./a-file"), f"{PROXY}.config", "is not a directory", "name the directory"),
    (p("config", "~nobody-at-all/conf"), f"{PROXY}.config", "there is no directory", "mkdir -p"),
    (p("config", f"/{'a' * 300}"), f"{PROXY}.config", "there is no directory", "mkdir -p"),
    (p("templates", "./none"), f"{PROXY}.templates", "there is no directory", "mkdir -p"),
    (p("socket", "/run/h.sock"), f"{PROXY}.socket", "means nothing to nginx", "change type"),
    ({**p("type", "haproxy"), **p("status_port", 81)}, f"{PROXY}.status_port", "means nothing to haproxy", "type"),
    (
        {**p("type", "haproxy"), **w("hosts", ["shop.example"])},
        f"{WEB}.hosts", "means nothing to haproxy", "use_backend web if { req.hdr(host) -i shop.example }",
    ),
    (p("status_port", 0), f"{PROXY}.status_port", "must be at least 1", ""),
    (p("pid_file", "/run/n.pid"), f"{PROXY}.pid_file", "only means something with host: true", "remove it"),
    (p("binary", "nginx"), f"{PROXY}.binary", "only means something with host: true", "remove it"),
    # what cannot be rolled is told in the same breath
    (s("container_name", "web"), "services.web.container_name", "only one container can have the name", "recreate"),
    (
        s("ports", [{"target": 80, "published": "8080"}]),
        "services.web.ports[0]", "host port 8080 can be held by one container", "the proxy reaches the service",
    ),
    (s("deploy/replicas", 0), "services.web.deploy.replicas", "nothing would serve", "1 or more"),
    (s("deploy/replicas", -2), "services.web.deploy.replicas", "-2 replicas: nothing would serve", "1 or more"),
    (s("scale", -1), "services.web.scale", "-1 replicas: nothing would serve", "1 or more"),
    (s("network_mode", "host"), "services.web.network_mode", "no address of their own", "remove network_mode"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "path", "message", "hint"), CASES, ids=[f"{i}-{case[1]}" for i, case in enumerate(CASES)]
)
def test_a_fault_is_told_with_its_place_and_the_way_out_beside_all_others(
    directory: Path, changes: Changes, path: str, message: str, hint: str
) -> None:
    document = changed(changed(GOOD, changes), {"services/other/x-rollout/prot": 1})
    faults = {fault.path: fault for fault in faults_of(document, directory)}
    assert set(faults) == {path, ELSEWHERE}
    assert message in faults[path].message
    assert hint in faults[path].hint
    assert "\n" not in faults[path].message, "a fault is one line, whatever the value was"


def test_what_the_cases_change_is_good_to_begin_with(directory: Path) -> None:
    assert set(read_project(GOOD, str(directory), "").services) == {"web", "other"}


def test_every_fault_of_a_list_comes_at_once(directory: Path) -> None:
    both = [{"url": "ftp://x"}, {"format": "json"}, {"ulr": 1, "format": "teams"}]
    document = changed(GOOD, {"x-rollout/notify": both})
    assert [fault.path for fault in faults_of(document, directory)] == [
        "x-rollout.notify[0].url", "x-rollout.notify[2].ulr", "x-rollout.notify[2].format", "x-rollout.notify[1]",
    ]  # fmt: skip


def test_every_fault_of_a_file_comes_at_once(directory: Path) -> None:
    document = changed(
        GOOD,
        {
            **p("type", "caddy"),
            **w("prot", 1),
            **w("drain_timeout", "soon"),
            **h("path", "no-slash"),
            **s("deploy/update_config", {"order": "sideways"}),
            **s("stop_grace_period", "-1s"),
            **s("healthcheck", {"timeout": "-1s", "interval": "soon", "start_interval": "soon"}),
            "-services/other/x-rollout/port": None,
        },
    )
    assert [fault.path for fault in faults_of(document, directory)] == [
        "x-rollout.proxy.type",
        "services.web.stop_grace_period",
        "services.web.healthcheck.timeout",
        "services.web.healthcheck.interval",
        "services.web.x-rollout.health.path",
        "services.web.x-rollout.prot",
        "services.web.x-rollout.drain_timeout",
        "services.web.deploy.update_config.order",
        "services.other.x-rollout.port",
    ]


def test_what_values_mean_together_is_told_with_values_that_are_refused(directory: Path) -> None:
    document = changed(
        GOOD,
        {
            **p("status_prot", 1),
            **p("socket", "/run/haproxy.sock"),
            **p("service", "egde"),
            "x-rollout/serve": {"webhook": {"secret_file": "./secret", "images": []}, "wbehook": {}},
            **w("prot", 1),
            **w("promotion", "manual"),
            **w("progress_deadline", "10s"),
            **w("keepalive_timeout", "soon"),
            **h("wiat", "1s"),
            **h("timeout", "90s"),
            "x-rollout/notify": [{"format": "x"}],
            **w(
                "hooks",
                {
                    "pre_deploy": {"command": ["x"], "host_command": ["y"], "timeout": "0s"},
                    "pre_stop": {"timeout": "x"},
                },
            ),
            **w("schedule", {"interval": "1s", "jittre": "1s"}),
            **s("ports", [{"target": 80, "published": "8080"}]),
        },
    )
    assert sorted(fault.path for fault in faults_of(document, directory)) == sorted([
        "x-rollout.proxy.status_prot",
        "x-rollout.proxy.service",
        "x-rollout.proxy.socket",
        "x-rollout.notify[0]",
        "x-rollout.notify[0].format",
        "x-rollout.serve.wbehook",
        "x-rollout.serve.webhook.images",
        f"{WEB}.prot",
        f"{WEB}.keepalive_timeout",
        f"{WEB}.promotion",
        f"{WEB}.progress_deadline",
        f"{WEB}.schedule.jittre",
        f"{WEB}.schedule.interval",
        f"{WEB}.hooks.pre_deploy",
        f"{WEB}.hooks.pre_deploy.timeout",
        f"{WEB}.hooks.pre_stop",
        f"{WEB}.hooks.pre_stop.timeout",
        f"{WEB}.health.wiat",
        f"{WEB}.health.timeout",
        "services.web.ports[0]",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({**w("strategy", "blue"), **w("promotion", "manual"), **s("container_name", "web")}, [f"{WEB}.strategy"]),
        ({**h("path", "no-slash"), **h("host", "shop.example")}, [f"{WEB}.health.path"]),
        (w("port", "none"), [f"{WEB}.port"]),
        (w("hooks", {"pre_stop": {"command": 1}}), [f"{WEB}.hooks.pre_stop.command"]),
        (w("hooks", {"pre_stop": "x"}), [f"{WEB}.hooks.pre_stop"]),
        ({**h("interval", "soon"), **h("healthy_threshold", 1000)}, [f"{WEB}.health.interval"]),
        ({**h("start_period", "soon"), **h("timeout", "90s")}, [f"{WEB}.health.start_period"]),
        ({**s("healthcheck", {"interval": "soon"}), **h("timeout", "90s")}, ["services.web.healthcheck.interval"]),
        (w("hooks", {"pre_stop": {"commnd": ["x"]}}), [f"{WEB}.hooks.pre_stop.commnd"]),
        ({**p("type", "caddy"), **p("socket", "/x.sock")}, [f"{PROXY}.type"]),
        (p("service", 1), [f"{PROXY}.service"]),
        ({**p("host", "si"), "-x-rollout/proxy/service": None, **p("pid_file", "/x")}, [f"{PROXY}.host"]),
        ({"services/web/x-rollout": "port"}, [WEB]),
        ({"x-rollout": "proxy"}, ["x-rollout"]),
        ({"x-rollout/notify": ["x"]}, [NOTIFY]),
    ],
)
def test_a_value_that_is_refused_is_not_told_as_missing_too(
    directory: Path, changes: Changes, paths: list[str]
) -> None:
    assert [fault.path for fault in faults_of(changed(GOOD, changes), directory)] == paths


def test_a_text_that_compose_has_not_written_out_whole_is_told_for_what_is_deployed(directory: Path) -> None:
    lossy = [("services", "web", "command", 2), ("services", "edge", "command"), ("configs", "one", "content")]
    with pytest.raises(SpecError) as refused:
        read_project(GOOD, str(directory), "", lossy=lossy)
    (fault,) = refused.value.faults
    assert fault.path == "services.web.command[2]" and fault.message.startswith("begins with an empty line")


def test_a_fault_names_the_line_of_the_users_own_file(directory: Path) -> None:
    base = directory / "compose.yml"
    base.write_text(yaml.safe_dump(changed(GOOD, w("prot", 1)), sort_keys=False), encoding="utf-8")
    line = base.read_text(encoding="utf-8").splitlines().index("      prot: 1") + 1
    (fault,) = faults_of(changed(GOOD, w("prot", 1)), directory, (str(base),))
    assert fault.message == f"unknown key prot (compose.yml:{line})"


def test_a_line_is_looked_up_in_the_file_that_overrides(directory: Path) -> None:
    base, override = directory / "compose.yml", directory / "compose.override.yml"
    base.write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    override.write_text("services:\n  web:\n    x-rollout:\n      port: none\n", encoding="utf-8")
    (fault,) = faults_of(changed(GOOD, w("port", "none")), directory, (str(base), str(override)))
    assert fault.message.endswith("(compose.override.yml:4)")


def test_files_that_cannot_be_read_only_cost_the_line_number(directory: Path) -> None:
    broken = directory / "broken.yml"
    broken.write_bytes(b"services: [\xff")
    (fault,) = faults_of(changed(GOOD, w("prot", 1)), directory, (str(broken), str(directory / "none.yml"), "-"))
    assert fault.message == "unknown key prot"


def test_a_project_that_deploys_nothing_is_refused(directory: Path) -> None:
    document = changed(GOOD, {"-services/web": None, "-services/other": None})
    (fault,) = faults_of(document, directory)
    assert (fault.path, fault.message) == ("services", "no service has x-rollout")
    assert "x-rollout: { port: 8000 }" in fault.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("wbe", "there is no service 'wbe' in project shop", "did you mean web?"),
        ("edge", "service edge has no x-rollout", "services.edge"),
        ("web\n", r"there is no service 'web\n'", "did you mean web?"),
    ],
)
def test_naming_a_service_that_is_not_deployed_is_wrong_usage(
    directory: Path, name: str, message: str, hint: str
) -> None:
    project = read_project(GOOD, str(directory), "")
    ensure_known(project, GOOD, ["web", "other"])
    with pytest.raises(UsageError) as refused:
        ensure_known(project, GOOD, ["web", name])
    assert refused.value.exit_code is ExitCode.USAGE
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_no_fault_shows_an_address_of_a_web_hook(directory: Path) -> None:
    for one in ({"url": "ftp://x.example/hunter2"}, {"url": ["hunter2"]}, {"url": "https://x.example/\nhunter2"}):
        told = faults_of(changed(GOOD, n(one)), directory)
        assert told and "hunter2" not in repr(told)
