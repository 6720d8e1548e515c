# Everything runs in .venv, which is made when it is missing or the pins change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEURON := $(BIN)/neuron-explainer
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help example test check format build wheel-test echo-server screenshots clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

example: $(VENV)/ready  ## install, then collect, explain, simulate and score the tiny example
	$(NEURON) run
	$(NEURON) show tiny/blocks.0.mlp.hook_post/$(EXAMPLE_NEURON) --top 4
	$(NEURON) show tiny/blocks.2.hook_resid_post/topk/$(EXAMPLE_LATENT) --top 4

EXAMPLE_NEURON ?= 3
EXAMPLE_LATENT ?= 125

test: $(VENV)/ready  ## all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

echo-server: $(VENV)/ready  ## a server for tests/llm/test_llm_echo.py; compiles for some minutes
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,echo-tests]'

check: $(VENV)/ready  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready  ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: $(VENV)/ready  ## wheel and sdist in dist/
	rm -rf dist
	$(BIN)/python -m build --installer pip -q .

wheel-test: build  ## the built wheel in a clean environment, from an empty directory
	rm -rf build/wheel-test && mkdir -p build/wheel-test/empty
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/pip install -q -c constraints.txt dist/*.whl
	cd build/wheel-test/empty && ../venv/bin/neuron-explainer run \
	  && ../venv/bin/neuron-explainer show tiny/0/$(EXAMPLE_NEURON) --plain --top 1

screenshots: $(VENV)/ready  ## pictures of the viewer's pages; needs Chromium
	$(BIN)/python scripts/write_screenshots.py

clean:  ## remove what can be made again
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
