# .ci/run and .github/workflows/ci.yml use the same commands. Each command makes the virtual environment .venv and
# installs its packages, once. PYTHON=... chooses the interpreter, VENV=... another environment. ARGS=... are arguments
# of the program: make train ARGS="data=mnist latent_dim=2".
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Options of pytest that measure coverage, for make coverage: the tests take half as long again with them.
COVERAGE ?=
.DEFAULT_GOAL := help
.PHONY: help train test coverage check docs format bench growth reproduce choices likelihoods kills mistakes soak scaling clean

help:
	@echo "make train      train on the embedded Digits (ARGS=\"model=mlp latent_dim=2\" for other settings)"
	@echo "make test       run the tests"
	@echo "make coverage   run the tests, and print which lines they reach"
	@echo "make check      check lint, formatting and types"
	@echo "make docs       build the documentation as a web site, in site/"
	@echo "make bench      measure training speed, compared with a bare loop and other projects: an hour"
	@echo "make growth     measure how time and memory grow, and startup times: half an hour"
	@echo "make reproduce  train the experiments of the documents at full length: hours on a CPU, resumable"
	@echo "make choices    train MNIST once per option of every choice, and compare: half an hour, resumable"
	@echo "make likelihoods  compare log-likelihoods of networks and priors with published values: hours"
	@echo "make kills      kill and signal trainings in every phase, and check that they resume with identical results"
	@echo "make mistakes   check that each wrong command line prints one line"
	@echo "make soak       train, evaluate and draw repeatedly in one process, and check for leaks"
	@echo "make scaling    measure one and two processes, and predict many devices: a quarter of an hour"
	@echo "make format     fix lint and formatting"
	@echo "make clean      remove the virtual environment and caches; runs and data stay"

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	@echo "installing the packages of the tests ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

$(BIN)/.installed-docs: $(BIN)/.installed
	@echo "installing what the web site needs ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

train: $(BIN)/.installed
	@$(BIN)/python src/train.py $(ARGS)

test: $(BIN)/.installed-dev
	@$(BIN)/python -m pytest -n auto --dist worksteal --durations=20 $(COVERAGE) $(ARGS)

coverage: COVERAGE = --cov=vaelab --cov-report=term:skip-covered
coverage: test

check: $(BIN)/.installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: $(BIN)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build # not --quiet: that hides warnings from its strict mode
	@echo "open site/index.html"

bench: $(BIN)/.installed
	@$(BIN)/python benchmarks/throughput.py $(ARGS)

growth: $(BIN)/.installed
	@$(BIN)/python benchmarks/growth.py $(ARGS)

reproduce: $(BIN)/.installed
	@$(BIN)/python benchmarks/reproduce.py $(ARGS)

choices: $(BIN)/.installed
	@$(BIN)/python benchmarks/choices.py $(ARGS)

likelihoods: $(BIN)/.installed
	@$(BIN)/python benchmarks/likelihoods.py $(ARGS)

kills: $(BIN)/.installed
	@$(BIN)/python benchmarks/kills.py $(ARGS)

mistakes: $(BIN)/.installed-dev
	@$(BIN)/python benchmarks/mistakes.py $(ARGS)

soak: $(BIN)/.installed
	@$(BIN)/python benchmarks/soak.py $(ARGS)

scaling: $(BIN)/.installed
	@$(BIN)/python benchmarks/scaling.py $(ARGS)

format: $(BIN)/.installed-dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
