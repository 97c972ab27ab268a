"""A resolved Compose project in, typed settings out. pydantic does the checking and stays in here."""

from rollout.spec.read import ensure_known, read_project, warm_up

__all__ = ["ensure_known", "read_project", "warm_up"]
