"""Prints the API's OpenAPI document, which docs/openapi.json holds: `python scripts/openapi.py > docs/openapi.json`."""

from __future__ import annotations

import json

from rollout.server.http.openapi import document
from rollout.server.http.table import ENDPOINTS

print(json.dumps(document(ENDPOINTS), indent=1))
