"""Watching: the project's files, so that an edit is served; registries, so that a new image is (`schedule`)."""
