"""How a rollout is told: live on a terminal, one line an event without one, one JSON object an event for programs."""
