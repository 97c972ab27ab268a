"""What is asked of a deploy beside the names of services."""

from __future__ import annotations

import pytest

from rollout.errors import UsageError
from rollout.model import Promotion, ServiceSettings, Strategy
from rollout.wishes import Wishes, with_strategy

HELD = ServiceSettings("web", 8000, strategy=Strategy.BLUE_GREEN, promotion=Promotion.MANUAL)


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_no_flag_takes_a_switch_out_of_a_persons_hands(strategy: str) -> None:
    """The file's own pair is refused as well. `plan` asks by the same rule."""
    for change in (Wishes(strategy=strategy).apply, with_strategy(strategy)):
        with pytest.raises(UsageError, match=f"service web: promotion: manual means nothing to {strategy}") as refused:
            change(HELD)
        assert "--strategy" in refused.value.hint


@pytest.mark.parametrize("strategy", ["", "blue-green"])
def test_what_is_held_stays_held(strategy: str) -> None:
    assert Wishes(strategy=strategy).apply(HELD) == HELD


def test_a_strategy_is_for_this_deploy() -> None:
    assert Wishes(strategy="recreate").apply(ServiceSettings("web", 8000)).strategy is Strategy.RECREATE
