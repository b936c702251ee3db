# The verbs of this repository. Nothing but Python 3.11+, pip and make is needed.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DATA ?= data
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some images forbid it, and then every process compiles what it imports: a start takes twice the time, a test run starts a thousand.
export PYTHONDONTWRITEBYTECODE :=

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: .venv/installed  ## build .venv from the lock file

# The stamp depends on what decides the contents of .venv, so that `make` reinstalls when either changes.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Holdfast needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup  ## a store over six directories under ./data, answering S3 on 127.0.0.1:9000
	@mkdir -p $(foreach n,1 2 3 4 5 6,$(DATA)/drive$(n))
	@exec $(BIN)/holdfast serve $(foreach n,1 2 3 4 5 6,$(DATA)/drive$(n))

test: setup  ## every test but the soaks
	$(BIN)/python -m pytest -q -m "not soak" -n 2 --dist worksteal

demo: setup  ## lose two drives during a download, and get every byte back
	$(BIN)/python -m bench.demo

bench: setup  ## measure this machine: requests, throughput, memory
	$(BIN)/python -m bench.load --target 6 --target floor

soak: setup  ## the long proofs: hundreds of kills, every power cut, all planted bugs
	$(BIN)/python -m pytest -q -m "soak and not alone" -n 2 --dist worksteal -o faulthandler_timeout=0
	$(BIN)/python -m pytest -q -m "soak and alone" -o faulthandler_timeout=0

lint: setup  ## format, style, types, imports between rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock:  ## resolve requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv .lock && .lock/bin/pip install --quiet uv
	.lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --no-emit-index-url --no-emit-find-links --upgrade --extra dev pyproject.toml -o requirements.lock
	rm -rf .lock

.PHONY: help setup run test demo bench soak lint lock
