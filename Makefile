# make demo and make test need nothing beforehand: both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test lint docs peers bench reproduce clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/idc demo --out runs/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in docs/_build/html; a warning is an error.
docs: setup
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

peers: setup
	$(BIN)/python benchmarks/peers.py

bench: setup
	$(BIN)/python benchmarks/speed.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/pages.py

# The recipes are in recipes/; DATA takes the place of a recipe's own data.
reproduce: setup
	$(BIN)/python benchmarks/reproduce.py '$(MODEL)' $(if $(DATA),--data '$(DATA)')

clean:
	rm -rf $(VENV) build dist docs/_build docs/_generated src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
