"""What a framework says of itself on this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Framework:
    """``name`` is "torch" or "jax"; ``cuda`` and ``rocm`` are the versions that it is built for, None of a build
    without; ``architectures`` those of GPUs that its own kernels are built for, as ``sm_90``, if it tells.

    Of JAX: whether it ``preallocates`` most of a GPU's memory, and the CUDA of the PyTorch beside it, whose launchers
    start the kernels, and whether that finds a GPU.
    """

    name: str
    cuda: str | None
    rocm: str | None
    has_gpu: bool
    architectures: tuple[str, ...] = ()
    preallocates: bool = False
    torch_cuda: str | None = None
    torch_has_gpu: bool = False
