# All set-up is done by these targets; `make demo` needs only the Rust toolchain (rust-toolchain.toml), `make test` also
# Python 3, Go, a JDK with Maven, and Node with npm.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
# The server that tests of clients start.
TRILITH_BIN ?= $(CARGO_TARGET_DIR)/debug/trilith
export TRILITH_BIN

.PHONY: demo test soak lint generate generated bench bench-memory clean
.PHONY: test-rust test-go test-java test-python test-typescript test-grpcurl test-druid-tools

# Builds, starts an embedded server, ingests the bundled Wikipedia edits, prints progress, report and rows.
demo:
	cargo build --locked --workspace --bins
	$(CARGO_TARGET_DIR)/debug/trilith demo

test: test-rust generated test-go test-java test-python test-typescript test-grpcurl test-druid-tools

test-rust:
	cargo build --locked --workspace --bins
	cargo test --locked --workspace

# Clients, each against a server of its own. They fetch what they need at their first run.
test-go:
	cd client/go && test -z "$$(gofmt -l .)" && go vet ./... && go test ./...
	cd benches/load && test -z "$$(gofmt -l .)" && go vet ./...

test-java:
	cd client/java && mvn -q -B verify

test-python:
	client/python/test.sh -q

test-typescript:
	cd client/typescript && npm ci --no-audit --no-fund && npm test && npm run lint

test-grpcurl:
	python3 tests/grpcurl/run.py

# pydruid, SQLAlchemy and Airflow's provider, unmodified.
test-druid-tools:
	tests/druid_tools/run.sh -q

# The checked-in code of clients, from proto/.
generate:
	client/go/generate.sh
	cd client/typescript && npm ci --no-audit --no-fund && npm run generate

# Fails when it is not what proto/ says.
generated: generate
	git diff --exit-code -- client/go/gen client/typescript/src/gen

# The long forms of the simulation, of the trials with killed processes, and of the random statements.
soak:
	TRILITH_SIMULATION_SEEDS=2000000 cargo test --locked --workspace --lib simulation -- --nocapture
	TRILITH_TRIALS=200 cargo test --locked --workspace --test black_box retries:: -- --nocapture
	TRILITH_HISTORIES=60 cargo test --locked --workspace --test black_box concurrency::what -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check licenses advisories; \
	else echo "cargo-deny is not installed (cargo install cargo-deny): licences and advisories are not checked"; fi

# Builds the release profile and compares with DuckDB, chDB, Polars and DataFusion from PyPI, side by side; then
# slots, worker processes and the fixed cost of a task; then 250 clients at once.
bench:
	cargo build --locked --release -p trilith-node
	python3 benches/run.py --trilith $(CARGO_TARGET_DIR)/release/trilith
	python3 benches/scale.py --trilith $(CARGO_TARGET_DIR)/release/trilith
	cd benches/load && go run . --trilith $(CARGO_TARGET_DIR)/release/trilith

# Jobs that are larger than the memory of the process: peak, time and spilled bytes of each. About half an hour.
bench-memory:
	cargo build --locked --release -p trilith-node
	python3 benches/memory.py --trilith $(CARGO_TARGET_DIR)/release/trilith

clean:
	cargo clean
	rm -rf benches/.venv benches/data
