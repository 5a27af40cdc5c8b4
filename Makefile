# Each target sets up what it needs (scripts/setup.sh) and may be run again at any time.
# ARGS adds arguments: make gate ARGS='--config lockproof.yaml', make test ARGS='-E "test(recreate)"'

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup setup-gate gate reproduce test test-full mutants fuzz check bench-gate man clean-runs

CARGO ?= cargo
ARGS ?=

# Where rustup puts cargo, which a shell without a profile may not know, and where setup puts
# cargo-nextest when cargo's own directory cannot be written.
export PATH := $(PATH):$(HOME)/.cargo/bin:$(CURDIR)/target/tools/bin

# nextest reads this itself: nothing stops at the first failure in CI, and a JUnit file is written.
ifdef CI
export NEXTEST_PROFILE ?= ci
endif

# An engine on an unusual socket, found by setup. A DOCKER_HOST of the caller leaves no such file.
engine = set -a; if [ -f target/lockproof.env ]; then . ./target/lockproof.env; fi; set +a;

# The development profile serves gate and tests alike, so its dependencies are built once; they
# are optimised (Cargo.toml), and a gate waits for containers, not for itself.
# cargo run replaces itself by the program: Ctrl-C and exit code go straight through.
lockproof = $(engine) $(CARGO) run --locked --package lockproof --bin lockproof --

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

gate: setup-gate ## set up, then gate the bundled demo (or what ARGS names): the main job
	@$(lockproof) gate $(ARGS)

reproduce: setup-gate ## set up, then tell the original bug and its fix as a timeline
	@$(lockproof) reproduce $(ARGS)

# SUITE=FILE runs the end-to-end tests on another image (tests/suite.rs), without those that it leaves out.
ifdef SUITE
test: setup
	@$(engine) filter=$$($(CARGO) run --locked --quiet --package e2e --example suite_filter -- $(SUITE)) || exit; \
	LOCKPROOF_SUITE=$(abspath $(SUITE)) $(CARGO) nextest run --locked --workspace -E "$$filter" $(ARGS)
else
test: setup ## set up, then run every test: documentation examples, then all with cargo nextest
	@$(engine) status=0; \
	$(CARGO) test --locked --doc --workspace || status=$$?; \
	$(CARGO) nextest run --locked --workspace $(ARGS) || status=$$?; \
	exit $$status
endif

test-full: setup ## the same with the long cross products (docs/testing.md): weekly, and before a release
	@$(engine) $(CARGO) nextest run --locked --workspace --profile full $(ARGS)

mutants: setup ## change the code that decides, piece by piece: which change does no unit test notice? (weekly)
	@command -v cargo-mutants > /dev/null || $(CARGO) install --locked cargo-mutants
	$(CARGO) mutants $(ARGS)

# Each target for SECONDS, with its seed corpus; a nightly compiler, and no sanitizer: the code is safe Rust.
SECONDS ?= 600
fuzz: ## random compose files, Dockerfiles, scripts, .env files, workflows, notebooks, configurations (weekly)
	@command -v cargo-fuzz > /dev/null || $(CARGO) install --locked cargo-fuzz
	@for target in $$(cd fuzz && $(CARGO) fuzz list); do \
	  $(CARGO) +nightly fuzz run --sanitizer none $$target -- -max_total_time=$(SECONDS) -timeout=20 || exit 1; \
	done

bench-gate: setup-gate ## the gate beside a docker-and-curl script, in turns (IMAGE=, PLUGIN=, WHEELS= name a real one)
	$(CARGO) build --release --locked --package lockproof --bin lockproof
	@$(engine) scripts/bench-gate.sh

check: ## formatting, lints and documentation, with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --quiet
	@# Advisories come from a database on the network: the project's CI checks them with its action.
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; \
	else echo 'check: cargo-deny is not installed; licences, sources and duplicates were not checked'; fi

man: ## manual pages, one a command, into target/man
	$(CARGO) run --locked --package lockproof --example manpages -- target/man

clean-runs: setup-gate ## remove what a killed run left in the engine
	@$(lockproof) clean $(ARGS)

setup: ## a linker, cargo-nextest and a container engine, installed where that is allowed
	@scripts/setup.sh

setup-gate:
	@scripts/setup.sh --no-tests
