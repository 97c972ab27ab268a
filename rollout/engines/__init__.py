"""Container engines behind `ports.Engine`. The only package that knows the Docker SDK."""
