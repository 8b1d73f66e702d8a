#!/usr/bin/env bash
# GPU tests, then the GPU benchmarks, without installing this library and without a network. python3 needs torch >= 2.11,
# triton >= 3.6, einops, safetensors, pillow, pytest, pytest-timeout, pytest-benchmark, hypothesis, opencv, scikit-image
# and matplotlib; kornia is measured if it is there. Results are written under $OUT (default: gpu_results). Takes at most 9
# minutes; the exit code is that of the tests, or of the benchmarks if they pass.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu_results}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1

"$PYTHON" - <<'PYTHON' | tee "$OUT/environment.txt"
import sys
import torch, triton
if not torch.cuda.is_available():
    sys.exit("gpu_session.sh: expected an NVIDIA GPU, PyTorch finds none")
print("torch", torch.__version__, "triton", triton.__version__)
print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
PYTHON
[ "${PIPESTATUS[0]}" = 0 ] || exit 2

timeout 300 "$PYTHON" -m pytest -q -p no:cacheprovider --timeout 200 \
    tests/ops/test_kernels.py tests/ops/test_kernels_on_gpu.py tests/ops/test_edges.py tests/ops/test_noise.py \
    tests/ops/test_patches.py tests/ops/test_view_extraction.py \
    tests/losses/test_kernels.py tests/losses/test_kernels_on_gpu.py tests/export/writers/test_aoti_on_gpu.py 2>&1 | tee "$OUT/tests.txt"
tests=${PIPESTATUS[0]}

timeout 280 "$PYTHON" -m pytest -q -p no:cacheprovider --doctest-ignore-import-errors benchmarks --on cuda --out "$OUT" 2>&1 |
    tee "$OUT/benchmarks.txt"
benchmarks=${PIPESTATUS[0]}
exit $((tests ? tests : benchmarks))
