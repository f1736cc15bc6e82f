# Two commands do everything on a machine with Python >= 3.11 and make:
#   make demo   sets up .venv, fits and forecasts a real series, draws the picture
#   make test   sets up .venv, lints, type-checks and runs the tests
# and a third measures:
#   make bench  sets up .venv, runs every script of benchmarks/ and writes one table of the figures
PYTHON ?= python3
BIN := .venv/bin

# Where it is set, each of dozens of processes compiles anew all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench

demo: .venv/.demo
	$(BIN)/kernax demo --out kernax-demo --force

# Most of a test's time is compilation, and most tests are content with what takes half of it;
# those marked `optimised` are not: their code is that of users, made in one piece. `pytest` alone
# runs all as users do. A version of XLA that does
# not know an option ends the process: then it goes without.
UNSPLIT := --xla_cpu_parallel_codegen_split_count=1
QUICK := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false $(UNSPLIT)

# Two processes whose linear algebra has two threads each would wait for one another.
test: export OPENBLAS_NUM_THREADS = 1
test: lint
	knows() { XLA_FLAGS="$$1" $(BIN)/python -c 'import jax; jax.devices()' 2>/dev/null; }; \
	flags="$(QUICK)"; knows "$$flags" || { flags=; \
	for flag in $(QUICK); do if knows "$$flag"; then flags="$$flags $$flag"; fi; done; }; \
	XLA_FLAGS="$$flags" $(BIN)/pytest -n 2 --dist worksteal -m 'not optimised' && \
	XLA_FLAGS="$$(echo "$$flags" | grep -o -e $(UNSPLIT))" $(BIN)/pytest -n 2 --dist worksteal -m optimised

bench: .venv/.bench
	$(BIN)/python benchmarks/run.py

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/.pip:
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.demo: .venv/.pip pyproject.toml
	$(BIN)/pip install --quiet --no-compile --editable '.[plot,mcmc]'
	touch $@

.venv/.dev: .venv/.pip pyproject.toml
	$(BIN)/pip install --quiet --no-compile --editable '.[plot,mcmc]' --group dev
	touch $@ .venv/.demo

.venv/.bench: .venv/.pip pyproject.toml
	$(BIN)/pip install --quiet --no-compile --editable '.[bench]'
	touch $@
