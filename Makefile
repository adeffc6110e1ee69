# Every target with a `##` comment shows in `make help`, under the `##@` heading above it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
STACK := deploy/local/stack
DEMO := deploy/local/demo
CARGO := cargo --locked

# The stack's addresses for the tests. A variable that is already set wins, as it does in the stack.
WITH_STACK = set -a; source <($(STACK) env); set +a;

##@ General
.PHONY: help
help: ## Show the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z][a-z0-9-]*:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Demo
.PHONY: demo demo-down
demo: ## The whole platform once through; KEEP=1 leaves it running
	$(DEMO) run

demo-down: ## Stop what a demo started, and nothing else
	$(DEMO) down

##@ Development
.PHONY: test test-unit test-integration lint fmt schema packages
test: test-unit test-integration ## Everything

# What cargo needs to build, and what the tests start themselves (PostgreSQL, Redis).
packages:
	$(STACK) packages

# Always the whole workspace: with other packages the dependencies have other features, and are
# built once more.
test-unit: packages ## Tests that start what they need themselves
	$(CARGO) test --workspace --lib --bins --test main

test-integration: ## Tests on the stack: Kafka, Connect, the whole platform (WITH="rest s3": Iceberg's too)
	$(STACK) install mysql mariadb readers browser $(WITH)
	$(STACK) up all
	$(STACK) test-transform
	$(CARGO) build --workspace --bins
	$(WITH_STACK) $(CARGO) test --workspace --test kafka
	# Most of them wait most of the time: more at once than there are cores.
	$(WITH_STACK) $(CARGO) test --workspace --test e2e -- --test-threads 4

lint: packages ## Formats, clippy, documentation, scripts, YAML, the JSON Schema
	tests/lint

fmt: ## Format the code
	cargo fmt --all

schema: packages ## Write config/pipeline.schema.json, docs/metrics.md and docs/openapi.json anew
	UPDATE_SCHEMA=1 $(CARGO) test --workspace --lib -- schema_for_editors metrics_table openapi_document_is_current

##@ Local stack (PostgreSQL, Kafka, schema registry, Connect, Redis; no containers)
.PHONY: up down clean
up: ## Install what is missing and start the stack
	$(STACK) install
	$(STACK) up

down: demo-down ## Stop what the stack and a demo started, and nothing else
	$(STACK) down

clean: demo-down ## Stop them and remove the data (fetched files stay)
	$(STACK) clean

##@ Containers
.PHONY: fleet-test compose-up
fleet-test: packages ## The fleet in containers (root or a Docker daemon; NOMAD=path: in Nomad too)
	$(CARGO) build --workspace --bins
	tests/fleet

compose-up: ## Build all images and start docker/compose.yaml (docker/README.md)
	$(STACK) install mysql mariadb
	$(STACK) export docker/parts
	cd docker && docker compose up -d --build

##@ Speed
.PHONY: bench bench-live bench-peers
bench: up ## Measure the record path, the coordinator, then whole workers on the real stack (BENCH_RECORDS, BENCH_PASSES)
	cargo build --release --workspace --bins --bench decode --bench worker --bench coordinator
	cargo bench --workspace --bench decode
	$(WITH_STACK) cargo bench --workspace --bench coordinator
	cargo bench --workspace --bench worker

bench-live: up ## From a source's commit to the mirror, at 2,000 changes a second (BENCH_SECONDS)
	cargo build --release --workspace --bins --bench worker
	BENCH_SINKS=live cargo bench --workspace --bench worker

bench-peers: ## Replica and Iceberg beside Debezium's JDBC sink and Iceberg Kafka Connect (BENCH_RECORDS, BENCH_PASSES)
	$(STACK) install jdbc iceberg-connect
	$(STACK) up
	cargo build --release --workspace --bins --bench worker
	BENCH_SINKS=peers,lake-peers cargo bench --workspace --bench worker
