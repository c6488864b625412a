# The front doors. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# One static build serves run, tests and the image (docs/decisions/0001-one-static-build.md). The target is named so that
# build scripts and macros, which cannot be static, are built without the flag.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
ifeq (,$(HOST))
$(error no Rust toolchain was found; see CONTRIBUTING.md)
endif
export CARGO_BUILD_TARGET := $(HOST)
ifneq (,$(findstring linux-gnu,$(HOST)))
FLAGS := CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUSTFLAGS
export $(FLAGS) := -C target-feature=+crt-static
# A static target has no shared libraries, so the Python extension goes without.
PYTHON_BUILD := env -u $(FLAGS)
endif

export MOLECULE_TEST_SCHEMATHESIS ?= $(CURDIR)/.venv-fuzz/bin/st
# It has the SDK that agents are built on.
export MOLECULE_TEST_PYTHON ?= $(CURDIR)/.venv/bin/python

BUILT := $(or $(CARGO_TARGET_DIR),target)/$(HOST)/debug
# The Python extension is tested from Python.
RUST := --workspace --exclude molecule-py
TEST := $(if $(shell command -v cargo-nextest),cargo nextest run,cargo test --lib --bins --tests --examples)
WHEELS := target/wheels
GENERATED := docs/statuses.md molecule-http/openapi.json

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

.PHONY: run
run: build ## start a server with a first workspace on 127.0.0.1:8080
	@if [[ $(HOST) == *linux* ]] && docker version >/dev/null 2>&1; then fixtures/image/build $(BUILT)/molecule; fi
	@exec ./molecule serve --welcome

.PHONY: build
build: ## build the program and link it as ./molecule
	cargo build --package molecule-http
	@ln -sfn $(BUILT)/molecule molecule

.PHONY: image
image: build ## pack the program into the image that containers run
	fixtures/image/build $(BUILT)/molecule

.PHONY: test
test: wheel .venv-fuzz/ready ## run every test, with the engines they need
	@# Built before, since there may be no network beside the engines.
	$(TEST) $(RUST) --no-run
	cargo test $(RUST) --doc
	fixtures/with-engines -- $(MAKE) test-beside-engines

# Both, whatever comes of the first: one run tells all that is wrong.
.PHONY: test-beside-engines
test-beside-engines:
	@failed=0; \
	$(TEST) --no-fail-fast $(RUST) || failed=1; \
	(cd molecule-py && MOLECULE_BINARY=$(abspath $(BUILT))/molecule ../.venv/bin/pytest) || failed=1; \
	exit $$failed

.PHONY: soak
soak: ## kill a server under load 100 times, on either database (a quarter of an hour)
	$(TEST) --package molecule-http --test server --no-run
	MOLECULE_TEST_KILLS=100 fixtures/with-engines --postgres $(TEST) --package molecule-http --test server kills_under_load

# The wheel and not the sources are tested: it is what users get.
.PHONY: wheel
wheel: .venv/ready ## build the Python package for tests, and install it in .venv
	@rm -rf $(WHEELS)
	$(PYTHON_BUILD) .venv/bin/maturin build --quiet --manifest-path molecule-py/Cargo.toml \
		--interpreter .venv/bin/python --out $(WHEELS)
	@.venv/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl

.venv/ready: molecule-py/requirements-dev.txt
	fixtures/python-environment .venv $<
	@touch $@

.venv-fuzz/ready: fixtures/schemathesis/requirements.txt
	fixtures/python-environment .venv-fuzz $<
	@touch $@

.PHONY: fuzz
fuzz: fuzz-api fuzz-parsers ## look for what the server and its parsers do wrong, for FUZZ_SECONDS on each

# From a seed of its own, which is printed where something fails.
.PHONY: fuzz-api
fuzz-api: .venv-fuzz/ready ## look for requests that the API answers wrongly, for FUZZ_SECONDS (600)
	MOLECULE_FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) MOLECULE_FUZZ_SEED=$(or $(FUZZ_SEED),$$RANDOM) \
		fixtures/with-engines --postgres $(TEST) --package molecule-http --test server fuzz::

.PHONY: fuzz-parsers
fuzz-parsers: ## look for texts that parsers read wrongly, for FUZZ_SECONDS (60) each
	fixtures/fuzz-parsers $(or $(FUZZ_SECONDS),60)

.PHONY: check
check: ## all that CI checks: format, lints, documents, tests, dependencies, generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(MAKE) check-features
	RUSTDOCFLAGS='-D warnings' cargo doc $(RUST) --no-deps
	$(MAKE) test
	$(MAKE) check-dependencies
	$(MAKE) check-fuzzers
	$(MAKE) check-generated

# As the Python package and the server build the core: with what tests need of it, as the lints see it, nothing is unused.
.PHONY: check-features
check-features:
	@for features in files,mcp docker,process,files,mcp; do \
		cargo clippy --quiet --package molecule-core --no-default-features --features $$features -- -D warnings; \
	done

# Without advisories: their database is fetched from the network each time, which CI does not have.
.PHONY: check-dependencies
check-dependencies:
	@if command -v cargo-deny >/dev/null; then \
		cargo deny --offline check bans licenses sources; \
	else \
		echo 'SKIPPED check-dependencies: cargo-deny is not installed (cargo install cargo-deny)'; \
	fi

# A workspace of their own, which nothing else compiles.
.PHONY: check-fuzzers
check-fuzzers:
	@fixtures/fuzz-parsers seeds

.PHONY: check-generated
check-generated:
	@before=$$(cksum $(GENERATED)); \
	$(MAKE) update; \
	if [[ $$before != "$$(cksum $(GENERATED))" ]]; then \
		git --no-pager diff -- $(GENERATED); \
		echo 'generated files were not up to date: run `make update` and commit what it changes' >&2; \
		exit 1; \
	fi

.PHONY: update
update: ## write all generated files anew
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	UPDATE=1 $(TEST) $(RUST) generated_ >"$$log" 2>&1 || { cat "$$log" >&2; exit 1; }

# Slower than `update`, and with engines.
.PHONY: results
results: ## run the conformance suite against the server in all its forms, and write docs/conformance.md anew
	$(TEST) $(RUST) --no-run
	UPDATE=1 fixtures/with-engines -- $(TEST) --no-fail-fast $(RUST) keeps_the_contract

# Not in CI: it builds another server.
.PHONY: mutations
mutations: ## take checks out of a copy of the server, and see that the conformance suite notices each
	fixtures/mutate

.PHONY: clean
clean: ## remove all that was built
	cargo clean
	rm -rf .venv .venv-fuzz molecule fuzz/target fuzz/corpus fuzz/artifacts
