# Everything is built in .venv from python3 alone; only the servers that tests talk to need root, once.

PYTHON ?= python3
UV := uv==0.13.8
BIN := .venv/bin
BUILT := .venv/built
# Debian packages of the servers that component tests talk to
SERVICES := redis-server postgresql openjdk-17-jre-headless prometheus prometheus-alertmanager chromium

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow long lint docs bench lock services clean

help: ## Show this list
	@awk -F ': .*## |: ## ' '/^[a-z]+:.* ## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(BUILT) ## Build .venv with everything the tests need

$(BUILT): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"Python 3.11 or newer is needed, and $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." \
		% sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(BUILT) ## Tell the whole story on real flights, some minutes
	@$(BIN)/seatrial demo

test: $(BUILT) lint ## Run lint and the tests; as root, install the servers that these need
	@.ci/services wanted $(SERVICES)
	@$(BIN)/python -m pytest -n auto

slow: $(BUILT) ## Run the tests that `make test` has no time for
	@.ci/services wanted $(SERVICES)
	@$(BIN)/python -m pytest -n auto -m slow

long: $(BUILT) ## Run the tests that take many minutes
	@$(BIN)/python -m pytest -m long

lint: $(BUILT) ## Check style, types and layers
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >.venv/layers.log || { cat .venv/layers.log; exit 1; }

docs: $(BUILT) ## Rewrite docs/errors.md from the error classes
	@$(BIN)/python -m tests.house.errors_page

bench: $(BUILT) ## Run every benchmark; each prints its figure as a ratio
	@for file in benchmarks/*.py benchmarks/*/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

lock: $(BUILT) ## Resolve pyproject.toml again into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --upgrade \
		--python-version 3.11 pyproject.toml --all-extras --group test --output-file requirements.lock

services: ## Install the servers that component tests need (Debian, root)
	@.ci/services required $(SERVICES)

clean: ## Remove .venv and everything that tools left behind
	@rm -rf .venv dist seatrial-demo .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
