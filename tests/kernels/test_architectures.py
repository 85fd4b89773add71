"""The loss's kernels compile for GPUs that the tests do not have, within the shared memory of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cce_minus.kernels.plan.tiles import SHARED_MEMORY

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("capability", [75, 80, 89, 120])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_kernels_compile(capability: int, dtype: str, tmp_path: Path):
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compiled", str(capability), dtype],
        cwd=ROOT, env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) <= SHARED_MEMORY[capability] * 1024
