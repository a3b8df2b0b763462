# Set-up, demo, tests and benchmarks from a fresh clone. Needs python3 >= 3.10 with venv and Python.h, a C compiler and make; says what is missing.
#
# The package is installed into .venv in editable form: Python sources are used where they are, so only a change of the build
# (C, Cython, setup.py, pyproject.toml) builds again. Each stamp below names what it stands for.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_SOURCES := setup.py pyproject.toml $(shell find cython -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd')
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
# The requirements of one extra, as the installed package states them.
EXTRA = $(BIN)/python -c 'import importlib.metadata as m; print("\n".join(r.partition(";")[0] for r in m.requires("edgeinfer") if "extra ==" in r and "$(1)" in r.partition(";")[2]))'

.PHONY: help demo test bench soak device-test device-test-short wheels clean check

help:
	@echo 'make demo   set up .venv, then compress and run the model that ships under a 48 MiB ceiling'
	@echo 'make test   set up .venv, then lint, type check and run the whole test suite'
	@echo 'make bench  set up .venv, then measure the model that ships against onnxruntime on this machine'
	@echo 'make device-test-short  the package on emulated Raspberry Pis, about five minutes; as root on Debian'
	@echo 'make device-test  the same at length: 32 bits, Debian 13, power cuts, pages of 16 KiB (see docs/how-to/test-on-devices.md)'
	@echo 'make wheels  source distribution and wheels into dist/, for this machine and cross-compiled for ARM'
	@echo 'make soak   ceilings of every light network, hogs, and half an hour of mixed sessions; takes hours'
	@echo 'make clean  remove .venv and everything that was built'
	@echo
	@echo "PYTHON=python3.12 chooses another Python. 'make check' only says whether something is missing."

check:
	@sh deploy/prerequisites.sh $(PYTHON)

demo: $(VENV)/stamp-convert
	@$(BIN)/edgeinfer demo

test: $(VENV)/stamp-convert $(VENV)/stamp-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: $(VENV)/stamp-convert $(VENV)/stamp-bench
	@$(BIN)/edgeinfer bench edgeinfer/demo/digits.edge --against onnxruntime:edgeinfer/demo/digits.onnx.xz

# As root on Debian; otherwise they say what they skip. docs/how-to/test-on-devices.md
device-test-short:
	@bash tests/device/device_test.sh short

soak: $(VENV)/stamp-convert $(VENV)/stamp-test
	@$(BIN)/python benchmarks/soak.py

device-test: $(VENV)/stamp-build
	@bash tests/device/device_test.sh long

wheels:
	@bash deploy/wheels.sh

$(VENV)/stamp-venv:
	@sh deploy/prerequisites.sh $(PYTHON)
	@echo 'edgeinfer: creating $(VENV)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) 'setuptools>=77' 'cython>=3.0'
	@touch $@

# Built without isolation, with the setuptools and Cython above, so that a rebuild needs no network.
$(VENV)/stamp-build: $(VENV)/stamp-venv $(BUILD_SOURCES)
	@echo 'edgeinfer: building; this takes a minute or two on a small board'
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/stamp-convert $(VENV)/stamp-test $(VENV)/stamp-bench: $(VENV)/stamp-%: $(VENV)/stamp-build
	@echo "edgeinfer: installing what '[$*]' needs"
	@$(call EXTRA,$*) > $(VENV)/requirements-$*.txt
	@$(PIP) --requirement $(VENV)/requirements-$*.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f cython/*.c edgeinfer/kernels/*.so
	find edgeinfer tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
