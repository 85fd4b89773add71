"""Launches by CUDA's driver: its view of a kernel's parameters, what it is handed, and when Triton launches instead."""

from __future__ import annotations

import ctypes
import struct
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cce_minus.kernels.launch import driver, programs
from cce_minus.kernels.launch.programs import Replay, _Compiled

SIGNATURE = {"p_in": "*fp32", "rows": "i32", "none": "constexpr", "cap": "fp32", "wide": "i64", "p_out": "*bf16"}
SIZES = [8, 4, 4, 8, 8, 8, 8]  # of those that are no constants, and two that Triton appends
VALUES = [None, 7, 1, 0.25, -3, None]
ADDRESSES = [(0, 0, 0), (5, 1, 16)]  # (index, array, bytes)


class Driver:
    """Stands for libcuda: notes what each launch is handed, and refuses those from the number ``refused`` on."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.refused, self.seen = sizes, 99, []

    def cuFuncGetParamInfo(self, function: Any, index: Any, offset: Any, size: Any) -> int:
        if index.value >= len(self.sizes):
            return 1
        size._obj.value = self.sizes[index.value]
        return 0

    def cuLaunchKernelEx(self, config: Any, function: Any, parameters: Any, extra: Any) -> int:
        if len(self.seen) >= self.refused:
            return 201
        config = config._obj
        read = [bytes((ctypes.c_char * 8).from_address(place)) for place in parameters]
        grid, block = (tuple(getattr(config, f"{of}_{axis}") for axis in "xyz") for of in ("grid", "block"))
        self.seen.append((function.value, grid, block, config.shared_bytes, config.stream, read))
        return 0


def compiled(function: int, launched: list[Any], **metadata: Any) -> _Compiled:
    known = {"launch_pdl": False, "launch_cooperative_grid": False, "num_ctas": 1, "global_scratch_size": 0}
    kernel = SimpleNamespace(
        src=SimpleNamespace(signature=SIGNATURE),
        metadata=SimpleNamespace(**known | {"profile_scratch_size": 0} | metadata),
        packed_metadata=(4, 1, 1024),
        function=function,
    )

    def run(*values: Any, stream: int) -> None:
        launched.append((function, values, stream))

    return _Compiled(kernel, run, (5, 2, 1), VALUES, ADDRESSES)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Driver:
    fake = Driver(SIZES)
    monkeypatch.setattr(driver, "_driver", lambda: fake)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 64 + device, raising=False)
    return fake


def by_driver(address: int) -> list[bytes]:
    parameters = [address, 7, int.from_bytes(struct.pack("<f", 0.25), "little"), 2**64 - 3, address + 512 + 16, 0, 0]
    return [parameter.to_bytes(8, "little") for parameter in parameters]


def by_triton(address: int) -> tuple[Any, ...]:
    return address, 7, 1, 0.25, -3, address + 512 + 16


def test_the_driver_is_handed_what_triton_would_hand_it(cuda: Driver):
    launched: list[Any] = []
    replay = Replay([compiled(11, launched), compiled(12, launched)], 3, [(0, 0), (0, 512)])
    for address in (4096, 2**47):
        cuda.seen.clear()
        replay.run([address])
        assert cuda.seen == [(f, (5, 2, 1), (128, 1, 1), 1024, 67, by_driver(address)) for f in (11, 12)]
    assert not launched


def test_what_the_driver_refuses_is_left_to_triton(cuda: Driver):
    launched: list[Any] = []
    cuda.refused = 1
    replay = Replay([compiled(number, launched) for number in (11, 12, 13)], 0, [(0, 0), (0, 512)])
    replay.run([4096])
    assert [function for function, *_ in cuda.seen] == [11]
    assert launched == [(number, by_triton(4096), 64) for number in (12, 13)]


@pytest.mark.parametrize("sizes", [SIZES[:4], [*SIZES, 8], [8, 8, *SIZES[2:]], [*SIZES[:-1], 4]])
def test_other_parameters_than_the_signature_tells_are_left_to_triton(cuda: Driver, sizes: list[int]):
    launched: list[Any] = []
    cuda.sizes = sizes
    Replay([compiled(11, launched)], 0, [(0, 0), (0, 512)]).run([4096])
    assert (cuda.seen, launched) == ([], [(11, by_triton(4096), 64)])


@pytest.mark.parametrize("special", ["launch_pdl", "num_ctas", "global_scratch_size"])
def test_kernels_that_need_more_are_left_to_triton(cuda: Driver, special: str):
    launched: list[Any] = []
    Replay([compiled(11, launched, **{special: 2})], 0, [(0, 0), (0, 512)]).run([4096])
    assert (cuda.seen, len(launched)) == ([], 1)


def test_hooks_are_told_by_triton(cuda: Driver, monkeypatch: pytest.MonkeyPatch):
    launched: list[Any] = []
    hook = SimpleNamespace(calls=[print])
    monkeypatch.setattr(driver, "knobs", SimpleNamespace(runtime=SimpleNamespace(
        launch_enter_hook=hook, launch_exit_hook=None,
    )))  # fmt: skip
    Replay([compiled(11, launched)], 0, [(0, 0), (0, 512)]).run([4096])
    assert (cuda.seen, len(launched)) == ([], 1)
    hook.calls.clear()
    Replay([compiled(11, launched)], 0, [(0, 0), (0, 512)]).run([4096])
    assert (len(cuda.seen), len(launched)) == (1, 1)


def test_without_a_driver_triton_launches(cuda: Driver, monkeypatch: pytest.MonkeyPatch):
    launched: list[Any] = []
    monkeypatch.setattr(driver, "_driver", lambda: None)
    Replay([compiled(11, launched)], 0, [(0, 0), (0, 512)]).run([4096])
    assert len(launched) == 1
    assert programs.has_hooks() is False
