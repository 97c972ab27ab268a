"""What the API takes and answers. The OpenAPI document is made of these models, and requests are judged by them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rollout.spec import values
from rollout.spec.faults import Refused

LONGEST_WAIT = 86400.0  # seconds


def _image(value: object) -> str:
    try:
        return values.image(value)
    except Refused as refused:  # pydantic wants its own kind of error
        raise ValueError(f"{refused.message}; {refused.hint}") from None


class Asked(BaseModel):
    """A request's body or query: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


ServiceName = Annotated[str, Field(pattern=values.SERVICE_PATTERN, max_length=values.LONGEST_NAME)]
Image = Annotated[
    str, BeforeValidator(_image), Field(json_schema_extra={"pattern": values.IMAGE_PATTERN, "maxLength": 400})
]
WaitLock = Annotated[
    float, Field(ge=0, le=LONGEST_WAIT, description="Seconds to wait for another rollout of the same service.")
]
Number = Annotated[int, Field(ge=1, le=2**53)]


# --- asked ------------------------------------------------------------------------------------------------------


class DeployBody(Asked):
    services: Annotated[list[ServiceName], Field(max_length=2000, description="Empty: all with x-rollout.")] = []
    image: Annotated[Image | None, Field(description="Instead of the project's; needs exactly one service.")] = None
    pull: Literal["always", "missing", "never"] = "missing"
    build: bool = False
    force: Annotated[bool, Field(description="Replace the replicas even if nothing changed.")] = False
    strategy: Literal["rolling", "blue-green", "recreate"] | None = None
    wait_lock: WaitLock = 600.0
    config: Annotated[
        str | None,
        Field(description="A resolved project (YAML) instead of the sidecar's own files. Over the UNIX socket only."),
    ] = None


class RollbackBody(Asked):
    to: Annotated[Number | None, Field(description="The revision; without it the one before the live one.")] = None
    wait_lock: WaitLock = 600.0
    config: Annotated[str | None, Field(description="As for a deploy. Over the UNIX socket only.")] = None


class SyncBody(Asked):
    services: Annotated[list[ServiceName], Field(max_length=2000, description="Empty: all with x-rollout.")] = []
    wait_lock: WaitLock = 600.0
    config: Annotated[str | None, Field(description="As for a deploy. Over the UNIX socket only.")] = None


class EmptyBody(Asked):
    """Nothing is said beside the address."""


class WebhookBody(Asked):
    service: ServiceName
    image: Image
    pull: Annotated[
        Literal["always", "missing", "never"], Field(description="Whether to ask the registry: a tag may have moved.")
    ] = "always"


class Query(Asked):
    model_config = ConfigDict(strict=False)  # a query is text


class NoQuery(Query):
    pass


class RolloutsQuery(Query):
    service: Annotated[ServiceName | None, Field(description="Only this service's.")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 20


class OperationQuery(Query):
    wait: Annotated[float, Field(ge=0, le=60, description="Seconds to wait for its end before answering.")] = 0.0


class ServiceQuery(Query):
    service: Annotated[ServiceName | None, Field(description="Only this service's.")] = None


# --- answered ---------------------------------------------------------------------------------------------------


class Problem(Answer):
    """Every error. `exit_code` is what the command line would answer."""

    error: str
    message: str
    hint: str = ""
    details: list[str] = []
    exit_code: int


class Live(Answer):
    revision: int
    image: str
    config_hash: str
    image_id: str


class ReplicaStatus(Answer):
    name: str
    id: str
    state: str
    health: str
    ready: bool
    revision: int | None
    image: str
    address: str
    pool: Literal["in", "warm", "out"]
    weight: int


class WarmStatus(Answer):
    revision: int
    until: float


class Wished(Answer):
    wish: str
    who: str
    at: float


class Unfinished(Answer):
    """`by`: who paused or aborted it."""

    rollout: int
    what: str
    state: Literal["running", "held", "paused", "aborting", "undoing"]
    revision: int
    since: float
    switched: bool
    by: str
    wishes: list[Wished]


class Service(Answer):
    service: str
    live: Live | None
    wanted: int
    stale: list[str]
    replicas: list[ReplicaStatus]
    warm: WarmStatus | None
    unfinished: Unfinished | None
    lock: dict[str, Any] | None


class Proxy(Answer):
    type: str
    where: str
    running: bool
    reason: str = ""


class Project(Answer):
    project: str
    proxy: Proxy
    services: list[Service]


class Services(Answer):
    services: list[Service]


class Replicas(Answer):
    replicas: list[ReplicaStatus]


class Revision(Answer):
    revision: int
    image: str
    config_hash: str
    image_id: str
    created_at: float
    live: bool


class Revisions(Answer):
    revisions: list[Revision]


class Rollout(Answer):
    rollout: int
    service: str
    what: str
    state: str
    strategy: str
    revision: int
    image: str
    started_at: float
    receipt: dict[str, Any]


class Rollouts(Answer):
    rollouts: list[Rollout]


class Receipt(Answer):
    model_config = ConfigDict(extra="allow")

    service: str
    rollout: int
    what: str
    outcome: str
    revision: int
    previous: int | None
    started_at: float
    seconds: float
    reason: str = ""


class Operation(Answer):
    id: int
    kind: str
    services: list[str]
    who: str
    image: str
    state: Literal["queued", "running", "succeeded", "failed"]
    created_at: float
    ended_at: float
    exit_code: int | None
    error: str
    message: str
    hint: str
    details: list[str]
    receipts: list[dict[str, Any]]
    pools: dict[str, list[str]]


class Operations(Answer):
    operations: list[Operation]


class Wish(Answer):
    """`at_work`: whether any process performs the rollout now, and so will hear of it."""

    service: str
    rollout: int
    wish: str
    who: str
    at_work: bool


class EventData(Answer):
    model_config = ConfigDict(extra="allow")

    event: str
    service: str
    number: int
    at: float
