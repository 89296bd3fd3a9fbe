# make run   builds the engine, installs it into .venv and runs the main example
# make test  everything that needs no server
# make test-servers  the tests against a real Apache Kafka and HDFS, which Maven fetches (Java 17, mvn), PostgreSQL, MariaDB and Redis (their packages), an S3 server (moto), Azurite (npm), and a headless Chromium; skips what is missing
# make count  instructions of the micro benchmarks against the reference in benches/results (needs valgrind)
# make test-pythons  the Python tests on every other CPython on PATH or under pyenv, from one wheel (PYTHONS="3.12 3.13", none)
# make docs  the documentation site, into site/; any warning or dead link is an error
# make packages  what the targets above need of Python's packages, before anything is built
# make torture  the crash matrix: RUNS=3000 SEED=7 (docs/CRASHES.md)
#
# Needed: git, a stable Rust toolchain, a C and a C++ compiler, OpenSSL's headers, CPython 3.11 or newer with venv. The rest is installed into .venv.
# PYTHON names the interpreter; CARGO_TARGET_DIR the build cache, which by default is shared by all clones.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# What changes the environment does so alone, also under `make -j`.
ALONE := $(PY) tools/alone.py $(VENV)/lock
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/millstream/target
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of interpreters: each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
RUNS ?= 3000
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

.PHONY: help run docs torture test test-rust test-python test-suite test-docstrings test-types test-pythons test-servers tools packages install \
	install-test count wheel clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: install
	$(PY) examples/flights.py

test: test-rust test-python test-pythons

# The site needs no engine: docstrings are read from the source.
docs: $(VENV)/packages-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'open site/index.html'

torture: install-test
	$(PY) tests/crash/torture.py --runs $(RUNS) $(if $(SEED),--seed $(SEED))

test-rust: tools
	cargo test --release --workspace

test-python: test-suite test-docstrings test-types

test-suite: install-test
	$(PY) -m pytest tests/engine tests/python tests/examples tests/crash tests/model

test-docstrings: install-test
	$(PY) -m pytest --doctest-modules python/millstream

test-types: install-test
	$(PY) -m mypy python/millstream examples
	$(PY) -m pyright --pythonpath $(PY) examples
	$(PY) -m mypy.stubtest millstream._millstream

# The wheel is linked from what the others have compiled, so it comes after them where both are asked for.
ifneq ($(filter test test-rust,$(MAKECMDGOALS)),)
test-pythons: | test-rust
endif
test-pythons: install-test
	$(PY) tools/pythons.py

# Starts servers on free ports of the loopback interface, with their data in temporary folders, and stops them.
test-servers: install-test $(VENV)/packages-servers
	$(PY) -m pytest tests/servers

install: $(VENV)/built $(VENV)/packages-examples

install-test: install $(VENV)/packages-test

packages: $(VENV)/packages-examples $(VENV)/packages-test $(VENV)/packages-docs $(VENV)/packages-servers
	$(PY) tools/pythons.py --packages

count:
	$(PYTHON) benches/count.py

wheel: $(VENV)/created
	$(PY) -m maturin build --release --features kafka-vendored --out dist

clean:
	rm -rf $(VENV) .venvs dist site python/millstream/*.so

# Names what is missing, and how Debian calls it, before anything is built.
tools:
	@bash tools/require.sh "$(PYTHON)"

$(VENV)/created: pyproject.toml | tools
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet "maturin>=1.9,<2"
	touch $@

# An editable install: the Python sources are used in place, only the compiled module is copied (git ignores it).
$(VENV)/built: $(VENV)/created $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(ALONE) $(PY) -m maturin develop --release --quiet
	touch $@

# What an extra of the package needs.
$(VENV)/packages-%: $(VENV)/created
	$(ALONE) $(PY) -m pip install --quiet $$($(PY) tools/extras.py $*)
	touch $@
