# make demo    sets up .venv, builds the native core, runs the main job, prints its verdict
# make test    the same set-up, then linters, types and all tests
# make lint    linters and types alone        make native   builds the native core again after a change
# make sanitize  the core's own tests (C++, GoogleTest) under the address, undefined-behaviour and thread sanitizers
# make fuzz    the fuzz targets, FUZZ_SECONDS each (clang 15 or newer with libFuzzer)
# make bench   the quick form of all benches beside the peers, which are installed first (small cases, each once):
#              tables, JSON, plots
# make tidy    clang-tidy over the native core  make clean    removes .venv and everything that was built
#
# Needs Python 3.11 or newer with its headers, g++ and make; CMake and Ninja come from the package index.
#   PYTHON=/path/to/python3     the interpreter of .venv
#   TEST_JOBS=2                 how many test files run at once
#   HPRESIL_CUDA=OFF            builds without CUDA although nvcc is there
#   TORCH_INDEX=URL             a package index added for torch; default: PyTorch's index of CPU builds unless
#                               pip would take a CPU build anyway, since the default index serves builds
#                               of several GB; empty: none is added

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: demo test bench lint tidy native sanitize fuzz clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TEST_JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(VENV)/.packages-installed
NATIVE := build/native/.installed
FUZZ_SECONDS ?= 10
CLANGXX ?= $(shell command -v clang++-19 || command -v clang++-16 || command -v clang++)
comma := ,
SANITIZERS := address,undefined thread
# The core alone, without Python and CUDA: $(call core,FOLDER,FLAGS) configures and builds it there.
core = PATH="$(CURDIR)/$(BIN):$$PATH" HPRESIL_CUDA=OFF cmake -S . -B build/$(1) -G Ninja -DCMAKE_BUILD_TYPE=Quick $(2) \
	&& $(BIN)/cmake --build build/$(1)
NATIVE_SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt
CXX_FILES = $$(find csrc tests/cpp tests/fuzz -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.inl')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

demo: $(NATIVE)
	$(BIN)/hpresil demo

test: lint
	$(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile

bench: $(NATIVE)
	mkdir -p build/bench
	$(BIN)/python -m bench all --quick --json build/bench/quick.json
	$(BIN)/python -m bench plots build/bench/quick.json --out build/bench

lint: $(NATIVE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy

# Slower, and a download of its own, so not part of `make test`.
tidy: $(NATIVE)
	$(BIN)/pip install --quiet --constraint constraints.txt clang-tidy
	$(BIN)/clang-tidy --quiet --extra-arg=-Wno-ignored-gch -p build/native $$(find csrc -name '*.cpp')

sanitize: $(PACKAGES)
	for sanitizer in $(SANITIZERS); do \
	  $(call core,$$sanitizer,-DHPRESIL_CPP_TESTS=ON -DHPRESIL_SANITIZE=$$sanitizer) && \
	  $(BIN)/ctest --test-dir build/$$sanitizer --parallel 2 --output-on-failure || exit 1; \
	done

# tests/fuzz/corpus is where it begins; what it finds is in build/fuzz/corpus, what breaks in build/fuzz/NAME-crash-*.
fuzz: $(PACKAGES)
	$(call core,fuzz,-DHPRESIL_FUZZ=ON -DHPRESIL_SANITIZE=address$(comma)undefined -DCMAKE_CXX_COMPILER=$(CLANGXX))
	for target in build/fuzz/tests/fuzz/*_fuzz; do name=$$(basename $$target _fuzz); \
	  mkdir -p build/fuzz/corpus/$$name && $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$$name- build/fuzz/corpus/$$name tests/fuzz/corpus/$$name || exit 1; \
	done

native: $(NATIVE)

$(BIN)/python:
	$(PYTHON) scripts/make_venv.py $(VENV)

# The editable install configures build/native and builds it; the rule below only when sources change.
$(PACKAGES): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python scripts/install_torch.py constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt scikit-build-core pybind11 cmake ninja
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

$(NATIVE): $(PACKAGES) $(NATIVE_SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake -S . -B build/native
	$(BIN)/cmake --build build/native
	rm -f python/hpresil/native/_core*.so  # a running process keeps the old file, not a half-written one
	$(BIN)/cmake --install build/native >/dev/null
	touch $@

clean:
	rm -rf $(VENV) build dist wheelhouse python/hpresil/native/_core*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
