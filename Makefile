# Owns the short names of everything one does here; what is longer than a line lives in scripts/.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run test test-all test-rolls test-cluster soak check check-api check-deploy image bench demo-race flights servers-start servers-stop clean

export RUSTDOCFLAGS := -D warnings

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## private servers, a worker and an example to play with, until Ctrl-C
	@scripts/run.sh

test: ## everything that must hold: check, then all tests against private servers
	@scripts/install.sh test
	@$(MAKE) --no-print-directory check
	@scripts/test.sh

test-all: test ## the same, the tests once more against RabbitMQ 4, a cluster, and the image
	@KEYLANE_BROKER=4 scripts/test.sh
	@$(MAKE) --no-print-directory test-rolls
	@$(MAKE) --no-print-directory test-cluster
	@$(MAKE) --no-print-directory soak MINUTES=5
	@$(MAKE) --no-print-directory image

test-rolls: ## ten restarts of the broker under load, on RabbitMQ 3, and on 4 with and without Khepri
	@KEYLANE_ROLLS=10 scripts/test.sh --no-capture -E 'test(rolls::)'
	@KEYLANE_ROLLS=10 KEYLANE_BROKER=4 scripts/test.sh --no-capture -E 'test(rolls::)'
	@KEYLANE_ROLLS=10 KEYLANE_BROKER=4 KEYLANE_KHEPRI=0 scripts/test.sh --no-capture -E 'test(rolls::)'

test-cluster: ## what three brokers together do to the promise when one of them fails, RabbitMQ 3 and 4
	@scripts/install.sh test
	@scripts/test.sh --ignore-default-filter --no-capture -E 'test(/^cluster::/)'
	@KEYLANE_BROKER=4 scripts/test.sh --ignore-default-filter --no-capture -E 'test(/^cluster::/)'

soak: ## load while workers, broker and database fail now and then: nothing lost, nothing grows (MINUTES=60)
	@scripts/install.sh test
	@MINUTES=$(or $(MINUTES),60) scripts/test.sh --ignore-default-filter --no-capture -E 'test(/^soak::/)'

check: ## formatting, lints, documentation and scripts, without servers
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo doc --no-deps --locked --document-private-items
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh; else echo "shellcheck is not here: scripts are not checked"; fi

check-api: ## the HTTP API against its own description, and that description against its standard
	@scripts/check-api.sh

check-deploy: ## chart, image's recipe, alerts, dashboard and dependencies, without a cluster
	@scripts/check-deploy.sh

image: ## build the image without a container engine, and start it (as root, on Debian)
	@scripts/image.sh

demo-race: ## the race that keylane ends, without it and with it (CLIENTS=16 KEYS=50 WRITES=2000)
	@scripts/demo-race.sh

flights: ## apply a file of real writes and compare with what must come of them (FILE=flights.ndjson.gz)
	@scripts/flights.sh "$(FILE)"

bench: ## measure rates on this machine, as ratios (MESSAGES=200000)
	@scripts/bench.sh

servers-start: ## private servers for development; prints what to eval
	@scripts/install.sh
	@scripts/servers.sh start .keylane/dev
	@scripts/servers.sh env .keylane/dev

servers-stop: ## stop them; the data stays
	@scripts/servers.sh stop .keylane/dev

clean: ## stop the project's servers and remove all that was built or started here
	@scripts/servers.sh stop --wipe .keylane/dev
	@scripts/servers.sh stop --wipe .keylane/run/servers
	rm -rf --one-file-system .keylane examples/node/node_modules
	cargo clean
