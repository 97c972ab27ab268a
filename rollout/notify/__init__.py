"""Telling others how rollouts end, over web hooks, beside the rollouts: it never delays or fails one."""

from rollout.notify.notifier import Notifier

__all__ = ["Notifier"]
