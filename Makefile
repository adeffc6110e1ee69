# Every target with a `##` comment shows in `make help`, under the `##@` heading above it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
STACK := deploy/local/stack

##@ General
.PHONY: help
help: ## Show the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z][a-z0-9-]*:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Local stack (PostgreSQL, Kafka, schema registry, Connect, Redis; no containers)
.PHONY: up down clean
up: ## Install what is missing and start the stack
	$(STACK) install
	$(STACK) up

down: ## Stop what the stack started, and nothing else
	$(STACK) down

clean: ## Stop the stack and remove its data (fetched files stay)
	$(STACK) clean

##@ Speed
.PHONY: bench
bench: up ## Measure the record path, then whole workers on the real stack (BENCH_RECORDS, BENCH_PASSES)
	cargo build --release --workspace --bins --bench decode --bench worker
	cargo bench --workspace --bench decode
	cargo bench --workspace --bench worker
