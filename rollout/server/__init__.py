"""The sidecar: `rollout serve`, which runs next to the proxy day and night. The proxy keeps serving when it is down."""
