"""Docker Compose v2: the project in, new containers out. Everything Compose can say itself is left to Compose."""

from rollout.compose.client import Compose, LoadedProject, Options
from rollout.compose.document import parse
from rollout.compose.pin import with_image
from rollout.compose.process import terminate_all

__all__ = ["Compose", "LoadedProject", "Options", "parse", "terminate_all", "with_image"]
