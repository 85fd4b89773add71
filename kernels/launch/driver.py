"""Launches by CUDA's driver itself, without Triton's launcher.

Triton's launcher parses some forty arguments a launch, and calls its hooks, in more host time than the driver takes.
Here all arguments lie in memory beforehand; addresses are written anew at each run, once for all launches. What the
driver says of a kernel's parameters must agree with Triton's signature, otherwise Triton launches.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from triton import knobs

SIZES = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "i64": 8, "u64": 8, "fp32": 4}  # bytes
SCRATCH = 2  # addresses that Triton appends, of memory that our kernels don't ask for


class _Config(ctypes.Structure):
    """CUDA's ``CUlaunchConfig``."""

    _fields_ = (
        *((f"{of}_{axis}", ctypes.c_uint) for of in ("grid", "block") for axis in "xyz"),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("num_attributes", ctypes.c_uint),
    )


@functools.cache
def _driver() -> Any:
    """CUDA's driver; None where there is none, or one that cannot tell a kernel's parameters (before 12.4)."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        return library if library.cuFuncGetParamInfo and library.cuLaunchKernelEx else None
    except (OSError, AttributeError):
        return None


def has_hooks() -> bool:
    """Whether someone, such as a profiler, wants to be told of launches, which only Triton's launcher does."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter)) or bool(getattr(leave, "calls", leave))


def _parameter_sizes(function: int) -> list[int]:
    """Bytes of each parameter of a kernel."""
    sizes: list[int] = []
    size, offset = ctypes.c_size_t(), ctypes.c_size_t()
    of_next = ctypes.byref(offset), ctypes.byref(size)
    while not _driver().cuFuncGetParamInfo(ctypes.c_void_p(function), ctypes.c_size_t(len(sizes)), *of_next):
        sizes.append(size.value)
    return sizes


def _parameters(
    kernel: Any, values: Sequence[Any], addresses: Mapping[int, int]
) -> list[tuple[int | None, int]] | None:
    """(number of its address, or None; else its bits) of each parameter; None where the driver sees others than
    Triton's signature has. ``addresses``: of values that are such, by their place."""
    parameters, sizes = [], []
    if len(kernel.src.signature) != len(values):
        return None
    for index, (kind, value) in enumerate(zip(kernel.src.signature.values(), values, strict=True)):
        if kind == "constexpr":
            continue
        if index in addresses:
            sizes.append(8)
            parameters.append((addresses[index], 0))
        elif kind in SIZES:
            sizes.append(SIZES[kind])
            bits = struct.unpack("<I", struct.pack("<f", value))[0] if kind == "fp32" else value % 2**64
            parameters.append((None, bits))
        else:
            return None
    found = _parameter_sizes(kernel.function)
    appended = found[len(sizes) :]
    return parameters if found[: len(sizes)] == sizes and appended == [8] * min(len(appended), SCRATCH) else None


class Prepared:
    """Kernels in order with their arguments in memory, for one run at a time."""

    def __init__(
        self, kernels: Sequence[tuple[Any, tuple[int, ...], list[tuple[int | None, int]]]], num_addresses: int
    ):
        """``kernels``: Triton's compiled kernel, its grid and its parameters."""
        self._addresses = (ctypes.c_uint64 * num_addresses)()
        self._pack = struct.Struct(f"{num_addresses}Q").pack_into
        self._stream = 0
        self._configs: list[_Config] = []
        self._calls: list[tuple[Any, ...]] = []
        self._values: list[Any] = []  # what parameters point to
        first = ctypes.addressof(self._addresses)
        for kernel, grid, parameters in kernels:
            constants = (ctypes.c_uint64 * (len(parameters) + SCRATCH))(*(bits for _, bits in parameters))
            places = [ctypes.addressof(constants) + 8 * place for place in range(len(constants))]
            for place, (number, _) in enumerate(parameters):
                if number is not None:
                    places[place] = first + 8 * number
            warps, _, shared = kernel.packed_metadata
            config = _Config(*grid, 32 * warps, 1, 1, shared, None, None, 0)
            self._values.append(constants)
            self._configs.append(config)
            of_all = (ctypes.c_void_p * len(places))(*places)
            self._calls.append((ctypes.byref(config), ctypes.c_void_p(kernel.function), of_all, None))
        self._launch = _driver().cuLaunchKernelEx

    def run(self, addresses: Sequence[int], stream: int) -> int | None:
        """The number of the first launch that the driver refused, and with it what follows; None if it took all."""
        self._pack(self._addresses, 0, *addresses)
        if stream != self._stream:
            for config in self._configs:
                config.stream = stream
            self._stream = stream
        launch_kernel = self._launch
        for number, call in enumerate(self._calls):
            if launch_kernel(*call):
                return number
        return None


def prepare(
    kernels: Sequence[tuple[Any, tuple[int, ...], Sequence[Any], Mapping[int, int]]], num_addresses: int
) -> Prepared | None:
    """Triton's compiled kernels, each with its grid, its argument values, and by their places the numbers of those that
    are addresses; None where only Triton can launch them."""
    if _driver() is None:
        return None
    prepared = []
    for kernel, grid, values, addresses in kernels:
        metadata = kernel.metadata
        special = (metadata.launch_pdl, metadata.launch_cooperative_grid, metadata.num_ctas != 1)
        if any(special) or metadata.global_scratch_size or metadata.profile_scratch_size:
            return None
        parameters = _parameters(kernel, values, addresses)
        if parameters is None or len(kernel.packed_metadata) != 3:
            return None
        prepared.append((kernel, grid, parameters))
    return Prepared(prepared, num_addresses)
