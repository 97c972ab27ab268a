"""A resolved Compose project in, typed settings out."""

from rollout.spec.read import ensure_known, read_project

__all__ = ["ensure_known", "read_project"]
