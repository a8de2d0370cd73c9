# Each target needs Python 3.11 or newer and make; everything else it installs into .venv by itself.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DBT := examples/dbt_duckdb/.venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check up bench format docs lock clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(STAMP) ## run the demo: a warehouse, a CRM, a sync through Dagster, dead letters, a replay
	@$(BIN)/retl demo

up: $(STAMP) ## open the demo project in the Dagster UI
	@$(BIN)/retl up

test: $(STAMP) ## run the tests that end in a few minutes
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m "not long"

test-all: $(STAMP) $(DBT) ## run all tests
	@$(BIN)/python -m pytest -n 2 --dist loadscope

bench: $(STAMP) ## measure speed and memory beside other tools (about three minutes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@$(BIN)/python benchmarks/bench.py

check: $(STAMP) ## lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(STAMP) ## write the generated sections of docs/connectors
	@$(BIN)/python scripts/connector-docs.py

lock: $(STAMP) ## write the installed versions to requirements.lock
	@scripts/lock $(BIN)/python > requirements.lock.new && mv requirements.lock.new requirements.lock

clean: ## remove what make made
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# dbt takes older versions of two packages than the tools above: its example has an environment of its own.
$(DBT): examples/dbt_duckdb/requirements.txt scripts/find-python
	@"$$(scripts/find-python)" -m venv --clear $(dir $@)
	@$(dir $@)bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

$(STAMP): pyproject.toml requirements.lock scripts/find-python
	@scripts/install $(VENV)
	@touch $@
