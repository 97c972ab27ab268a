"""What a seed of Hypothesis leaves to chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants


@contextmanager
def whatever_was_imported() -> Iterator[None]:
    """A seed draws the same in this block after any other tests: Hypothesis also draws from the constants of all local
    modules imported so far, and which those are is a question of the order in which a worker gets its tests. It keeps
    what it took from them for each kind of draw as well."""
    none = Constants()
    with patch.object(providers, "_get_local_constants", lambda: none), patch.object(providers, "CONSTANTS_CACHE", {}):
        assert providers.HypothesisProvider(None)._local_constants is none, "Hypothesis gets them elsewhere now"
        yield
