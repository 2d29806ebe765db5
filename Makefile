# make demo   builds Evener, runs the primes service on real requests, and calls Python functions on a pool of workers
# make test   formatting, lints and all tests
# make help   the rest

PYTHON ?= python3
VENV := .venv
# All that tests and lints need from PyPI, installed once for each change of the list.
VENV_READY := $(VENV)/ready
BIN := target/debug/evener
# What the wheel brings along beside the package: the program, put there by the two rules that make a wheel.
PROGRAM := python/evener.data/scripts/evener

# What is fuzzed, and for how long each.
FUZZED := frames service_file jq template http session
FUZZ_SECONDS ?= 120

.PHONY: help demo test test-rust test-python test-e2e test-long fuzz lint format build install release wheel bench load-test clean

help:
	@sed -n 's/^# //p' Makefile
	@echo 'make lint       formatting and lints alone'
	@echo 'make format     format everything'
	@echo 'make test-long  the long suites: many seeds of the simulation, long properties, fuzzing, ten minutes of mixed load'
	@echo 'make fuzz       make up what strangers, workers and files say, for FUZZ_SECONDS (120) each (installs cargo-fuzz)'
	@echo 'make bench      measure against Mosec, ProcessPoolExecutor, Ray and axum, and write docs/performance.md (installs wrk, Mosec and Ray)'
	@echo 'make load-test  measure the load test of functions, and write its table and picture into docs/'
	@echo 'make release    the binary that is fast: target/release/evener'
	@echo 'make wheel      the Python package with its extension and the evener program: dist/evener-*.whl'
	@echo 'make clean      remove everything that was built'

demo: install
	$(PYTHON) examples/primes/demo.py --evener $(BIN)
	EVENER_BIN=$(CURDIR)/$(BIN) $(VENV)/bin/python examples/functions/demo.py

build:
	cargo build --locked --package evener --package embed-rust --package frames-rust

# The package in the virtual environment of the tests, as a wheel like that of `make wheel`, but quick to build.
install: $(VENV_READY) build
	@mkdir -p $(dir $(PROGRAM)) target/wheels && cp -f $(BIN) $(PROGRAM)
	@rm -f target/wheels/evener-*.whl
	cd python && ../$(VENV)/bin/maturin build --quiet --profile dev --compression-method stored --out ../target/wheels
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
		target/wheels/evener-*.whl

release:
	cargo build --locked --release --package evener

wheel: $(VENV_READY) release
	@mkdir -p $(dir $(PROGRAM)) && rm -f dist/evener-*.whl
	strip -o $(PROGRAM) target/release/evener
	cd python && ../$(VENV)/bin/maturin build --quiet --release --strip --out ../dist
	@ls -sh dist/evener-*.whl

test: lint test-rust test-python test-e2e

test-rust:
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked --workspace --no-fail-fast; \
	else cargo test --locked --workspace --no-fail-fast; fi
	cargo test --locked --workspace --doc --quiet

test-python: install
	cd python && ../$(VENV)/bin/python -m pytest --quiet tests

test-e2e: install
	EVENER_BIN=$(CURDIR)/$(BIN) $(VENV)/bin/python -m pytest --quiet tests

test-long: install
	EVENER_SEEDS=200000 PROPTEST_CASES=20000 cargo test --locked --release --package evener-simulation --package evener-core
	$(MAKE) fuzz
	EVENER_SOAK=600 EVENER_BIN=$(CURDIR)/$(BIN) $(VENV)/bin/python -m pytest --quiet tests/test_soak.py

# Each target starts from the inputs in fuzz/corpus; what it finds beside them stays in target/fuzz-corpus. A crash fails, and
# names the input that did it.
fuzz: build
	@PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo fuzz --version >/dev/null 2>&1 \
		|| cargo install --locked --root target/tools cargo-fuzz
	@set -e; for target in $(FUZZED); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; mkdir -p target/fuzz-corpus/$$target fuzz/artifacts/$$target; \
		PATH="$(CURDIR)/target/tools/bin:$$PATH" EVENER_BIN=$(CURDIR)/$(BIN) CARGO_TARGET_DIR=$(CURDIR)/target/fuzz \
		cargo fuzz run --fuzz-dir fuzz --sanitizer none $$target target/fuzz-corpus/$$target fuzz/corpus/$$target \
			-- -max_total_time=$(FUZZ_SECONDS) -timeout=30 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1; \
	done

lint: $(VENV_READY)
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- --deny warnings
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	cd python && ../$(VENV)/bin/mypy

format: $(VENV_READY)
	cargo fmt --all
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: wheel
	$(PYTHON) benches/compare.py --evener target/release/evener --write docs/performance.md
	$(PYTHON) benches/hop.py --evener target/release/evener --write docs/performance.md
	$(PYTHON) benches/functions.py --write docs/performance.md
	cargo build --locked --release --package embed-rust
	$(PYTHON) benches/graph.py --evener target/release/evener --embedded target/release/embed-rust --write docs/performance.md

load-test: install release
	EVENER_BIN=$(CURDIR)/target/release/evener $(VENV)/bin/python examples/functions/load_test.py \
		--workers 20 --svg docs/functions-load.svg --write docs/functions.md

clean:
	cargo clean
	rm -rf $(VENV) benches/.venv dist python/evener.data

$(VENV_READY): tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	touch $@
