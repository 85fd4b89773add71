#!/usr/bin/env bash
# On a machine with a GPU and the dependencies: install without downloads, run the tests that use the GPU, then the benchmark.
# About eleven minutes on one H100 with 16 cores, nine of them tests, most of which compile kernels: less with a filled Triton cache.
# OUT=folder WORKERS=14 COMMIT=abc1234 SHAPES=B bash benchmarks/gpu_check.sh
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/gpu_check}
mkdir -p "$OUT"
export XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1
python3 -m pip install -q --no-deps --no-build-isolation -e . || exit 1
big=tests/loss/test_gpu_grid.py::test_sizes_beyond_int32 # tens of gigabytes each: alone on the device
python3 -m pytest -q -n "${WORKERS:-14}" --tb=short -o faulthandler_timeout=150 --deselect "$big" \
    tests/loss tests/interop tests/kernels tests/tables tests/training/test_gpu_curves.py tests/training/test_gpu_captured.py tests/training/test_grouped_batches.py tests/training/test_devices.py tests/training/test_sharded_tables.py tests/benchmarks/test_gpu_study.py tests/benchmarks/test_runs_on_gpu.py > "$OUT/tests.txt" 2>&1
tests=$?
python3 -m pytest -q --tb=short "$big" > "$OUT/big.txt" 2>&1
sizes=$?
grep -hE "^(E  |FAILED|ERROR)" "$OUT/tests.txt" "$OUT/big.txt" | cut -c1-200 | head -60
tail -n 1 "$OUT/tests.txt" "$OUT/big.txt"
[ $tests -eq 0 ] && [ $sizes -eq 0 ] || exit 1
rm -f "$OUT/loss.csv"
python3 -m benchmarks.loss run --shapes "${SHAPES:-B}" --time-limit 5 --without torch.compile,eager --commit "${COMMIT:-}" --csv "$OUT/loss.csv" || exit 1
python3 -m benchmarks.loss table --csv "$OUT/loss.csv"
