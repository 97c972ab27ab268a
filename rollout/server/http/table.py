"""Every endpoint of the API, in the order of its document."""

from __future__ import annotations

from rollout.server.http import reading, schemas, streams, webhook, writing
from rollout.server.http.endpoints import Endpoint

ENDPOINTS = (
    Endpoint("GET", "/v1/project", "The project, its proxy and its services", reading.project, schemas.Project),
    Endpoint("GET", "/v1/services", "All services: live revision, replicas, pool", reading.services, schemas.Services),
    Endpoint("GET", "/v1/services/{service}", "One service", reading.service, schemas.Service),
    Endpoint("GET", "/v1/services/{service}/revisions", "Its revisions", reading.revisions, schemas.Revisions),
    Endpoint("GET", "/v1/services/{service}/replicas", "Its replicas", reading.replicas, schemas.Replicas),
    Endpoint(
        "GET", "/v1/rollouts", "Past and present rollouts, newest first", reading.rollouts, schemas.Rollouts,
        query=schemas.RolloutsQuery,
    ),
    Endpoint("GET", "/v1/rollouts/{id}", "One rollout", reading.rollout, schemas.Rollout),
    Endpoint("GET", "/v1/rollouts/{id}/receipt", "What a rollout cost", reading.receipt, schemas.Receipt),
    Endpoint(
        "GET", "/v1/operations", "What was asked of the sidecar, newest first", reading.operations,
        schemas.Operations, query=schemas.ServiceQuery,
    ),
    Endpoint(
        "GET", "/v1/operations/{id}", "One operation", streams.operation, schemas.Operation,
        query=schemas.OperationQuery,
    ),
    Endpoint(
        "GET", "/v1/operations/{id}/events", "What it says, to its end", streams.operation_events, schemas.EventData,
        streams=True,
    ),
    Endpoint(
        "GET", "/v1/events", "All that goes on", streams.events, schemas.EventData, query=schemas.ServiceQuery,
        streams=True,
    ),
    Endpoint(
        "POST", "/v1/deploy", "Deploy services", writing.deploy, schemas.Operation, schemas.DeployBody, status=202,
        keyed=True,
    ),
    Endpoint(
        "POST", "/v1/sync", "Finish what was left, let pools follow replicas", writing.sync, schemas.Operation,
        schemas.SyncBody, status=202, keyed=True,
    ),
    Endpoint(
        "POST", "/v1/services/{service}/rollback", "Go back to a revision", writing.rollback, schemas.Operation,
        schemas.RollbackBody, status=202, keyed=True,
    ),
    Endpoint(
        "POST", "/v1/services/{service}/promote", "Let its rollout go on to the switch", writing.promote,
        schemas.Wish, schemas.EmptyBody,
    ),
    Endpoint(
        "POST", "/v1/services/{service}/pause", "Hold its rollout before the next step", writing.pause, schemas.Wish,
        schemas.EmptyBody,
    ),
    Endpoint(
        "POST", "/v1/services/{service}/resume", "Let its rollout go on", writing.resume, schemas.Wish,
        schemas.EmptyBody,
    ),
    Endpoint(
        "POST", "/v1/services/{service}/abort", "Take its rollout back", writing.abort, schemas.Wish,
        schemas.EmptyBody,
    ),
    Endpoint(
        "POST", "/v1/operations/{id}/interrupt", "As a first Ctrl-C would", writing.interrupt, schemas.Operation,
        schemas.EmptyBody,
    ),
    Endpoint(
        "POST", "/v1/webhook", "Deploy an allowed image, signed with the shared secret", webhook.webhook,
        schemas.Operation, schemas.WebhookBody, status=202, signed=True,
    ),
)  # fmt: skip
