# The commands of the README. `make demo` and `make test` install what the build needs when it is missing (.ci/deps).

# rustup's directory for shells opened before it was installed; target/build-tools holds tools that the system lacks.
export PATH := $(PATH):$(HOME)/.cargo/bin:$(CURDIR)/target/build-tools/bin
# More for the demo: make demo ARGS=--once
ARGS ?=

.PHONY: help demo test check bench fuzz deps

help:
	@echo 'make demo    build, and run the whole thing on this machine: issuer, tools, gateway'
	@echo 'make test    build, and run all tests'
	@echo 'make check   what continuous integration runs: tests, format, lints, docs, licenses, samples, demo'
	@echo 'make bench   measure speed and memory against a bare Pingora proxy (about six minutes)'
	@echo 'make fuzz    look for inputs that break a law of fuzz/ (a minute for each target)'
	@echo 'make deps    install a C compiler and cmake when they are missing'

demo: deps
	cargo run --locked -- demo $(ARGS)

test: deps
	cargo test --locked

check:
	@.ci/run

# More for the measurement: make bench ARGS='--only c=32'
bench: deps
	benches/load/run.sh $(ARGS)

# Longer, or fewer: make fuzz ARGS='--seconds 600 classify sse'
fuzz: deps
	fuzz/run.sh $(ARGS)

deps:
	@.ci/deps
