"""Zero-downtime deploys for Docker services behind the nginx or HAProxy that is already there."""

__version__ = "0.1.0"
