# The commands of a developer; each is a thin line over a script in ci/. `make` lists them.

PYTHON = .venv/bin/python
BASE = .venv/.base
TOOLS = .venv/.tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: build ## build, then `fastlb demo`; ARGS=--once checks itself and ends
	@$(PYTHON) -m fastlb demo $(ARGS)

build: $(BASE) ## the release build, in place
	@ci/build release

debug: $(BASE) ## the debug build: assertions, counted objects
	@ci/build debug

sanitize: $(BASE) ## the debug build with AddressSanitizer and UBSan
	@ci/build sanitize

lint: $(TOOLS) ## ruff and cython-lint
	@ci/lint

types: $(TOOLS) ## mypy --strict
	@$(PYTHON) -m mypy --strict

test: $(TOOLS) build debug ## the whole suite (minutes)
	@ci/test

test-deep: $(TOOLS) build debug sanitize ## sanitizers and long searches (half an hour)
	@ci/test-deep

bench: build ## measure beside HAProxy, nginx and Envoy; renews docs/performance.*
	@ci/install-bench-peers
	@$(PYTHON) -m benchmarks --markdown docs/performance.md --svg docs/performance.svg $(ARGS)
	@$(PYTHON) -m benchmarks.rules --instructions --markdown docs/performance.md

bench-tls: build ## the same for TLS and TCP, with all aims at the end
	@ci/install-bench-peers
	@$(PYTHON) -m benchmarks.secure --markdown docs/performance.md $(ARGS)

wheel: $(BASE) ## a wheel in dist/
	@rm -rf build/wheel/lib
	@$(PYTHON) -m pip wheel -q --no-deps --no-build-isolation -w dist .

clean: ## remove everything that was built, and .venv
	@rm -rf build dist .venv *.egg-info
	@find fastlb -name '*.so' -delete

$(BASE): pyproject.toml ci/make-venv
	@ci/make-venv
	@touch $@

$(TOOLS): $(BASE) pyproject.toml ci/install-test-tools
	@ci/install-test-tools
	@touch $@

.PHONY: help run build debug sanitize lint types test test-deep bench bench-tls wheel clean
