# Every target sets up what it needs by itself; a second call finds that done and is instant.
#
#   make demo [DATA=photos/] [OUTPUT=runs/demo]   a first look, minutes on two CPU cores;
#             [STEPS=600] [SEEDS=5]               more of it
#   make test [PYTEST_ARGS="-k shards"]           the whole suite, in random order by two processes
#   make test-torch                               set-up, suite and demo on several torch; hours
#   make docs                                     the pages and the API as HTML, in build/docs
#   make lint                                     style, formats, types; blocking
#   make fuzz [SECONDS=60]                        hostile bytes for the JPEG code; needs clang
#   make hostile [HOSTILE_ARGS="sources"]         commands against hostile input, a case each
#   make faults [FAULTS_ARGS="saving"]            kills, damage, full disks, many times; hours
#   make bench                                    the measurements that this version has
#   make recipes [DATA=shards/]                   every smoke form, one step of the studies' cells
#   make clean                                    remove what was built; keeps .venv and runs/
#
# FASTSSL_TORCH=cpu picks a CPU build of torch, FASTSSL_TORCH=torch==2.13.0 that version,
# PYTHON=python3.12 the Python; see tools/setup_environment.sh.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-torch docs lint fuzz hostile faults bench recipes clean

BIN := .venv/bin
PYTHON ?= python3
DATA ?=
STEPS ?=
SEEDS ?=
OUTPUT ?= runs/$(if $(DATA),demo-photos,demo)$(if $(STEPS),-$(STEPS)-steps)
PYTEST_ARGS ?=
BENCH_ARGS ?=
RECIPES_ARGS ?=
HOSTILE_ARGS ?=
FAULTS_ARGS ?=
SECONDS ?= 60
export PYTHON

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

setup:
	@tools/setup_environment.sh

demo: setup
	@data="$(DATA)"; \
	$(BIN)/python tools/demo.py $${data:+--data "$${data/#\~/$$HOME}"} --output-dir "$(OUTPUT)" \
	    $(if $(STEPS),--steps $(STEPS)) $(if $(SEEDS),--seeds $(SEEDS))

# Nothing after pytest: its closing line is the last one. The head says the seed of the order, and
# PYTEST_ARGS="--randomly-seed=1234" repeats it; "-n 0" runs all in one process, "-n 8" in eight.
# Three: on two cores one more keeps them busy while others wait.
test: setup
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(PYTEST_ARGS)

test-torch:
	@PYTEST_ARGS='$(PYTEST_ARGS)' tools/test_torch.sh

docs: setup
	@tools/build_docs.sh

lint: setup
	@tools/lint.sh

# Compiles what it needs by itself; of Python and torch it needs nothing.
fuzz:
	@tools/fuzz.sh $(SECONDS)

# Every case is a command of its own; tests/hostile/__init__.py says what has to hold.
hostile: setup
	@$(BIN)/python -m tests.hostile $(HOSTILE_ARGS)

# Every try is a process or a run of its own; tests/faults/__init__.py says what has to hold.
faults: setup
	@$(BIN)/python -m tests.faults $(FAULTS_ARGS)

bench: setup
	@$(BIN)/python tools/bench_ops.py $(BENCH_ARGS)

# Runs go on where they were: RECIPES_ARGS="--only rotation" takes a part of them.
recipes: setup
	@data="$(DATA)"; \
	$(BIN)/python tools/run_recipes.py $${data:+--data "$${data/#\~/$$HOME}"} $(RECIPES_ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache fastssl/_C*.so
	find fastssl loaders tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
