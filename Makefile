# All set-up is done by these targets; they need only the Rust toolchain (rust-toolchain.toml) and Python 3.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

.PHONY: demo test soak lint bench bench-memory clean

# Builds, starts an embedded server, ingests the bundled Wikipedia edits, prints progress, report and rows.
demo:
	cargo build --locked --workspace --bins
	$(CARGO_TARGET_DIR)/debug/trilith demo

test:
	cargo test --locked --workspace

# The long forms of the simulation, of the trials with killed processes, and of the random statements.
soak:
	TRILITH_SIMULATION_SEEDS=8000000 cargo test --locked --workspace --lib simulation -- --nocapture
	TRILITH_TRIALS=200 cargo test --locked --workspace --test black_box retries:: -- --nocapture
	TRILITH_HISTORIES=60 cargo test --locked --workspace --test black_box concurrency::what -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check licenses advisories; \
	else echo "cargo-deny is not installed (cargo install cargo-deny): licences and advisories are not checked"; fi

# Builds the release profile and compares with DuckDB, chDB, Polars and DataFusion from PyPI, side by side; then
# slots, worker processes and the fixed cost of a task.
bench:
	cargo build --locked --release -p trilith-node
	python3 benches/run.py --trilith $(CARGO_TARGET_DIR)/release/trilith
	python3 benches/scale.py --trilith $(CARGO_TARGET_DIR)/release/trilith

# Jobs that are larger than the memory of the process: peak, time and spilled bytes of each. About half an hour.
bench-memory:
	cargo build --locked --release -p trilith-node
	python3 benches/memory.py --trilith $(CARGO_TARGET_DIR)/release/trilith

clean:
	cargo clean
	rm -rf benches/.venv benches/data
