# fleetbus: `make demo` shows it, `make test` proves it. Both set up what they need; see scripts/.

SHELL := /bin/bash
CACHE := $(or $(FLEETBUS_CACHE),$(HOME)/.cache/fleetbus)
# One target folder for every checkout, so that dependencies are compiled once.
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(CACHE)/bin:$(HOME)/.cargo/bin:/usr/local/go/bin:$(PATH)

.PHONY: $(shell grep -oE '^[a-z-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d :)

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## Install what a build needs
	@scripts/setup.sh

brokers: ## Install a real Kafka, NATS server and schema registry for the tests
	@scripts/brokers.sh

tools: ## Install cargo-deny and buf
	@scripts/tools.sh

demo: setup ## Watch a simulated fleet move through a real bridge
	@scripts/demo.sh

test: ## Everything: format, lints, licences, schema, docs, tests against real brokers
	@scripts/test.sh

campaign: setup ## Faults by seed under load, and a checker: EVENTS= FAULTS= SEED= BUS=kafka|nats|both
	@scripts/campaign.sh

campaign-selftest: setup brokers ## Planted bugs, each of which the checker must find
	cargo test --features faults --test campaign -- --exact --nocapture the_checker_finds_planted_bugs

stops: brokers ## SIGTERM under 64 busy connections, STOPS=50 times: a table
	STOPS=$(or $(STOPS),50) cargo test --test stops -- --nocapture

bulkheads: ## One account over its limits beside another that is not, ROUNDS=5 of turns of four times TURN=2 s: a table
	@scripts/bench.sh --part bulkheads --repeats $(or $(ROUNDS),5) --seconds $(or $(TURN),2)

memory: brokers ## An outage of EVENTS=1200000 of SUBJECTS=100000 vehicles and its drain, on BUS=nats|kafka, at DRAIN_RATE= a second: memory, files, order, live latency: a table
	OUTAGE_NORMAL=20000 OUTAGE_NOTE=0 OUTAGE_EVENTS=$(or $(EVENTS),1200000) OUTAGE_SUBJECTS=$(or $(SUBJECTS),100000) cargo test --test outage -- --nocapture

examples: ## Subscribers in five languages: compiled; three of them read what the bridge publishes
	@scripts/examples.sh all

bench: ## Measure the bridge beside its floor; ARGS="--part kafka --repeats 3" for less
	@scripts/bench.sh $(ARGS)

flamegraph: ## Where the time of one load goes, by perf: ARGS="--bus nats --connections 256 --events 1"
	@scripts/flamegraph.sh $(ARGS)

pgo: ## A release binary laid out by what a fleet's load runs through, into dist/: half an hour of two cores
	@scripts/pgo.sh

counts: ## Instructions and allocations an event, counted by valgrind, against docs/counts.txt; WRITE=1 writes that anew
	$(if $(WRITE),FLEETBUS_WRITE=1) cargo test --profile counts --test counts -- --nocapture --test-threads=1

alerts-check: ## The alert rules' unit tests and the dashboard's queries, by promtool (minutes to build, once)
	@scripts/alerts.sh

lint: ## Format, clippy, docs
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

docs: ## Write the reference pages anew from what they are written from
	cargo run --quiet -- check --schema > docs/fleetbus.schema.json
	FLEETBUS_WRITE_DOCS=1 cargo test --quiet --test docs

unit: ## The tests that need no broker
	cargo test --lib --bins

api: ## Write docs/openapi.json anew
	FLEETBUS_WRITE=1 cargo test --quiet --lib openapi

api-check: ## Schemathesis against the running program
	@scripts/api-check.sh

fmt: ## Format
	cargo fmt

.PHONY: image-check deploy-check helm-values licenses
image-check: setup ## Run the release binary in the image's bare root, without a container engine
	@scripts/image-check.sh

helm-values: ## Make the chart's schema and docs/helm-values.md anew
	@scripts/deploy-tools.sh
	@$(CACHE)/deploy-python/bin/python scripts/helm_values.py

licenses: ## Collect the licence texts of the dependencies anew
	@scripts/licenses.py

deploy-check: setup ## Validate image, compose, chart and release files, one line a check
	@scripts/deploy-check.sh

fuzz: ## Look for inputs that break a border: MINUTES=1 for each, with a nightly toolchain
	@scripts/fuzz.sh

clean: ## Forget what was built (not the brokers and tools)
	rm -rf $(CARGO_TARGET_DIR)
