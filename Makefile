# The one door. `make help` lists what it opens.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip --disable-pip-version-check --quiet
PROTOS := $(wildcard protos/enginehouse/v1/*.proto)
BUF_MAIN ?= .git\#branch=main

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Enginehouse needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=.")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt hatch_build.py $(PROTOS)
	@echo "installing Enginehouse with the local servers and engines into $(VENV)"
	@$(PIP) install --editable '.[local,demo]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) install --editable '.[local,demo,dev]'
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Create .venv and install everything the mesh needs

.PHONY: demo
demo: $(VENV)/.installed ## Start the whole mesh, take the tour, stop it
	@$(BIN)/enginehouse demo --with-mesh

.PHONY: up
up: $(VENV)/.installed ## Start the whole mesh and stay up
	@$(BIN)/enginehouse up

.PHONY: proto
proto: $(VENV)/.installed-dev ## Generate the protobuf code again
	$(BIN)/python hatch_build.py

.PHONY: proto-lint
proto-lint: $(VENV)/.installed-dev ## buf lint, and buf breaking against the main branch
	@mkdir -p build/googleapis
	@ln -sfn "$$($(BIN)/python -c 'import hatch_build; print(hatch_build.googleapis_root())')/google" build/googleapis/google
	$(BIN)/buf lint
	@if git rev-parse --verify --quiet main >/dev/null && git cat-file -e main:buf.yaml 2>/dev/null; then \
	  rm -rf build/main && mkdir -p build/main && git archive main buf.yaml protos | tar -x -C build/main && \
	  mkdir -p build/main/build && ln -sfn "$(CURDIR)/build/googleapis" build/main/build/googleapis && \
	  $(BIN)/buf breaking --against build/main && echo "buf breaking: no incompatible change against main"; \
	else echo "buf breaking: there is no main branch here to compare with"; fi

.PHONY: lint
lint: $(VENV)/.installed-dev ## ruff, format, and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

.PHONY: types
types: $(VENV)/.installed-dev ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every class has an engine of its own, and waits for it most of its time.
SIDE_BY_SIDE := tests/conformance
ONE_BY_ONE := $(addprefix --ignore=,$(SIDE_BY_SIDE))

.PHONY: suite
suite: $(VENV)/.installed-dev ## The tests, with coverage printed at the end
	@rm -f .coverage .coverage.*
ifdef ARGS
	$(BIN)/coverage run -m pytest $(ARGS)
else
	$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE) -n 2 --dist loadscope
	$(BIN)/coverage run -m pytest $(ONE_BY_ONE)
endif
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report --format=total | sed 's/.*/coverage: & %/'

SEED ?= 0
STEPS ?= 12

.PHONY: simulate
simulate: $(VENV)/.installed-dev ## Replay one seed of the simulation: SEED=7 STEPS=12
	$(BIN)/python -m tests.simulation --seed $(SEED) --steps $(STEPS)

.PHONY: guarantees
guarantees: $(VENV)/.installed-dev ## Measure the guarantees on real meshes, and write docs/guarantees.md
	$(BIN)/python -m tests.guarantees --report docs/guarantees.md

.PHONY: test
test: proto-lint lint types suite ## Everything CI checks

.PHONY: bench
bench: $(VENV)/.installed ## What a decision costs, and what a router's view weighs
	$(BIN)/python tests/bench/bench_decide.py

.PHONY: clean
clean: ## Remove what was built and installed
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find protos -name '*_pb2*.py*' -delete -o -name '*.binpb' -delete

ENGINE ?=
CONFORMANCE := tests/conformance/engines
CONFORMANCE_PAGE := $(CONFORMANCE)/test_page.py
# One kind of engine is run with the real one too, where it is installed.
CONFORMANCE_OF_ENGINE = $(CONFORMANCE)/test_$(subst -,_,$(ENGINE)).py $(if $(wildcard build/engines/$(ENGINE)),-m 'heavy or not heavy')
CONFORMANCE_OF_ALL = $(CONFORMANCE) --ignore=$(CONFORMANCE_PAGE) -n 2 --dist loadscope

.PHONY: conformance
conformance: $(VENV)/.installed-dev ## The conformance suite, of one kind of engine with ENGINE=vllm
	$(BIN)/pytest $(if $(ENGINE),$(CONFORMANCE_OF_ENGINE),$(CONFORMANCE_OF_ALL)) $(ARGS)
	$(BIN)/python -m tests.conformance.engines.matrix
	$(BIN)/pytest -q $(CONFORMANCE_PAGE)

.PHONY: conformance-heavy
conformance-heavy: $(VENV)/.installed-dev ## The same of the real engines that engines-install has installed
	$(BIN)/pytest $(CONFORMANCE) -m heavy $(ARGS)
	$(BIN)/python -m tests.conformance.engines.matrix
	$(BIN)/pytest -q $(CONFORMANCE_PAGE)

.PHONY: engines-install
engines-install: ## Install a heavy engine below build/engines: ENGINE=vllm or ENGINE=mlx
	deploy/engines/install $(or $(ENGINE),$(error say which: make engines-install ENGINE=vllm))
