PYTHON ?= python3
BIN := .venv/bin
UI_STORE ?= sqlite:///$(CURDIR)/outputs/mlflow.db

.PHONY: demo report test test-runs test-slow lint docs ui release clean

demo: .venv/installed  ## install, then one run on the synthetic cohort
	$(BIN)/python train.py

report: .venv/installed  ## a report on the newest runs, opened in the browser
	$(BIN)/python evaluate.py
	$(BIN)/jne open

test: .venv/installed  ## the fast tests: two minutes, no network, no GPU
	$(BIN)/python -m pytest

test-runs: .venv/installed  ## whole runs of the scripts: three minutes
	$(BIN)/python -m pytest -m 'runs and not slow'

test-slow: .venv/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/installed  ## style, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: .venv/installed-docs  ## the documentation, its examples executed: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

ui: .venv/installed  ## the MLflow UI on outputs/, at http://127.0.0.1:5000
	$(BIN)/jne ui $(UI_STORE)

release:  ## a dry run: sdist and wheel, checked, installed elsewhere, and the demo run there
	PYTHON=$(PYTHON) bash .ci/release

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	bash .ci/cpu_torch $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[full,atlas,launchers,test,lint]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache docs/_build docs/api/generated docs/gallery
