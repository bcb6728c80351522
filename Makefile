# Each target makes the virtual environment that it needs; a bare Debian with Python 3.10 or newer and make will do.
PYTHON ?= python3
VENV := .venv
CLINIC := .venv-clinic
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# HC18 in its official layout, for `make starter`.
HC18 ?= ../shared/data/hc18
SONONET ?= ../shared/data/sononet/SonoNet16.npz
# The starter's own training runs, which `make starter` writes; `make bench` compares with them where they are.
TEACHER ?= runs/heads
STUDENT ?= runs/starter

.PHONY: demo test faults lint bench starter clean

demo: $(VENV)/.clinic  ## the whole job on a simulated sweep
	rm -rf demo-exam
	$(BIN)/edgefetal demo --out demo-exam

test: $(VENV)/.workstation $(CLINIC)/.wheel  ## the test suite
	EDGEFETAL_CLINIC_PYTHON="$(CURDIR)/$(CLINIC)/bin/python" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

faults: $(VENV)/.workstation  ## every fault that is put into live sources, the store and the service, and how each ended
	$(BIN)/python -m pytest -s -m "slow or not slow" tests/runtime/sources/live tests/runtime/store tests/runtime/service \
	  tests/runtime/exam/test_stages.py tests/runtime/exam/test_live_pipeline.py tests/edgefetal/test_live.py

lint: $(VENV)/.workstation  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.peers  ## where the starter's time goes here, other tools beside it, and docs/performance.md from that
	mkdir -p docs/performance
	$(BIN)/edgefetal bench starter --threads 1 --json docs/performance/starter.json --html bench.html
	$(BIN)/edgefetal bench starter --against none --seconds 0 --cold-starts 0 --json docs/performance/starter_peers.json \
	  --baseline all --baseline edgefetal:openvino $(if $(wildcard $(HC18)),--dataset hc18:$(HC18)) \
	  $(foreach run,$(wildcard $(STUDENT) $(TEACHER)),--baseline torch:$(run) --baseline torch-compile:$(run))
	$(BIN)/python -m edgefetal_runtime.bench.document docs/performance.md docs/performance/*.json

starter: $(VENV)/.workstation  ## simulate, train the teacher and the student, build the starter again (about 2.5 hours on two cores)
	$(BIN)/edgefetal phantom --protocol abdomen --ga 16w0d..38w0d --exams 120 --frames 12 --seed 21 --out runs/planes/abdomen --resume
	$(BIN)/edgefetal phantom --protocol femur --ga 16w0d..38w0d --exams 120 --frames 12 --seed 21 --out runs/planes/femur --resume
	$(BIN)/edgefetal phantom --protocol head --ga 16w0d..38w0d --exams 30 --frames 12 --seed 21 --out runs/planes/head --resume
	$(BIN)/edgefetal train multitask-unet --data hc18:$(HC18) --out runs/heads --epochs 80 --precision bf16 --seed 1 --threads 2 --resume
	test -d runs/sononet || $(BIN)/edgefetal import sononet --weights $(SONONET) --out runs/sononet
	$(BIN)/edgefetal distil --teachers runs/heads --teachers runs/sononet --plane-weight 0.3 --student small --input 384x256 \
	  --data hc18:$(HC18) --unlabelled phantom:runs/planes/abdomen --unlabelled phantom:runs/planes/femur \
	  --unlabelled phantom:runs/planes/head --frames-per-exam 2 --epochs 25 --precision bf16 --seed 1 --threads 2 --resume --out runs/starter
	rm -rf runs/starter-bundle
	$(BIN)/edgefetal build runs/starter --device cpu-x86 --calibration hc18:$(HC18) --out runs/starter-bundle --name starter
	rm -rf edgefetal/starter/bundle
	mv runs/starter-bundle edgefetal/starter/bundle

clean:
	rm -rf $(VENV) $(CLINIC) demo-exam bench.html dist

$(VENV)/bin/python $(CLINIC)/bin/python:
	$(PYTHON) -m venv $(@D)/.. || { rm -rf $(@D)/..; echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 3; }

# The clinic's install: no torch.
$(VENV)/.clinic: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.workstation: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[build,test]'
	touch $@ $(VENV)/.clinic

# The tools that `edgefetal bench --baseline` compares with.
$(VENV)/.peers: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[build,peers]'
	touch $@ $(VENV)/.clinic

# A wheel in an environment of its own, so that the tests see what a clinic installs.
$(CLINIC)/.wheel: pyproject.toml constraints.txt $(shell find edgefetal export calibration runtime devices -type f -not -name '*.pyc') | $(CLINIC)/bin/python
	-$(CLINIC)/bin/python -m pip uninstall --quiet --yes edgefetal
	$(CLINIC)/bin/python $(PIP_INSTALL) .
	touch $@
