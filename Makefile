# Every target makes .venv when it is missing and installs only what it needs into it.
# Another interpreter: make test PYTHON=python3.12. It counts when .venv is made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow test-next tables lint types doctest docs bench bench-time clean

PYTHON ?=
BIN := .venv/bin

# torch on Linux brings several GB of CUDA packages unless a CPU build is chosen, so that only the
# tests ask for it and the other frameworks. `make test ORACLES=no` does without; the comparisons are then skipped.
ORACLES ?= yes

EXTRAS_experiments := experiments
EXTRAS_test := test
EXTRAS_oracles := test,interop
EXTRAS_dev := dev
TEST_DEPS := $(if $(filter yes,$(ORACLES)),.venv/has-oracles,.venv/has-test)
# Programs that the tests compile are kept in ~/.cache/gru_jax-tests for the next run. CACHE=no neither reads nor writes it, and begins with nothing.
CACHE ?= yes
# One process a core, each with its half of the files; who is done takes over what the other has not begun, so that none
# waits at the end. WORKERS=0 runs all in one.
WORKERS ?= auto
PYTEST = $(if $(filter yes,$(ORACLES)),GRU_JAX_REQUIRE_ORACLES=1 )GRU_JAX_TEST_CACHE=$(CACHE) $(BIN)/python -m pytest \
  -n $(WORKERS) --maxprocesses 4 --dist worksteal --durations 15 --durations-min 1

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/has-experiments  ## train a GRU on handwritten digits
	$(BIN)/gru-jax run configs/digits/gru.yaml

test: $(TEST_DEPS)  ## all tests but the slow ones, and the examples in the docstrings
	GRU_JAX_ONLY_QUICK=1 $(PYTEST)

test-slow: CACHE = no
test-slow: $(TEST_DEPS)  ## the slow tests alone, with new examples of the random ones and nothing compiled before
	GRU_JAX_TEST_EXAMPLES=new $(PYTEST) -m slow

# The newest jax and flax there are, whatever constraints.txt pins, want Python 3.12. One test or file for each room.
NEXT := $(firstword $(foreach python,python3.12 $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.12*/bin/python3.12) \
  python3.13,$(if $(shell $(python) --version 2>/dev/null),$(python))))
NEXT_TESTS := tests/cells/test_mgu.py::test_the_numbers_are_those_of_flax tests/scans/test_explicit_axes.py tests/test_export.py \
  tests/test_combinators.py::test_layers_of_any_kind_nest tests/models/test_readout.py::test_states_chain_over_calls \
  tests/layers/test_layers.py::test_flax_s_own_rnn_and_bidirectional_take_the_cells \
  tests/layers/test_layers.py::test_nnx_trains_with_optax_and_state_round_trips \
  tests/interop/test_flax.py::test_linen_both_ways tests/interop/test_flax.py::test_nnx_both_ways \
  tests/config/test_optim.py::test_what_is_written_down_reads_back \
  tests/config/test_optim.py::test_an_optimizer_of_optax_is_that_of_optax \
  tests/training/test_step.py::test_loss_falls tests/cli/test_run.py::test_result \
  'tests/test_pages.py::test_python_blocks_run[README.md]'

test-next: $(if $(NEXT),.venv-next/has-test)  ## some tests with the newest jax and flax, on Python 3.12
	$(if $(NEXT),.venv-next/bin/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile $(NEXT_TESTS),\
	  @echo "skipped: the newest jax needs Python 3.12, and there is none here")

.venv-next/has-test: pyproject.toml
	@echo "installing the newest jax and flax into .venv-next with $$($(NEXT) --version) ..."
	@$(NEXT) -m venv .venv-next
	@.venv-next/bin/python -m pip install --disable-pip-version-check --editable '.[test]' >.venv-next/install.log 2>&1 \
	  || { tail -n 25 .venv-next/install.log >&2; exit 1; }
	@touch $@

tables: .venv/has-experiments  ## every table of experiments/ at its smoke scale, under 20 minutes on two cores
	find experiments -name table.yaml | sort | while read -r table; do $(BIN)/gru-jax table "$$table" --scale smoke; done

lint: .venv/has-dev  ## ruff: rules and import order
	$(BIN)/ruff check .

types: .venv/has-dev  ## mypy on gru_jax/
	$(BIN)/mypy --cache-dir "$${XDG_CACHE_HOME:-$$HOME/.cache}/gru_jax-tests/mypy"

doctest: .venv/has-test  ## the examples in the docstrings alone
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest gru_jax

docs: .venv/has-dev  ## the site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/has-experiments  ## time of an import, and of our layer beside flax's and those installed, some four minutes
	$(BIN)/python -m benchmarks.import_time
	$(BIN)/python -m benchmarks.layers --quick

bench-time: .venv/has-experiments  ## all of time at once: memory and rounds, and where it overtakes the steps, some 15 minutes
	$(BIN)/python -m benchmarks.parallel
	$(BIN)/python -m benchmarks.crossover

clean:  ## remove .venv, .venv-next, the site and the caches; runs/ stays
	rm -rf .venv .venv-next site .pytest_cache .hypothesis .mypy_cache .ruff_cache

# One stamp per set of extras: a changed dependency list installs again, an unchanged one does not.
.venv/has-%: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing gru-jax[$(EXTRAS_$*)] into .venv ..."
	@$(BIN)/python -m pip install --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[$(EXTRAS_$*)]' >.venv/install.log 2>&1 \
	  || { tail -n 25 .venv/install.log >&2; exit 1; }
	@touch $@

.venv/bin/pip:
	@python=""; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3.11 python3.12 python3.13 python3.14 python3); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 or newer found" \
	    "($(if $(PYTHON),$(PYTHON),python3) is $$($(if $(PYTHON),$(PYTHON),python3) --version 2>&1 || true))." \
	    "Fix: install one, or name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "making .venv with $$("$$python" --version)"; \
	"$$python" -m venv .venv || { rm -rf .venv; \
	  echo "error: $$python cannot make a virtual environment." \
	    "Fix: install its venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
