# The only door: every recipe is one call, the logic is in xtask/ and in the programs themselves.
SECONDS ?= 60
REPORT := target/report

.DEFAULT_GOAL := help
.PHONY: help setup lint build wasm test demo bench-accounts bench-filter bench-fleet bench-core bench-forecast bench-neighbour bench-size bench-scale bench-sharing bench-simulate test-fleet evaluate train clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

setup: ## install the pinned tools (Envoy, wasm-opt, linters) under .tools/
	cargo xtask setup

lint: ## formatting, clippy, crate arrows, tidiness, spelling, licences, documentation
	cargo xtask lint

build: wasm ## build everything: plugins, control plane, trainer, tests
	cargo build --workspace --all-targets

wasm: ## build the two plugins as shipped, into target/wasm/
	cargo xtask wasm

test: build ## run all tests, with real Envoy processes
	cargo test --workspace

test-fleet: wasm ## a fleet on Redis Cluster while everything behind it fails; needs root for network namespaces
	cargo build --release -p forebay-control-plane
	cargo run --release -p forebay-bench -- faults

demo: wasm ## show the main job on realistic traffic; SECONDS=30 needs no terminal
	cargo build --workspace --bin forebay --bin forebay-demo
	cargo run -q --bin forebay-demo -- --seconds $(SECONDS)

bench-accounts: wasm ## memory and disk that a million customers cost the control plane
	cargo build --release -p forebay-control-plane
	cargo run --release -p forebay-bench -- accounts

bench-filter: wasm ## CPU and throughput of the admission filter in Envoy
	cargo xtask noop
	cargo run --release -p forebay-bench -- filter

bench-fleet: wasm ## gateways that one core of the control plane holds, and how exact two real ones are
	cargo build --release -p forebay-control-plane
	cargo run --release -p forebay-bench -- fleet

bench-core: ## time, allocations and instructions of one decision, native
	cargo bench -p forebay-core --bench bench_core

bench-forecast: wasm ## time of the forecaster's inference, tick and model swap in Envoy
	cargo build --release -p forebay-control-plane
	cargo run --release -p forebay-bench -- forecast

bench-neighbour: wasm ## what others at two real gateways notice of a neighbour that floods both
	cargo build --release -p forebay-control-plane
	cargo run --release -p forebay-bench -- neighbour

bench-size: wasm ## bytes of the plugins, Envoy's time to ready and memory with them
	cargo run --release -p forebay-bench -- size

bench-scale: ## memory and cost of a decision with a million customers
	cargo bench -p forebay-core --bench bench_scale

bench-sharing: ## one pool and many customers, our allocation beside others; with FOREBAY_DATA on its traces too
	cargo run --release -p forebay-bench -- sharing

bench-simulate: ## ways to limit a simulated fleet, side by side; with FOREBAY_DATA on its requests too
	cargo build --release -p forebay-control-plane
	cargo run --release -p forebay-bench -- simulate

evaluate: ## score the committed models (needs FOREBAY_DATA), or with DATA=DIR [JSON=FILE] all families on each trace of a folder
ifdef DATA
	cargo run --release -p forebay-model-export -- evaluate "$(DATA)" --report target/report/evaluate.html $(if $(JSON),--json "$(JSON)")
else
	cargo run --release -p forebay-model-export -- replay
endif

train: ## train the model on FOREBAY_DATA, or on generated traffic
	cargo run --release -p forebay-model-export -- train

clean: ## remove all that was built, but not the tools
	cargo clean
