"""Compiles the loss's kernels for a GPU that is not here: ``python -m tests.kernels.compiled 89 bfloat16`` prints the
most bytes of shared memory that one of them takes on compute capability 8.9."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from cce_minus.kernels import UniformNegatives
from cce_minus.kernels.launch import loss, programs
from cce_minus.kernels.plan.problem import Choices, Dtype, Shapes, build_problem
from cce_minus.kernels.plan.tiles import Gpu
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

ROWS, ITEMS, DIM = 4096, 20000, 64


class NoGpu:
    """Stands for the driver of a GPU, of which compiling needs the architecture alone."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def most_shared_memory(capability: int, dtype: Dtype) -> int:
    """Bytes, over forward and backward of grouped and independent negatives."""
    driver.set_active(NoGpu(capability))  # pyright: ignore[reportArgumentType]
    compiled: list[Any] = []

    def compile_now(self: programs.Program, dtypes: Mapping[str, torch.dtype]) -> None:
        compiled.extend(self._kernels(*programs._stand_ins([dtypes[name] for name in self.names])))

    torch.cuda.device = contextlib.nullcontext  # pyright: ignore[reportAttributeAccessIssue]
    torch.cuda.current_device = lambda: 0
    programs.Program.compile_ahead = compile_now
    for sampler in (UniformNegatives(256, group_size=128), UniformNegatives(64, group_size=1)):
        shapes = Shapes(ROWS, DIM, ITEMS, dtype, dtype, None, None, Gpu(40, capability))
        choices = Choices(None, True, -100, False, None, "uniform", False)
        problem = build_problem(shapes, choices, sampler.draw(ITEMS))
        for backward in (False, True):
            loss.compile_kernels(problem, "int64", None, backward, 0)
    return max(kernel.metadata.shared for kernel in compiled)


if __name__ == "__main__":
    print(most_shared_memory(int(sys.argv[1]), "float32" if sys.argv[2] == "float32" else "bfloat16"))
