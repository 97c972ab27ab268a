"""Docker Compose v2: the project in, new containers out. Everything Compose can say itself is left to Compose."""

from rollout.compose.client import Compose, LoadedProject, Options

__all__ = ["Compose", "LoadedProject", "Options"]
