"""A project as Compose resolved it → `model.Project`. Every fault is found before any is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollout.errors import Fault, SpecError, UsageError
from rollout.model import Project, ProxySettings, ProxyType, ServiceSettings, WebhookSettings
from rollout.paths import absolute, exists, expanded, is_directory
from rollout.preflight import blockers
from rollout.spec.faults import Faults, Place, did_you_mean
from rollout.spec.notify import read_notify
from rollout.spec.section import validate
from rollout.spec.sections import PROJECT
from rollout.spec.service import read_service

KEY = "x-rollout"
_NGINX_ONLY = ("status_port",)
_HAPROXY_ONLY = ("socket", "master_socket")
_BLOCKING = ((KEY, "strategy"), ("deploy", "update_config"))  # what preflight judges by
_HOST_ONLY = ("pid_file", "binary", "main_config")


def read_project(
    document: Mapping[str, Any],
    directory: str,
    config: str,
    *,
    files: Sequence[str] = (),
    lossy: Sequence[Place] = (),
) -> Project:
    """The settings that `document` (Compose's resolved project, `config` as plain values) declares.

    Relative paths are seen from `directory`. `files` are the user's own Compose files: faults name the line in them.
    `lossy`: places of texts that Compose has not written out whole.
    Raises SpecError with every fault of the project, those that `preflight` finds included. Without a fault here,
    preflight is the caller's to ask, for the services it is about to deploy.
    """
    faults = Faults()
    services: Mapping[str, Any] = document.get("services") or {}
    section = _section(document, faults)
    proxy = _proxy(section.get("proxy", {}), services, directory, faults)
    notify = read_notify(section.get("notify", ()), directory, (KEY, "notify"), faults)
    webhook = _webhook(section, directory, faults)
    networks = _network_names(document)
    read: dict[str, ServiceSettings] = {}
    for name, raw in services.items():
        if KEY in raw:
            read[name] = read_service(name, raw, networks, faults)
            _check_hosts(read[name], proxy, faults)
    for place in lossy:
        if len(place) > 1 and place[1] in read:
            message = "begins with an empty line, which Compose loses when it writes the project out"
            faults.add(place, message, "remove the empty line")
    if not any(KEY in raw for raw in services.values()):
        faults.add(("services",), f"no service has {KEY}", f"add {KEY}: {{ port: 8000 }} to the one to deploy")
    if faults.found or proxy is None:
        raise SpecError([*faults.as_errors(files), *_also_blocked(read, services, proxy, faults)])
    return Project(str(document.get("name", "")), directory, proxy, read, config, webhook, notify)


def _check_hosts(settings: ServiceSettings, proxy: ProxySettings | None, faults: Faults) -> None:
    if settings.pool.hosts and proxy is not None and proxy.type is ProxyType.HAPROXY:
        faults.add(
            ("services", settings.name, KEY, "hosts"),
            "means nothing to haproxy: its frontends are yours, rollout writes no virtual hosts for it",
            f"write there: use_backend {settings.name} if {{ req.hdr(host) -i {settings.pool.hosts[0]} }}",
        )


def ensure_known(project: Project, document: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Refuse service names that this project does not deploy. Raises UsageError."""
    for name in wanted:
        if name in project.services:
            continue
        if name in (document.get("services") or {}):
            hint = f"add {KEY}: {{ port: 8000 }} to services.{name}"
            raise UsageError(f"service {name} has no {KEY}: rollout does not deploy it", hint=hint)
        hint = did_you_mean(name, project.services)
        raise UsageError(f"there is no service {name!r} in project {project.name}", hint=hint)


def _also_blocked(
    read: Mapping[str, ServiceSettings], services: Mapping[str, Any], proxy: ProxySettings | None, faults: Faults
) -> list[Fault]:
    proxy_service = proxy.service if proxy else ""
    return [
        Fault(found.where, found.message, found.fix)
        for name, settings in read.items()
        if not faults.spoil(*(("services", name, *key) for key in _BLOCKING))
        for found in blockers(settings, services[name], proxy_service)
    ]


def _network_names(document: Mapping[str, Any]) -> dict[str, str]:
    project = document.get("name", "")
    declared: Mapping[str, Any] = document.get("networks") or {}
    return {key: str((network or {}).get("name") or f"{project}_{key}") for key, network in declared.items()}


def _section(document: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    if KEY not in document:
        hint = (
            f"add {KEY}: {{ proxy: {{ type: nginx, service: edge, config: ./edge/rollout.d }} }} at the top level of "
            "the main file: Compose drops that of an included one"
        )
        faults.add((KEY,), "is missing: rollout does not know the proxy", hint)
        return {}
    return validate(PROJECT, document[KEY], (KEY,), faults)


def _webhook(section: Mapping[str, Any], directory: str, faults: Faults) -> WebhookSettings | None:
    webhook = section.get("serve", {}).get("webhook")
    if webhook is None:
        return None
    if webhook.get("images") == ():
        faults.add((KEY, "serve", "webhook", "images"), "allows no image", "like registry.example/shop/web:*")
    if faults.spoil((KEY, "serve", "webhook")):
        return None
    return WebhookSettings(absolute(expanded(webhook["secret_file"]), directory), webhook["images"])


def _proxy(
    section: Mapping[str, Any], services: Mapping[str, Any], directory: str, faults: Faults
) -> ProxySettings | None:
    place: Place = (KEY, "proxy")
    values = dict(section)
    _check_where(values, services, place, faults)
    _check_fitting(values, place, faults)
    for key in ("config", "templates", "pid_file", "main_config", "socket", "master_socket"):
        if key in values and not values[key].startswith("tcp:"):
            values[key] = absolute(expanded(values[key]), directory)
    if "/" in values.get("binary", ""):
        values["binary"] = absolute(expanded(values["binary"]), directory)
    _check_directories(values, place, faults)
    if faults.spoil(place):
        return None
    return ProxySettings(**{**values, "type": ProxyType(values["type"])})


def _check_where(values: Mapping[str, Any], services: Mapping[str, Any], place: Place, faults: Faults) -> None:
    named = [key for key in ("service", "container", "host") if values.get(key)]
    if len(named) > 1:
        faults.add(place, f"{' and '.join(named)} exclude each other", "keep the one that says where the proxy runs")
    if not named and not faults.spoil(*((*place, key) for key in ("service", "container", "host"))):
        faults.add(place, "does not say where the proxy runs", "add service: NAME, container: NAME or host: true")
    service = values.get("service")
    if service and service not in services:
        hint = f"{did_you_mean(service, services)}; or is its profile not active?"
        faults.add((*place, "service"), f"there is no service {service}", hint)


def _check_fitting(values: Mapping[str, Any], place: Place, faults: Faults) -> None:
    others = {"": (), ProxyType.NGINX: _HAPROXY_ONLY, ProxyType.HAPROXY: _NGINX_ONLY}
    for key in others[values.get("type", "")]:
        if key in values:
            faults.add((*place, key), f"means nothing to {values['type']}", "remove it, or change type")
    for key in _HOST_ONLY:
        if key in values and not values.get("host") and not faults.spoil((*place, "host")):
            faults.add((*place, key), "only means something with host: true", "remove it: a container tells by itself")


def _check_directories(values: Mapping[str, Any], place: Place, faults: Faults) -> None:
    for key in ("config", "templates"):
        path = values.get(key)
        if path is None or is_directory(path):
            continue
        if exists(path):
            faults.add((*place, key), f"{path} is not a directory", "name the directory that holds the files")
        else:
            way = " and mount it into the proxy" if key == "config" and not values.get("host") else ""
            faults.add((*place, key), f"there is no directory {path}", f"mkdir -p {path}{way}")
