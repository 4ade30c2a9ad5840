# Needs only Python >= 3.11 and make. `make demo` and `make test` do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast faults check docs bench interop clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

$(VENV): $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "climbstream needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[all,test]'
	@touch $@

demo: $(VENV)  ## the whole chain on real text of this machine, in about 8 minutes (OUT=demo)
	$(BIN)/climb demo --out $(OUT)

test: $(VENV)  ## every test
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)  ## the tests that take less than a minute together
	$(BIN)/pytest -n auto --dist loadfile -m "not slow"

faults: $(VENV)  ## the tests behind docs/reliability.md, promise by promise
	$(BIN)/python bench/faults.py

check: $(VENV)  ## lint, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)  ## the documentation, in site/index.html
	@$(BIN)/python -c 'import mkdocs' 2>/dev/null || $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

bench: $(VENV)  ## measure
	$(BIN)/python bench/run.py

interop: $(VENV)  ## read our shards with the real mosaicml-streaming and Megatron, in environments of their own
	bench/interop.sh

clean:  ## remove the environment (never data)
	rm -rf $(VENV) .venv-peers
