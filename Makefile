# Sets up a virtual environment in .venv and runs in it: `make lastfm` the experiment, `make test` the tests,
# `make docs` builds the site. `make test-lowest` runs the tests in .venv-lowest with the lowest versions allowed.

PYTHON ?= python3
# Set to 0 to leave torch_scatter out, for machines without a C++ compiler.
SCATTER ?= 1
# Set to 0 to leave triton out, a gigabyte that only the tests of the kernels for CUDA need.
TRITON ?= 1
# Where torch comes from, if not from pip's default: the CPU or CUDA index that pytorch.org names.
TORCH_INDEX ?=
# How many processes run the tests.
JOBS ?= 2
# More arguments for the example or for pytest.
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
CONSTRAINTS := constraints.txt
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: lastfm test test-lowest docs lint clean

lastfm: $(VENV)/train.stamp
	$(RUN) examples/lastfm_mgwa.py $(ARGS)

test: $(VENV)/dev.stamp $(if $(filter 1,$(SCATTER)),$(VENV)/scatter.stamp) \
		$(if $(filter 1,$(TRITON)),$(VENV)/triton.stamp)
	$(RUN) -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

test-lowest:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' \
		|| { echo "These versions need Python 3.10 or 3.11 (make PYTHON=python3.11 ...)"; exit 1; }
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt SCATTER=0 TRITON=0

docs: $(VENV)/dev.stamp
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/dev.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf .venv .venv-lowest .wheels build dist docs/_build *.egg-info

# torch comes first and by the pinned version: any other package would take the newest, several gigabytes of it.
$(VENV)/torch.stamp: $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is too old: Python 3.10 or newer is needed (make PYTHON=python3.12 ...)"; exit 1; }
	@echo "Setting up $(VENV): installing torch, this may take some minutes ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/train.stamp: $(VENV)/torch.stamp pyproject.toml
	@echo "Installing mgwa_pyg and what its example needs ..."
	@$(INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/train.stamp
	@echo "Installing what the tests need ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/triton.stamp: $(VENV)/train.stamp
	@echo "Installing triton ..."
	@$(INSTALL) triton
	@touch $@

$(VENV)/scatter.stamp: $(VENV)/torch.stamp tools/build_torch_scatter.sh
	@tools/build_torch_scatter.sh $(RUN)
	@touch $@
