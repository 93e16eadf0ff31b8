# Two commands: `make demo` does the main job on real images, `make test` proves the project.
# Each sets up everything it needs in .venv; PYTHON names the interpreter to begin with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CXX_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')

.PHONY: demo test lint clean

demo: $(INSTALLED)
	$(BIN)/edgekit demo --output demo-output

# A file's tests stay together and files keep their order: the long builds of tests/native then overlap the rest.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES) $(wildcard $(foreach folder,native hosts hosts/tensorrt_native backends/tvm/cuda_native,tests/$(folder)/*.h tests/$(folder)/*.cpp))
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt setup.py edgekit/hosts/flags.py $(CXX_SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "error: want Python >= 3.10; hint: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, pathlib, sysconfig, sys; \
	    sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' 2>/dev/null \
	    || { echo "error: Python's headers or venv are missing; hint: apt-get install python3-dev python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build demo-output edgekit/*.so
