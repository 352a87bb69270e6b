# Needs Python 3.11 or newer and nothing else; all it installs goes into $(VENV) and the user's cache.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# A Python that will do. To name one: make PYTHON=/path/to/python3.12 ...
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# An extra package index, for torch without CUDA (a tenth of the size): make TORCH_INDEX=ADDRESS setup
TORCH_INDEX ?=

# Which schedule to replay, or which hostile input; more options: make simulate SEED=0 SIMULATE="--schedules 10000"
SEED ?= 1

# One thread for each numeric library: the service scales by processes, and figures compare.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test simulate check faults outages fuzz flood bench pin

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## make the virtual environment and install everything, once

demo: setup  ## a real Kafka, a simulated network with attacks, live alerts, and what was caught
	$(BIN)/stream-iwae demo $(DEMO)

test: setup  ## the whole test suite, with the real Kafka; TEST="-k windows" for a part of it
	$(BIN)/python -m pytest tests stream_iwae --doctest-modules -ra --durations=10 $(TEST)

simulate: setup  ## replay a schedule of faults, step by step: make simulate SEED=123
	$(BIN)/python -m tests.simulation --seed $(SEED) $(SIMULATE)

check: setup  ## what needs no run: lint, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: fuzz flood outages  ## hostile input by the million, floods of forged addresses, outages; SEED=7 for others

outages: setup  ## strike three brokers, three replicas and a trainer; one: SEED=7 OUTAGES="--schedules 1"
	$(BIN)/python -m tests.outages --seed $(SEED) $(OUTAGES)

fuzz: setup
	$(BIN)/python tests/faults/fuzz.py --seed $(SEED) $(FUZZ)

flood: setup
	$(BIN)/python tests/faults/flood.py --seed $(SEED) $(FLOOD)

bench: setup  ## the benchmarks, each with its rival; writes bench/results.json
	$(BIN)/python bench/run.py $(BENCH)

pin: setup  ## write the versions in use to constraints.txt
	@{ head -2 constraints.txt; \
	$(BIN)/python -m pip list --format=freeze --exclude stream-iwae --exclude pip; } > constraints.new
	@mv constraints.new constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed (Debian: apt install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		-c constraints.txt -e '.[local,lab,test]'
	@touch $@
