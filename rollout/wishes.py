"""What is asked of a deploy beside the names of services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rollout.errors import UsageError
from rollout.model import Promotion, ServiceSettings, Strategy


@dataclass(frozen=True, slots=True)
class Wishes:
    """`change` is what else was asked for a service's settings; `wait_lock` in seconds."""

    image: str = ""  # instead of the project's; of one service
    pull: str = "missing"  # always | missing | never
    build: bool = False
    force: bool = False
    strategy: str = ""  # instead of the one in x-rollout
    wait_lock: float = 0.0
    change: Callable[[ServiceSettings], ServiceSettings] | None = None

    def apply(self, settings: ServiceSettings) -> ServiceSettings:
        """The settings as these wishes have them. Raises UsageError for what does not go together."""
        changed = with_strategy(self.strategy)(settings)
        return self.change(changed) if self.change else changed

    def refuse_for(self, wanted: Sequence[str]) -> None:
        """Raise UsageError for what cannot be meant of these services."""
        from rollout.spec.faults import Refused
        from rollout.spec.values import image

        if self.image and len(wanted) != 1:
            raise UsageError("--image needs exactly one SERVICE", hint="rollout deploy SERVICE --image REF")
        if self.image and self.build:
            raise UsageError(
                "--image and --build exclude each other", hint="name the image, or let Compose build its own"
            )
        try:
            image(self.image or "none")
        except Refused as error:
            raise UsageError(f"--image: {error.message}", hint=error.hint) from error


def with_strategy(name: str | None) -> Callable[[ServiceSettings], ServiceSettings]:
    """A change to settings; it raises UsageError where nobody would be waited for any more (`promotion: manual`)."""

    def change(settings: ServiceSettings) -> ServiceSettings:
        if not name:
            return settings
        changed = replace(settings, strategy=Strategy(name))
        if changed.promotion is Promotion.MANUAL and changed.strategy is not Strategy.BLUE_GREEN:
            raise UsageError(
                f"service {settings.name}: promotion: manual means nothing to {name}",
                hint="leave out --strategy, or write promotion: auto",
            )
        return changed

    return change
