# NeuroEdge: `make demo` and `make test` are all a fresh machine needs (Python 3.11+, make, a package index).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV ?= uv
AUDIO ?=
QUESTION ?=
PYTEST_ARGS ?=
# Each file is run by one worker, with servers of its own: many tests wait for something to die or come back, so that
# there may be more workers than cores.
PYTEST_WORKERS ?= 3
# Small models beside the default set that tests of the runtimes use.
TEST_MODELS := smollm2-135m-instruct whisper-tiny-en piper-joe

.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-external check bench docs lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.runtime: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.runtime ## Virtual environment from requirements.lock, default models pulled and verified
	$(BIN)/neuroedge models pull

demo: setup ## Hear a recording and answer questions about it (AUDIO=path QUESTION="...")
	$(BIN)/neuroedge demo $(if $(AUDIO),--audio "$(AUDIO)") $(if $(QUESTION),--question "$(QUESTION)")

run: setup ## Serve until stopped; data stays in the data directory
	$(BIN)/neuroedge serve

test: setup $(VENV)/.dev ## Every test (PYTEST_ARGS="-k name" for some)
	$(BIN)/neuroedge models pull $(TEST_MODELS)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.dev ## Lint, strict types, layer rules, generated docs fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

test-external: setup $(VENV)/.dev ## The same tests on PostgreSQL and Valkey over TCP, as external servers
	$(BIN)/neuroedge models pull $(TEST_MODELS)
	$(BIN)/python -m tests.external $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: setup $(VENV)/.dev ## Measure, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.transcription
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.embedding_serving
	$(BIN)/python -m benchmarks.accelerator
	$(BIN)/python -m benchmarks.resume
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.report

docs: $(VENV)/.dev ## Generate docs/engines.md, docs/settings.md and docs/openapi.json
	$(BIN)/python -m docs.generate

lock: ## Pin dependencies with hashes
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --quiet pyproject.toml --group build --output-file requirements.lock
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --quiet pyproject.toml --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock

clean: ## Remove the virtual environment and caches; data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
