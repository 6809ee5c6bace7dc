# Everything runs in .venv, made from constraints.txt; nothing is needed beforehand but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: demo serve test test-all check bench format clean

demo: $(STAMP)
	$(BIN)/ladder run python-stdlib

serve: $(STAMP)
	$(BIN)/ladder serve

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.scratch
	$(BIN)/python -m benchmarks.operations

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
