PYTHON ?= python3
BIN := .venv/bin
UI_STORE ?= sqlite:///$(CURDIR)/outputs/mlflow.db

.PHONY: demo test test-slow lint ui clean

demo: .venv/installed  ## install, then one run on the synthetic cohort
	$(BIN)/python train.py

test: .venv/installed  ## the fast tests: a minute, no network, no GPU
	$(BIN)/python -m pytest

test-slow: .venv/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/installed  ## style, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

ui: .venv/installed  ## the MLflow UI on outputs/, at http://127.0.0.1:5000
	$(BIN)/python -m jne.tracking ui $(UI_STORE)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lint,atlas,launchers]"
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
