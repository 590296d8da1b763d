# Two commands to begin with: `make run` and `make test`. Each prepares .venv first.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready
LOCKS := requirements-setup.lock requirements-dev.lock
# Real months: make run RUN="--year 2023 --month 1"
RUN ?= --year 2025 --month 1 --data-dir data/sample --offline

.PHONY: help setup run test lint audit format bench lock sample clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(SETUP)  ## prepare .venv from the locked, hashed requirements

$(SETUP): $(LOCKS)
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, not " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements-setup.lock
	@# uv takes seconds where pip takes minutes, but knows nothing of a registry only pip is told of.
	@# Compiled once: where PYTHONDONTWRITEBYTECODE is set each process would compile all it imports.
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements-dev.lock \
		|| $(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

run: $(SETUP)  ## train and validate on the bundled synthetic sample
	$(BIN)/python orchestrate.py $(RUN)

# For two cores: much of it waits for servers, and each process has servers of its own. A file stays
# in one process, which makes what its tests share once.
test: $(SETUP)  ## the whole suite
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TEST)

lint: $(SETUP)  ## ruff, mypy strict, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

audit: $(SETUP)  ## known vulnerabilities of the locked requirements; reports, never fails
	$(BIN)/python .ci/audit.py

format: $(SETUP)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(SETUP)  ## speed, growth, accuracy and overhead beside the course and scikit-learn
	$(BIN)/python -m benchmarks $(BENCH)

LOCK := VIRTUAL_ENV=.venv $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-strip-extras --no-emit-index-url --no-header
lock: $(SETUP)  ## resolve the requirements anew
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra dask -c requirements-dev.lock -o requirements-dask.lock
	echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | $(LOCK) - -o requirements-setup.lock

sample: $(SETUP)  ## make the synthetic sample again
	$(BIN)/python data/make_sample.py

clean:  ## remove .venv and caches; models, data and stores stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
