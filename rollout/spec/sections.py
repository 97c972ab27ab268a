"""The shape of `x-rollout`, at the top level and in a service: pydantic models, used in this package only.

Imported late: pydantic and the models cost some 60 ms, which `spec.warm_up` spends while Compose works.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rollout.model import Window
from rollout.spec import values
from rollout.spec.faults import Refused


def _whole(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise Refused("must be a whole number")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(values.seconds)]
Whole = Annotated[int, BeforeValidator(_whole)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Text = Annotated[str, BeforeValidator(values.printable)]
FilePath = Annotated[str, BeforeValidator(values.file_path)]
Outcome = Literal["deployed", "undone", "aborted", "interrupted", "failed", "unfinished", "held", "paused"]
Host = Annotated[str, BeforeValidator(values.host_name)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HealthSection(Section):
    path: Annotated[str, BeforeValidator(values.url_path)] | None = None
    tcp: bool = False
    command: Annotated[tuple[str, ...], BeforeValidator(values.command)] | None = None
    port: Port | None = None
    host: Annotated[str, BeforeValidator(values.host_header)] | None = None
    headers: Annotated[tuple[tuple[str, str], ...], BeforeValidator(values.headers)] = ()
    expect: Annotated[tuple[tuple[int, int], ...], BeforeValidator(values.statuses)] | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    healthy_threshold: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    start_period: Duration | None = None
    min_healthy_time: Duration | None = None
    healthy_deadline: Duration | None = None


class HookSection(Section):
    command: Annotated[tuple[str, ...], BeforeValidator(values.argv)] | None = None
    host_command: Annotated[tuple[str, ...], BeforeValidator(values.argv)] | None = None
    timeout: Duration | None = None
    failure: Literal["fail", "continue"] | None = None


class HooksSection(Section):
    pre_deploy: HookSection = HookSection()
    post_switch: HookSection = HookSection()
    pre_stop: HookSection = HookSection()


class ScheduleSection(Section):
    interval: Duration
    jitter: Duration | None = None
    window: Annotated[tuple[Window, ...], BeforeValidator(values.windows)] | None = None


class ServiceSection(Section):
    port: Port | None = None
    strategy: Literal["rolling", "blue-green", "recreate"] = "rolling"
    promotion: Literal["auto", "manual"] = "auto"
    health: HealthSection = HealthSection()
    hooks: HooksSection = HooksSection()
    drain_timeout: Duration | None = None
    keep_warm: Duration | None = None
    keep: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    progress_deadline: Duration | None = None
    hosts: Annotated[tuple[Host, ...], BeforeValidator(_listed)] = ()
    balance: Literal["roundrobin", "leastconn", "random"] | None = None
    keepalive: Annotated[Whole, Field(ge=0, le=65535)] | None = None
    keepalive_timeout: Duration | None = None
    schedule: ScheduleSection | None = None


class ProxySection(Section):
    type: Literal["nginx", "haproxy"]
    config: FilePath
    service: Annotated[str, BeforeValidator(values.service_name)] | None = None
    container: Annotated[str, BeforeValidator(values.service_name)] | None = None
    host: bool = False
    templates: FilePath | None = None
    status_port: Port | None = None
    socket: FilePath | None = None
    master_socket: FilePath | None = None
    pid_file: FilePath | None = None
    binary: FilePath | None = None
    main_config: FilePath | None = None


class WebhookSection(Section):
    secret_file: FilePath
    images: Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]


class ServeSection(Section):
    webhook: WebhookSection | None = None


class NotifySection(Section):
    url: Annotated[str, BeforeValidator(values.web_address)] | None = None
    url_file: FilePath | None = None
    format: Literal["json", "slack"] | None = None
    secret_file: FilePath | None = None
    on: Annotated[tuple[Outcome, ...], BeforeValidator(_listed)] | None = None


class ProjectSection(Section):
    proxy: ProxySection
    serve: ServeSection = ServeSection()
    notify: tuple[NotifySection, ...] = ()


class UpdateSection(BaseModel):
    """Compose's own `update_config` and `rollback_config`; what it does not know it refuses itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    parallelism: Annotated[Whole, Field(ge=0)] | None = None
    delay: Duration | None = None
    order: Literal["start-first", "stop-first"] | None = None
    failure_action: Literal["rollback", "pause", "continue"] | None = None
    monitor: Duration | None = None
    max_failure_ratio: Annotated[float, Field(ge=0, le=1)] | None = None


def given(section: BaseModel, *names: str) -> dict[str, Any]:
    """The values the user gave, of these fields (all without names): defaults stay the core's business."""
    wanted = names or tuple(type(section).model_fields)
    return {name: getattr(section, name) for name in wanted if getattr(section, name) is not None}
