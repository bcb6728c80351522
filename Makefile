# Each target makes the virtual environment that it needs; a bare Debian with Python 3.10 or newer and make will do.
PYTHON ?= python3
VENV := .venv
CLINIC := .venv-clinic
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# HC18 in its official layout, for `make starter`.
HC18 ?= ../shared/data/hc18

.PHONY: demo test lint bench starter clean

demo: $(VENV)/.clinic  ## the whole job on a simulated sweep
	rm -rf demo-exam
	$(BIN)/edgefetal demo --out demo-exam

test: $(VENV)/.workstation $(CLINIC)/.wheel  ## the test suite
	EDGEFETAL_CLINIC_PYTHON="$(CURDIR)/$(CLINIC)/bin/python" $(BIN)/python -m pytest

lint: $(VENV)/.workstation  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.clinic  ## latency of the starter bundle here
	$(BIN)/edgefetal bench starter --json bench.json

starter: $(VENV)/.workstation  ## train and build the starter bundle again (about 80 minutes on two cores)
	$(BIN)/edgefetal train multitask-unet --data hc18:$(HC18) --out runs/starter --epochs 80 --precision bf16 --seed 1 --threads 2 --resume
	rm -rf runs/starter-bundle
	$(BIN)/edgefetal build runs/starter --device cpu-x86 --calibration hc18:$(HC18) --out runs/starter-bundle --name starter
	rm -rf edgefetal/starter/bundle
	mv runs/starter-bundle edgefetal/starter/bundle

clean:
	rm -rf $(VENV) $(CLINIC) demo-exam bench.json dist

$(VENV)/bin/python $(CLINIC)/bin/python:
	$(PYTHON) -m venv $(@D)/.. || { rm -rf $(@D)/..; echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 3; }

# The clinic's install: no torch.
$(VENV)/.clinic: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.workstation: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[build,test]'
	touch $@ $(VENV)/.clinic

# A wheel in an environment of its own, so that the tests see what a clinic installs.
$(CLINIC)/.wheel: pyproject.toml constraints.txt $(shell find edgefetal export calibration runtime devices -type f -not -name '*.pyc') | $(CLINIC)/bin/python
	-$(CLINIC)/bin/python -m pip uninstall --quiet --yes edgefetal
	$(CLINIC)/bin/python $(PIP_INSTALL) .
	touch $@
