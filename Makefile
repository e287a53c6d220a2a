# `make` alone lists the targets. Each sets up what it needs in .venv, once per pyproject.toml;
# after that nothing needs a network.

VENV := .venv
PEERS := .venv-peers
PY := $(VENV)/bin/python3
comma := ,

# The first usable one; `make PYTHON=...` takes another.
PYTHON = $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	2>/dev/null && command -v $$p && break; done)

# Extras of each target. `demo` scores and serves and nothing else: no torch.
DEMO := $(VENV)/.have-server+demo
TEST := $(VENV)/.have-server+heif+demo+train+video+report+ray+labels+quantize+check+dev
CHECK := $(VENV)/.have-check
LINT := $(VENV)/.have-dev
SITE := $(VENV)/.have-engines+docs

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint type check bench gpu peers analyzer repository docs site promtool clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(DEMO) ## score six photographs and their degraded versions, on a server and in process
	@$(PY) -m benchmarks.demo

test: $(TEST) ## run the tests; ARGS="-k name" are pytest's
	$(PY) -m pytest -m "not slow" $(ARGS)

slow: $(TEST) ## run the tests that take long
	$(PY) -m pytest -m slow $(ARGS)

lint: $(LINT) ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: $(TEST) ## check types and import contracts
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

check: $(CHECK) ## compile the graphs as TensorRT would, without a GPU; ARGS="--precision int8"
	$(PY) -m build check $(ARGS)

bench: $(TEST) analyzer peers ## measure speed and memory, next to plain PyTorch; ARGS="--images DIR"
	$(PY) -m benchmarks run $(ARGS)
	$(PY) -m benchmarks plot

peers: $(PEERS)/.made ## make the environment of other scorers, which `benchmarks` measures beside

$(PEERS)/.made: benchmarks/peers/requirements.txt benchmarks/peers/metrics.txt
	@test -n "$(PYTHON)" || { echo "giqa needs Python 3.11 or 3.12 with venv" >&2; exit 1; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python3 -m pip install --quiet --disable-pip-version-check -r $<
	$(PEERS)/bin/python3 -m pip install --quiet --disable-pip-version-check --no-deps \
		-r benchmarks/peers/metrics.txt
	@touch $@

analyzer: $(VENV)/bin/perf_analyzer ## fetch perf_analyzer, Triton's load generator

$(VENV)/bin/perf_analyzer: .ci/perf_analyzer | $(VENV)/.made
	@.ci/perf_analyzer $(PY) $@

# Parts that end in minutes and keep what they found; gpu_engines and gpu_server want TensorRT and Triton.
PARTS := gpu gpu_graphs gpu_decoding

gpu: $(TEST) ## measure on an NVIDIA GPU, in parts; PARTS="gpu_engines gpu_server" where TensorRT and Triton are
	$(PY) -m benchmarks run $(PARTS) $(ARGS)

repository: $(TEST) ## write model_repository from the default bundle
	$(PY) -m build repository --device cpu --out model_repository/cpu
	$(PY) -m build repository --device gpu --out model_repository/gpu

docs: $(TEST) ## write the generated parts of documents, and tests/api.txt
	$(PY) -m build docs
	$(PY) -m tests.api

site: $(SITE) ## build the documentation site in dist/site/html; a broken link is an error
	$(PY) -m build site

promtool: $(VENV)/bin/promtool ## fetch Prometheus' promtool from Debian, with which alerts are tested

$(VENV)/bin/promtool: | $(VENV)/.made
	@.ci/promtool $@

clean: ## remove the environment and caches
	rm -rf $(VENV) $(PEERS) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "giqa needs Python 3.11 or 3.12 with venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# .have-a+b: the extras a and b are installed as pyproject.toml pins them.
$(VENV)/.have-%: pyproject.toml | $(VENV)/.made
	@echo "installing giqa[$(subst +,$(comma),$*)] into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[$(subst +,$(comma),$*)]'
	@touch $@
