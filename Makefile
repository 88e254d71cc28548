# Set-up is part of every target: a fresh clone needs nothing but Python 3.11+ and these words.
#   make demo    people go in as pictures, come out as ranked search results
#   make test    all but the long tests    make check   formatting, lint, types
#   make test-fast  in a minute or so: no Ray, engine or other process, no test of over a tenth of a second, a fifth of the random examples
#   make rehearse  every shipped configuration, small, from the published layouts to a score
#   make soak    the long tests, part by part (PART=kills: one of them), their results into benchmarks/results
#   make bench   every benchmark, quick form, into build/bench
#   make mutants which mistakes the quick tests would notice
PYTHON ?= python3
VENV   ?= .venv
# With an NVIDIA GPU the CUDA stack is installed instead of the CPU one; `make STACK=cpu ...` overrides.
STACK  ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(STACK)
export HF_HUB_OFFLINE ?= 1
# Tests start some hundred processes: where none may keep compiled code, each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-fast rehearse soak check bench mutants constraints reference clean

setup: $(STAMP)

$(STAMP): pyproject.toml reid_ray/setup/constraints-$(STACK).txt $(wildcard reid_ray/setup/*.py)
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "reid_ray runs on Python 3.11 to 3.13; run: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint reid_ray/setup/constraints-$(STACK).txt --editable ".[$(STACK),dev]"
	$(BIN)/python -m compileall -q reid_ray jobs
	$(BIN)/reid-ray setup
	touch $@

demo: $(STAMP)
	$(BIN)/python jobs/demo.py $(ARGS)

# Three files of tests at a time, also on two cores, for tests of Ray wait a good deal; in their order, for the slow ones come first.
# TEST_WORKERS=0 runs them in one process. The quick ones do not wait, and each process more imports what they need once more.
TEST_WORKERS ?= 3
test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: TEST_WORKERS = 2
test-fast: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not slow" tests/unit tests/repo $(ARGS)

# ARGS: names of configurations, --report FILE.
rehearse: $(STAMP)
	$(BIN)/reid-ray rehearse $(ARGS)

soak: $(STAMP)
	$(BIN)/python tests/soak/run.py $(PART)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Each mistake of a list is made in a copy of the tree, where its tests must fail: killed / survived.
mutants: $(STAMP)
	$(BIN)/python tests/mutations/run.py $(ARGS)

bench: $(STAMP)
	mkdir -p build/bench
	failed=0; for file in benchmarks/*.py; do name=$$(basename $$file .py); \
	  case $$name in harness|data_loaders|random_rows|synthetic_rows) continue;; esac; \
	  echo "== $$name"; $(BIN)/python $$file --quick --out build/bench/$$name.json || failed=1; done; exit $$failed

# The configuration reference comes from the models: stated once.
reference: $(STAMP)
	$(BIN)/python -m reid_ray.config.reference > jobs/configs/REFERENCE.md

constraints: $(STAMP)
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > reid_ray/setup/constraints-cpu.txt
	uv pip compile -q pyproject.toml --extra gpu --extra dev --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --no-annotate --no-header -o reid_ray/setup/constraints-gpu.txt

clean:
	rm -rf $(VENV) build demo runs
