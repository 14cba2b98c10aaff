# All that a person or continuous integration runs. `make` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Makes a client from the OpenAPI document, in a test; it has an environment of its own.
GENERATOR := tests/service/api/generator.txt

# PyPI's torch brings several gigabytes of CUDA libraries. For a GPU: make setup TORCH_INDEX=https://pypi.org/simple
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# So many processes share the tests' files, each with servers of its own; a process takes up to three gigabytes.
JOBS ?= 2

.PHONY: help
help: ## List the commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## Create .venv with pinned versions of all that is needed (once; again when the pins change).

$(READY): pyproject.toml constraints.txt $(GENERATOR)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "PairForge needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): some hundred megabytes, once."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@# An index that cannot be reached would be retried for minutes, so ask it once.
	@index=(); \
	if $(BIN)/python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)' "$(TORCH_INDEX)/torch/" 2>/dev/null; \
	then index=(--extra-index-url "$(TORCH_INDEX)"); \
	else echo "$(TORCH_INDEX) cannot be reached: torch comes from wherever pip is configured to look."; fi; \
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch "$${index[@]}"
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[model,service,worker,evaluate,embedded,dev]'
	@$(PYTHON) -m venv $(VENV)/generator
	@$(VENV)/generator/bin/pip install -q --disable-pip-version-check -r $(GENERATOR)
	@touch $@

.PHONY: demo
demo: $(READY) ## Generate a first dataset from the samples that come with PairForge.
	$(BIN)/pairforge demo

.PHONY: test
test: lint ## Check style and types, then run the tests.
	$(BIN)/pytest -n $(JOBS) --dist loadfile

.PHONY: test-faults
test-faults: $(READY) ## Run the slow tests, in which servers, workers and networks fail; DAY=2026-11-28: those of a day.
	$(BIN)/pytest -m faults $(if $(DAY),--day $(DAY))

.PHONY: fuzz
fuzz: $(READY) ## Send the API made-up requests, ten minutes of each of two kinds, and compare its answers with its documentation.
	PAIRFORGE_TEST_CONTRACT_SECONDS=600 $(BIN)/pytest tests/service/api/test_contract.py

.PHONY: lint
lint: $(READY) ## Check style (ruff) and types (mypy).
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: bench
bench: $(READY) ## Measure the service, and the model beside its plain form; about half an hour on two idle cores.
	$(BIN)/python -m bench

.PHONY: bench-steps
bench-steps: $(READY) ## Measure quality against the number of denoising steps; about a quarter of an hour.
	$(BIN)/python -m bench --parts steps

.PHONY: bench-page
bench-page: $(READY) ## Measure the page in Chromium, with a thousand pairs to review; about two minutes.
	$(BIN)/python -m bench --parts page

.PHONY: page-pictures
page-pictures: $(READY) ## Take the pictures of the page in docs/ anew, with Chromium; a quarter of an hour.
	$(BIN)/python -m bench.page_pictures

.PHONY: bench-neighbour
bench-neighbour: $(READY) ## Measure training beside a busy process; about eight minutes on two idle cores.
	$(BIN)/python -m bench --parts neighbour

.PHONY: dashboards
dashboards: $(READY) ## Write Grafana's dashboards anew from their code.
	$(BIN)/python -m deploy.grafana.boards

.PHONY: pin-images
pin-images: $(READY) ## Add digests to the images of others; needs Docker and the network.
	$(BIN)/python -m deploy.pin_images

.PHONY: clean
clean: ## Remove .venv, caches and build results.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
