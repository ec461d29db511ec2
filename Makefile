# rankwise: everything a newcomer needs is `make demo` and `make test`.

.DEFAULT_GOAL := help
.PHONY: help setup lists demo test check bench clean-demo

CARGO ?= cargo
RANKS ?= 2
BIN := target/release/rankwise

# Builds without MPI get a folder of their own: otherwise target/debug/rankwise would change
# between with and without MPI, and the tests that start mpirun might pick the wrong one.
NO_MPI := CARGO_TARGET_DIR=target/no-mpi $(CARGO)

# More ranks than cores is allowed everywhere: the demo and the tests must run on one core too.
# The first name of each pair is read by Open MPI 4, the second by Open MPI 5 (PRRTE).
export OMPI_MCA_rmaps_base_oversubscribe := 1
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
# mpirun refuses to run as root unless it is told twice that this is meant.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_ALLOW_RUN_AS_ROOT := 1
export PRTE_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

help:
	@echo 'make demo        rank the packages of this distribution by who depends on them (mpirun)'
	@echo 'make test        all tests: threads, mpirun, and two simulated hosts when root'
	@echo 'make check       format, clippy, unit tests, docs; needs no MPI'
	@echo 'make bench       kernel benchmarks, then collectives against the MPI of this machine'
	@echo 'make setup       install what is missing: C compiler, MPI, libclang, iproute2'
	@echo 'make clean-demo  remove the demo folder'
	@echo 'RANKS=N          ranks of demo and bench (2)'

setup:
	@.ci/setup

# The demo reads the package lists that apt keeps; a fresh container has none.
lists: setup
	@.ci/setup lists

demo: lists
	$(CARGO) build --release --example package_graph
	$(CARGO) build --release
	@$(MAKE) --no-print-directory demo/packages.txt
	mpirun -n $(RANKS) $(BIN) pagerank demo/packages.txt --top 10 --output demo/ranks.csv

# Made again when apt has newer lists (apt replaces files in that folder) or the converter changed.
demo/packages.txt: $(wildcard /var/lib/apt/lists) examples/package_graph.rs
	@mkdir -p demo
	apt-cache dumpavail | target/release/examples/package_graph > $@.part
	@mv $@.part $@

test: setup
	$(CARGO) build --release
	$(CARGO) test --all-features
	$(CARGO) test --all-features --examples

# Without MPI first, so that it works before `make setup`; with MPI as well where there is one.
check:
	@.ci/setup check
	$(CARGO) fmt --check
	$(NO_MPI) clippy --no-default-features --all-targets -- -D warnings
	$(NO_MPI) test --no-default-features --lib --test tidy --example package_graph
	RUSTDOCFLAGS='-D warnings' $(NO_MPI) doc --no-default-features --no-deps
	@if .ci/setup has-mpi; then set -x; $(CARGO) clippy --all-targets -- -D warnings; \
	else echo 'check: no MPI here, so only the build without MPI was linted (see make setup)'; fi

bench: setup
	$(CARGO) build --release
	$(CARGO) bench
	mpirun -n $(RANKS) $(BIN) bench --against native

clean-demo:
	rm -rf demo
