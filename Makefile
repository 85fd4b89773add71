# `make demo`, `make test` and `make test-all` set up everything they need in .venv; `make clean` removes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.PHONY: demo test test-all lint types wheel site release-check clean

demo: $(VENV)/.demo
	$(BIN)/python -m benchmarks.demo

# each kind of thing once; XLA compiles without its optimisations, which take most of the time
test: $(VENV)/.dev
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# every test that needs no GPU
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m ""

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: $(VENV)/.dev
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	$(BIN)/python .ci/check_wheel.py dist

# tests and benchmarks see the package as users do: from the wheel
types: wheel
	$(BIN)/python -m pip install --quiet --no-deps --target build/typing dist/*.whl
	$(BIN)/pyright --pythonpath $(BIN)/python

# the pages of the repository and of the API, in build/site; a link that leads nowhere fails
site: $(VENV)/.docs
	$(BIN)/python .ci/site_source.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# what is uploaded: the sdist, the wheel built from it, and both in new environments of each Python there is;
# RELEASE_CHECK=--dependencies brings torch and JAX into each
release-check: $(VENV)/.build
	rm -rf build/release
	$(BIN)/python -m build --no-isolation --outdir build/release . > /dev/null
	$(BIN)/python .ci/check_wheel.py build/release
	$(BIN)/python .ci/release_check.py build/release $(RELEASE_CHECK)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) "setuptools>=77" wheel
	$(PIP) --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --no-build-isolation -e ".[dev]"
	touch $@

# neither needs torch: the packages that they list are read, not imported
$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python .ci/extra.py docs > $(VENV)/docs.txt
	$(PIP) -r $(VENV)/docs.txt
	touch $@

$(VENV)/.build: $(BIN)/python constraints.txt
	$(PIP) "setuptools>=77" wheel build
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
