"""Honest load for end-to-end tests: it retries nothing, hides nothing and counts every anomaly by class.

    with Load("http://127.0.0.1:8080", Mix.standard()) as load:
        load.wait_for(1000)
        ...
    assert load.report().failed == 0, load.report().describe()

`python -m tests.load URL` does the same from a shell. `app.py` is the application that the load is aimed at.
"""

from tests.load.child import Load, LoadError
from tests.load.mix import Mix
from tests.load.report import Failure, Report

__all__ = ["Failure", "Load", "LoadError", "Mix", "Report"]
