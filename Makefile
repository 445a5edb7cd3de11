# Everything here does its own set-up in a fresh clone: it needs git, make and Python >= 3.11.
#
#   make demo                the demo, on a server of its own; make demo ARGS="--seconds 10 --json"
#   make test                all tests;                         make test ARGS="-k reader -x"
#   make lab                 the fault lab, some minutes;        make lab ARGS="-k mutant"
#   make check               what continuous integration runs, without the other Pythons

ARGS   =
# Most tests wait for a server or a lease: more of them run at once than there are cores.
AT_ONCE = 4
BIN    = .venv/bin
# What the environments depend on: when it changes, they are brought up to date.
INPUTS = pyproject.toml scripts/setup.sh

export PYTHON

.PHONY: help demo test lab lint format types docs wheel servers examples bench compare check requirements clean

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/.demo
	@$(BIN)/penstock demo $(ARGS)

test: .venv/.dev
	@$(BIN)/pytest -n $(AT_ONCE) --dist worksteal $(ARGS)

# Two at once: its processes want the processor, and its bounds of time grow with what they lack.
lab: .venv/.dev
	@$(BIN)/pytest -m lab -n 2 --dist worksteal tests/faults $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/mypy

docs: .venv/.dev
	$(BIN)/python scripts/check_docs.py

# $PENSTOCK_PYTHONS: the interpreters to try the wheel on, by colon; without it: our own.
wheel: .venv/.dev
	@$(BIN)/pytest -m wheel tests/test_wheel.py $(ARGS)

# A Redis 8 and a Valkey 8, fetched into .servers/ the first time.
servers: .venv/.dev
	$(BIN)/python scripts/servers.py
	@$(BIN)/pytest -m servers -n $(AT_ONCE) --dist loadgroup tests/servers $(ARGS)

examples: .venv/.dev
	$(BIN)/python scripts/run_examples.py $(ARGS)

bench: .venv/.dev
	@for file in benchmarks/bench_*.py; do $(BIN)/python "$$file" $(ARGS) || exit 1; done

# An environment beside ours, for the one test that compares us with other clients.
compare: .venv-compare/.compare

check: lint types docs test wheel examples

# Needs uv. No registry's host is written down: whoever installs uses the one that is configured.
requirements:
	sh scripts/requirements.sh

clean:
	rm -rf .venv .venv-compare dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/.demo: requirements/demo.txt $(INPUTS)
	@sh scripts/setup.sh demo
	@touch $@

.venv/.dev: requirements/dev.txt $(INPUTS)
	@sh scripts/setup.sh dev
	@touch $@

.venv-compare/.compare: requirements/compare.txt scripts/setup.sh
	@sh scripts/setup.sh compare .venv-compare
	@touch $@
