# The commands of the README. `make demo` and `make test` install what the build needs when it is missing (.ci/deps).

# rustup's directory for shells opened before it was installed; target/build-tools holds a cmake where the system has none.
export PATH := $(PATH):$(HOME)/.cargo/bin:$(CURDIR)/target/build-tools/bin
# More for the demo: make demo ARGS=--once
ARGS ?=

.PHONY: help demo test check deps

help:
	@echo 'make demo    build, and run the whole thing on this machine: issuer, tools, gateway'
	@echo 'make test    build, and run all tests'
	@echo 'make check   what continuous integration runs: tests, format, lints, docs, licenses, sample configurations'
	@echo 'make deps    install a C compiler and cmake when they are missing'

demo: deps
	cargo run --locked -- demo $(ARGS)

test: deps
	cargo test --locked

check: test
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	for file in conf/*.yaml; do cargo run --locked --quiet -- check --config "$$file" || exit; done
	@if ! command -v cargo-deny >/dev/null; then \
	    echo '==> cargo-deny is not installed: licenses and advisories are NOT checked' >&2; \
	else \
	    cargo deny --locked check bans licenses sources || exit; \
	    if cargo deny --locked fetch db; then cargo deny --locked check --disable-fetch advisories; \
	    else echo '==> the advisory database is out of reach: advisories are NOT checked' >&2; fi; \
	fi

deps:
	@.ci/deps
