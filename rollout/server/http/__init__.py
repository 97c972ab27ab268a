"""The sidecar's API, metrics and page. Needs the extra `server`; nothing else imports this package."""
