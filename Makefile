# Every target works in a fresh checkout: what it needs is set up first, and a second time costs under a second.
#
#   make test                           everything CI runs
#   make unit PYTEST='pytest -n auto'   pytest with other options

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTEST ?= pytest
# The order of sets is part of a simulated history: with it fixed, a seed tells the same one on every day.
RUN := PYTHONHASHSEED=0 PATH="$(CURDIR)/$(BIN):$$PATH" scripts/with-engine

.PHONY: help setup images demo test check format unit simulation contract e2e faults soak bench bench-idle clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup:  ## engine, Compose v2, base image, .venv and a browser: whatever this machine lacks
	@scripts/setup.sh

images: setup  ## the images that tests, demo and benchmark run
	@scripts/with-engine scripts/images.sh

demo: setup  ## a deploy under load, on this machine, with a receipt
	@$(RUN) scripts/demo.sh

test: check images  ## everything CI runs: check, unit, simulation, contract, e2e, a soak, a slice of the faults
	@$(RUN) $(PYTEST) -n 3 --dist worksteal -m 'not slow and (daily or not faults)'

check: setup  ## lint, format, types, layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: setup  ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

unit: setup  ## the tests that need no engine and no proxy
	@$(RUN) $(PYTEST) tests/unit

simulation: setup  ## deploys over fake ports and a virtual clock, crashed everywhere
	@$(RUN) $(PYTEST) tests/simulation

contract: images  ## one suite per port, over the fakes and the real things
	@$(RUN) $(PYTEST) tests/contract

e2e: images  ## real engine, Compose, nginx and HAProxy, under load
	@$(RUN) $(PYTEST) -m 'not slow' tests/e2e

faults: images  ## all tests that kill, refuse or starve real processes, which takes about an hour
	@scripts/with-engine scripts/images.sh rollout-test/engine:26.1 rollout-test/engine:28.5
	@$(RUN) $(PYTEST) -n 3 --dist worksteal -m 'faults and not slow'

soak: images  ## random deploys, deaths and faults under load, for SOAK_SECONDS (600)
	@SOAK_SECONDS="$${SOAK_SECONDS:-600}" $(RUN) $(PYTEST) tests/e2e/test_soak.py

bench: setup  ## what a deploy costs beside the bare engine calls, written to bench/RESULTS.md
	@scripts/with-engine scripts/images.sh rollout-test/{python:latest,app:1,app:2,nginx:1.30,haproxy:3.0}
	@$(RUN) python bench/run.py

bench-idle: setup  ## what the sidecar costs while nothing happens, and how soon it follows; written to bench/idle.json
	@scripts/with-engine scripts/images.sh rollout-test/{python:latest,app:1,nginx:1.30,haproxy:3.0}
	@$(RUN) python bench/idle.py

clean:  ## remove what the tools left in the checkout, .venv too; the engine and its images stay
	@rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find rollout tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
