"""What a person may ask of a project, carried out on a `Wired`. The command line and the sidecar are thin over it."""

from rollout.actions.asking import ask
from rollout.actions.changing import deploy, prepare, rollback, sync
from rollout.actions.looking import check, history, revisions, rollout, status

__all__ = ["ask", "check", "deploy", "history", "prepare", "revisions", "rollback", "rollout", "status", "sync"]
