# The entry points. Each first installs its dependencies (scripts/install-build-deps.sh, tests/kafka/install.sh).
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/serin/target
export CARGO_TARGET_DIR
SERIN := $(CARGO_TARGET_DIR)/release/serin
DEMO_ARGS ?=
GATES_ARGS ?=
CHAOS_MINUTES ?= 30
CHAOS_SEED ?= 1
SOAK_MINUTES ?= 60
SOAK_RATE ?= 500
SOAK_ROLLOUT ?= with

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

.PHONY: deps
deps:
	@scripts/install-build-deps.sh
	@scripts/own-target.sh

.PHONY: test-deps
test-deps: deps
	@scripts/install-build-deps.sh --test
	@tests/kafka/install.sh

.PHONY: build
build: deps ## build the serin binary (the first time takes minutes)
	cargo build --release --locked --package serin

.PHONY: demo
demo: build ## run the whole pipeline on recorded flights, in one process, without a broker
	$(SERIN) demo $(DEMO_ARGS)

.PHONY: demo-kafka
demo-kafka: build test-deps ## run the demo on a real Kafka, with one process per role
	scripts/demo-kafka.sh $(DEMO_ARGS)

.PHONY: demo-seeds
demo-seeds: build test-deps ## run the demo with five seeds on the embedded log and five on Kafka
	scripts/demo-seeds.sh

.PHONY: test
test: test-deps ## run all tests (test-core, test-system, test-peers and test-console), with a summary of each part and of all
	scripts/test.sh

.PHONY: test-core
test-core: test-deps ## run the unit, property, snapshot and simulation tests
	scripts/test.sh core

.PHONY: test-system
test-system: test-deps ## test the binary with real processes and a real Kafka; a short chaos run, attacks
	scripts/test.sh system

.PHONY: test-peers
test-peers: test-deps ## test with third-party software: clients, model servers, docker-compose
	scripts/test.sh peers

.PHONY: test-console
test-console: test-deps ## test the console in Chromium, against a mock controller and a running `serin up`
	scripts/test.sh console

.PHONY: console
console: ## build the console again into console/dist
	@scripts/install-build-deps.sh --console
	scripts/console.sh

.PHONY: chaos
chaos: test-deps ## inject faults on three real brokers for CHAOS_MINUTES (30), then recompute everything; CHAOS_SEED repeats a run
	scripts/build-next.sh
	CHAOS_MINUTES=$(CHAOS_MINUTES) CHAOS_SEED=$(CHAOS_SEED) cargo test --release --locked --workspace --test chaos -- --nocapture

.PHONY: soak
soak: build ## print memory and disk use once a minute for SOAK_MINUTES (60) at SOAK_RATE (500) requests per second; SOAK_ROLLOUT=without runs no rollout
	cargo build --release --locked --workspace --example soak_load
	scripts/soak.sh $(SOAK_MINUTES) $(SOAK_RATE) $(SOAK_ROLLOUT)

.PHONY: properties
properties: deps ## run all property tests with PROPTEST_CASES (2000) new cases; PROPTEST_RNG_SEED repeats a run
	scripts/properties.sh

.PHONY: lint
lint: deps ## check formatting, clippy, documentation, dependency rules and the built console; build the fuzz targets
	@scripts/install-build-deps.sh --console
	scripts/lint.sh

.PHONY: gates
gates: deps ## simulate whole rollouts and check every guarantee of docs/statistics.md (minutes)
	status=0; \
	cargo run --release --locked --package serin-statistics --example gates -- $(GATES_ARGS) || status=$$?; \
	cargo run --release --locked --package serin-analyzer --example label_gates -- $(GATES_ARGS) || status=$$?; \
	exit $$status

.PHONY: dist
dist: deps ## build the release binary and print its folder
	scripts/dist.sh serin

.PHONY: profile
profile: test-deps ## record an execution profile in profile/, which `make dist` uses
	scripts/profile.sh

.PHONY: bench
bench: test-deps ## measure the pipeline end to end, and Kafka Streams on the same work; BENCH_SHORT=1 for a quick run
	tests/bench/run.sh

.PHONY: bench-router
bench-router: test-deps ## compare the router with HAProxy, nginx and Envoy, each on one processor; BENCH_SHORT=1 for a quick run
	@scripts/install-build-deps.sh --bench
	tests/bench-router/run.sh

.PHONY: bench-faults
bench-faults: build test-deps ## measure the time to a rollback while a writer is dead, stopped, cut off or has a wrong clock
	@scripts/install-build-deps.sh --bench
	@tests/bench-faults/run.py

.PHONY: bench-statistics
bench-statistics: deps ## measure the cost of sketches, tests and the analyzer, against their targets
	scripts/bench-statistics.sh

.PHONY: fuzz
fuzz: deps ## run every decoder on arbitrary bytes; FUZZ_SECONDS per target
	scripts/fuzz.sh
