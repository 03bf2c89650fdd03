#!/usr/bin/env bash
# Builds hpresil on a machine with a GPU and no network, runs tests/gpu and the benches of bench/gpu, and writes
# one JSON file: bench/gpu/suite.sh [FILE]        (default: gpu-suite.json)
#
# Expected there: Python 3.11 or newer with its headers, torch with CUDA, nvcc, pybind11, CMake and Ninja. Nothing
# is installed; what else Python needs is taken from a folder of wheels that came along:
#   HPRESIL_WHEELS=DIR   wheels of msgspec, rich, safetensors, prometheus-client, pytest, pytest-timeout and what they need
#   PYTHON=python3       the interpreter
#   HPRESIL_QUICK=1      small benches
# Every step has a time limit and a failed one does not keep the others from running; together they stay under nine
# minutes. The status is 0 only if everything ran and passed; what did not is listed, on the terminal and in the file.
set -uo pipefail

cd "$(dirname "$0")/../.." || exit 2
file=${1:-gpu-suite.json}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD/python:$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}"
: > "$work/steps.tsv"

step() {  # step NAME SECONDS COMMAND...: runs it within the limit and notes how it ended
  local name=$1 limit=$2 begun=$SECONDS status=0
  shift 2
  echo "== $name"
  timeout --kill-after=5 "$limit" "$@" || status=$?
  printf '%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - begun))" >> "$work/steps.tsv"
  return "$status"
}

look() {
  {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    nvcc --version | tail -n 2 | head -n 1
    "$python" --version
    "$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda, torch.cuda.is_available())'
    git rev-parse HEAD 2> /dev/null || echo "no commit known"
  } > "$work/machine.txt" 2>&1
  cat "$work/machine.txt"
  nvidia-smi > /dev/null
}

wheels() {
  if [ -n "${HPRESIL_WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" "$HPRESIL_WHEELS"/*.whl || return
  fi
  "$python" -c 'import msgspec, rich, safetensors, prometheus_client, numpy, pytest, pytest_timeout'
}

build() {
  cmake -S . -B "$work/build" -G Ninja -DHPRESIL_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native \
    -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
    cmake --build "$work/build" && cp "$work"/build/csrc/_core*.so python/hpresil/native/
}

export -f look wheels build
export python work
step machine 30 bash -c look
step wheels 60 bash -c wheels
if step build 200 bash -c build; then
  step tests 120 "$python" -m pytest -q -p no:cacheprovider --timeout 60 --junitxml="$work/tests-gpu.xml" \
    tests/gpu tests/unit/native/test_device.py
  for bench in bench/gpu/*.py; do
    name=$(basename "$bench" .py)
    if [ "$name" != report ]; then
      step "bench $name" 40 "$python" -m bench.gpu.report run "$name" "$work/bench-$name.json"
    fi
  done
fi
"$python" -m bench.gpu.report "$work" "$file"
