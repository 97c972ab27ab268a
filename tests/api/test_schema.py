"""The OpenAPI document: it is what is served, and what is served keeps to it, whatever is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rollout.server.http import openapi
from rollout.server.http.table import ENDPOINTS
from tests.api.bench import Api, serving, with_token

DOCUMENT = Path(__file__).parents[2] / "docs/openapi.json"
EXAMPLES = 12
HERE = {"service": "web", "id": 1}


def test_the_document_in_docs_is_the_one_that_is_served(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        served = api.unix("GET", "/v1/openapi.json").json
    assert served == json.loads(DOCUMENT.read_text()) == openapi.document(ENDPOINTS), (
        "python scripts/openapi.py > docs/openapi.json"
    )


@pytest.mark.timeout(240)
def test_whatever_is_asked_the_answer_is_as_the_document_says(tmp_path: Path) -> None:
    """All of schemathesis' checks, over what the document allows and over what it does not; an endless stream apart."""
    load_all_checks()
    statuses: dict[str, set[int]] = {}
    with serving(tmp_path) as api:
        schema = schemathesis.openapi.from_url(_url(api, "/v1/openapi.json"), headers=with_token())
        operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
        assert len(operations) == len(ENDPOINTS)
        for operation in operations:
            if operation.label != "GET /v1/events":
                statuses[operation.label] = _tried(operation)
    assert {200, 422} <= statuses["GET /v1/rollouts"]
    assert {202, 422} <= statuses["POST /v1/deploy"]
    assert not {status for found in statuses.values() for status in found if status >= 500}


def _tried(operation: Any) -> set[int]:
    statuses = set()

    def ask(case: Any, real: bool) -> None:
        if real:  # names that exist would hardly ever be guessed
            case.path_parameters.update({name: HERE[name] for name in case.path_parameters})
        # a request may be right by the schema and still mean nothing here: an image for two services
        answer = case.call_and_validate(headers=with_token(), excluded_checks=[positive_data_acceptance], timeout=20)
        statuses.add(answer.status_code)

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        cases = operation.as_strategy(generation_mode=mode)
        reals = st.booleans() if mode is GenerationMode.POSITIVE else st.just(value=False)
        quiet = settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        try:
            quiet(given(cases, reals)(ask))()
        except Unsatisfiable:  # nothing that could be wrong: no parameter, no body
            assert not (operation.path_parameters or operation.query or operation.body), operation.label
    return statuses


def _url(api: Api, path: str) -> str:
    return f"http://{api.address[0]}:{api.address[1]}{path}"
