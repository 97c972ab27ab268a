"""The OpenAPI document, made of the table of endpoints and the models that judge the requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rollout import __version__
from rollout.server.http.endpoints import LONGEST_KEY, Endpoint
from rollout.server.http.schemas import NoQuery, Problem
from rollout.spec.values import LONGEST_NAME, SERVICE_PATTERN

REF = "#/components/schemas/{model}"
ERRORS = {
    "401": "Not authenticated", "403": "Not allowed", "404": "No such thing", "405": "Wrong method",
    "408": "Too slow", "409": "In the way", "413": "Too large", "415": "Not JSON", "422": "Not understood",
    "429": "Too many", "500": "A bug", "503": "Something that is needed does not answer",
}  # fmt: skip
IN_PATH = {
    "service": {"type": "string", "pattern": SERVICE_PATTERN, "maxLength": LONGEST_NAME},
    "id": {"type": "integer", "minimum": 0},
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    models = {e.answer for e in endpoints} | {e.body for e in endpoints if e.body} | {Problem}
    ordered = sorted(models, key=lambda m: m.__name__)
    _, schemas = models_json_schema([(m, "validation") for m in ordered], ref_template=REF)
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rollout",
            "version": __version__,
            "description": "The sidecar of one project. Errors are a Problem; bad input changes nothing.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "responses": {code: _content(text, "application/json", Problem) for code, text in ERRORS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],  # without: over the UNIX socket, or with a client's certificate
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    kind = "text/event-stream" if endpoint.streams else "application/json"
    found: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [*_in_path(endpoint.path), *_in_query(endpoint.query), *_in_headers(endpoint)],
        "responses": {
            str(endpoint.status): _content(endpoint.summary, kind, endpoint.answer),
            **{code: {"$ref": f"#/components/responses/{code}"} for code in ERRORS},
        },
    }
    if endpoint.body is not None:
        found["requestBody"] = {"required": False, "content": {"application/json": {"schema": _ref(endpoint.body)}}}
    return found


def _in_path(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, "schema": IN_PATH[name]} for name in names]


def _in_query(query: type[BaseModel]) -> list[dict[str, Any]]:
    if query is NoQuery:
        return []
    properties: dict[str, Any] = query.model_json_schema()["properties"]
    told = {name: one.get("description", "") for name, one in properties.items()}
    return [
        {"name": name, "in": "query", "required": False, "schema": _plain(one), "description": told[name]}
        for name, one in properties.items()
    ]


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the null: a parameter is there or it is not."""
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    kept = {k: v for k, v in schema.items() if k not in ("anyOf", "default", "title", "description")}
    return {**kept, **(choices[0] if choices else {})}


def _in_headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    text = {"type": "string", "maxLength": LONGEST_KEY}
    names = {
        "Idempotency-Key": endpoint.keyed,
        "Last-Event-ID": endpoint.streams,
        "X-Rollout-Signature": endpoint.signed,
    }
    return [{"name": n, "in": "header", "required": endpoint.signed, "schema": text} for n, has in names.items() if has]


def _content(text: str, kind: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": _ref(model)}}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
