"""A call's kernel launches as data: built once for a problem, compiled once for the arrays' dtypes, then replayed with
new addresses.

Triton's own launch path looks at every argument of every launch to pick a compiled kernel, which took longer on the
host than the kernels on the GPU. Here only dtypes and alignment of the call's arrays are looked at, once a call; a
``Replay`` is for callers who know them.
"""

from __future__ import annotations

import contextvars
import functools
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..plan.problem import interprets
from ..plan.tiles import Work
from .driver import Prepared, has_hooks, prepare

DEFAULT_WORK = Work(0, 4, 3)
ALIGNMENT = 16  # bytes; Triton compiles other code for less aligned addresses


class Pointer(NamedTuple):
    """An argument: the address of a call's array, ``offset`` elements in, read as ``dtype`` if given."""

    name: str
    offset: int = 0
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid, its arguments and launch options by name."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, object]
    options: Mapping[str, int | None]


class _Address:
    """Stands for a tensor where Triton reads dtype and alignment of an address."""

    def __init__(self, dtype: torch.dtype, address: int) -> None:
        self.dtype, self._address = dtype, address

    def data_ptr(self) -> int:
        return self._address


class _Compiled(NamedTuple):
    """A launch ready to go: Triton's kernel, what launches it, argument values in order, and which of them are
    addresses: (index, array, bytes)."""

    kernel: Any
    run: Callable[..., None]
    grid: tuple[int, ...]
    values: list[Any]
    addresses: list[tuple[int, int, int]]


class Replay:
    """A program's compiled launches on one device, whose arrays begin ``origins`` (tensor, bytes) into a call's
    tensors."""

    def __init__(self, compiled: list[_Compiled], device: int, origins: Sequence[tuple[int, int]]) -> None:
        self._compiled, self._device = compiled, device
        moved = [
            [(index, (origins[array][0], origins[array][1] + offset)) for index, array, offset in each.addresses]
            for each in compiled
        ]
        numbers = {place: number for number, place in enumerate(dict.fromkeys(p for each in moved for _, p in each))}
        self._places = list(numbers)
        self._numbers = [{index: numbers[place] for index, place in each} for each in moved]
        self._can_prepare = True
        self._prepared: list[Prepared] = []  # each is taken by one run at a time: threads may run the same program

    def run(self, addresses: Sequence[int]) -> None:
        """Launch on the current stream, with the tensors at these addresses."""
        stream = torch._C._cuda_getCurrentRawStream(self._device)  # type: ignore[attr-defined]
        values = [addresses[tensor] + offset for tensor, offset in self._places]
        first: int | None = 0
        if not has_hooks() and (prepared := self._take()) is not None:
            first = prepared.run(values, stream)
            self._prepared.append(prepared)
        if first is not None:  # Triton tells what is wrong, or sees to it
            self._run_by_triton(first, values, stream)

    def _take(self) -> Prepared | None:
        try:
            return self._prepared.pop()
        except IndexError:
            pass
        if not self._can_prepare:
            return None
        launches = [
            (each.kernel, each.grid, each.values, numbers)
            for each, numbers in zip(self._compiled, self._numbers, strict=True)
        ]
        prepared = prepare(launches, len(self._places))
        self._can_prepare = prepared is not None
        return prepared

    def _run_by_triton(self, first: int, addresses: list[int], stream: int) -> None:
        for each, numbers in list(zip(self._compiled, self._numbers, strict=True))[first:]:
            values = each.values.copy()
            for index, number in numbers.items():
                values[index] = addresses[number]
            each.run(*values, stream=stream)


def launch(
    kernel: Any, grid: tuple[int, ...], bindings: Mapping[str, object], *, work: Work = DEFAULT_WORK, **own: object
) -> Launch:
    """A launch of ``kernel``, which takes what its signature names: its ``own`` values, and a problem's ``bindings``.

    ``work``: its warps, stages and registers. Raises TypeError for names that are missing, and for own ones that the
    kernel does not have.
    """
    missing = [name for name in kernel.arg_names if name not in own and name not in bindings]
    unknown = [name for name in own if name not in kernel.arg_names]
    if missing or unknown:
        raise TypeError(f"{kernel.fn.__name__} misses {missing} and does not take {unknown}")
    ordered = {name: own[name] if name in own else bindings[name] for name in kernel.arg_names}
    options = {"num_warps": work.warps, "num_stages": work.stages, "maxnreg": work.registers}
    return Launch(kernel, (*grid, 1, 1)[:3], ordered, options)


class Program:
    """Launches in order. ``run`` takes arrays by name; all of one device, those of the program's pointers among
    them."""

    def __init__(self, launches: list[Launch]) -> None:
        self.launches = launches
        pointers = [value for each in launches for value in each.arguments.values() if isinstance(value, Pointer)]
        self.names = tuple(dict.fromkeys(pointer.name for pointer in pointers))
        self._compiled: dict[object, list[_Compiled]] = {}
        self._ahead: dict[object, Future[list[_Compiled]]] = {}
        self._replays: dict[object, Replay] = {}

    def run(self, arrays: Mapping[str, Tensor]) -> None:
        """Launch on the current device and stream; compiles at the first call for these dtypes and alignments."""
        if interprets():
            for each in self.launches:
                arguments = {name: _slice(arrays, value) for name, value in each.arguments.items()}
                each.kernel[each.grid](**arguments, **each.options)
            return
        used = [arrays[name] for name in self.names]
        addresses = [array.data_ptr() for array in used]
        key = _key([array.dtype for array in used], addresses)
        replay = self._replays.get(key)
        if replay is None:
            origins = [(array, 0) for array in range(len(used))]
            replay = self._replays[key] = Replay(self._ready(key, used, addresses), key[0], origins)
        replay.run(addresses)

    def replay(self, dtypes: Sequence[torch.dtype], origins: Sequence[tuple[int, int]]) -> Replay:
        """For the current device and arrays of these dtypes, in the order of ``names``, that begin ``origins`` (tensor,
        bytes) into a call's tensors; all at aligned addresses."""
        key = _key(dtypes, [0])
        return Replay(self._ready(key, *_stand_ins(dtypes)), key[0], origins)

    def compile(self, dtypes: Mapping[str, torch.dtype]) -> None:
        """Compile for arrays of these dtypes at aligned addresses on the current device. Nothing reaches the device, as
        another thread's capture of a CUDA graph demands."""
        self._kernels(*_stand_ins([dtypes[name] for name in self.names]))

    def compile_ahead(self, dtypes: Mapping[str, torch.dtype]) -> None:
        """Begin to compile for such arrays in a thread, and load what is compiled; a run that comes earlier waits."""
        of_used, device = [dtypes[name] for name in self.names], torch.cuda.current_device()
        key = _key(of_used, [0])

        def work() -> list[_Compiled]:
            with torch.cuda.device(device):  # a thread has a current one of its own
                return self._make(key, *_stand_ins(of_used))

        if key not in self._compiled and key not in self._ahead:
            self._ahead[key] = _threads.submit(work)

    def _ready(self, key: object, used: list[Any], addresses: list[int]) -> list[_Compiled]:
        if key in self._compiled:
            return self._compiled[key]
        if key in self._ahead:
            return self._ahead[key].result()
        return self._make(key, used, addresses)

    def _make(self, key: object, used: list[Any], addresses: list[int]) -> list[_Compiled]:
        kernels = zip(self._kernels(used, addresses), self.launches, strict=True)
        self._compiled[key] = [
            _Compiled(kernel, kernel[each.grid], each.grid, list(each.arguments.values()), self._places(each, used))
            for kernel, each in kernels
        ]
        return self._compiled[key]

    def _kernels(self, used: list[Any], addresses: list[int]) -> list[Any]:
        def stand_in(value: object) -> object:
            if not isinstance(value, Pointer):
                return value
            array = self.names.index(value.name)
            own = used[array].dtype
            return _Address(value.dtype or own, addresses[array] + value.offset * own.itemsize)

        return _compiled(self.launches, [[stand_in(v) for v in each.arguments.values()] for each in self.launches])

    def _places(self, each: Launch, used: list[Any]) -> list[tuple[int, int, int]]:
        """(index, array, bytes) of the values that are addresses."""
        return [
            (index, array, value.offset * used[array].dtype.itemsize)
            for index, value in enumerate(each.arguments.values())
            if isinstance(value, Pointer)
            for array in [self.names.index(value.name)]
        ]


def _stand_ins(dtypes: Sequence[torch.dtype]) -> tuple[list[Any], list[int]]:
    """Arrays of these dtypes at aligned addresses, and the addresses."""
    return [_Address(dtype, 0) for dtype in dtypes], [0] * len(dtypes)


def _key(dtypes: Sequence[torch.dtype], addresses: Sequence[int]) -> tuple[Any, ...]:
    """What other code is compiled for: the current device, how addresses are aligned, dtypes."""
    aligned = not functools.reduce(operator.or_, addresses, 0) % ALIGNMENT
    alignments = None if aligned else tuple(address % ALIGNMENT for address in addresses)
    return (torch.cuda.current_device(), alignments, *dtypes)


_variants: dict[object, Any] = {}
_threads = ThreadPoolExecutor(4, "compile ahead")


def _compiled(launches: Sequence[Launch], arguments: Sequence[list[Any]]) -> list[Any]:
    """The compiled kernels for arguments of these kinds; another number of rows needs no look by Triton."""
    keys = [_variant(*each) for each in zip(launches, arguments, strict=True)]
    missing = {key: place for place, key in enumerate(keys) if key not in _variants}
    if missing:
        found = [(launches[place], arguments[place]) for place in missing.values()]
        # in a context of its own: a caller's AsyncCompileMode would hand us kernels that are not there yet
        kernels = contextvars.Context().run(_compile, found)
        _variants.update(zip(missing, kernels, strict=True))
    return [_variants[key] for key in keys]


def _variant(each: Launch, arguments: list[Any]) -> tuple[object, ...]:
    parameters = zip(each.kernel.params, arguments, strict=True)
    kinds = (_kind(argument, parameter) for parameter, argument in parameters)
    return (each.kernel, torch.cuda.current_device(), *each.options.values(), *kinds)


def _compile(missing: Sequence[tuple[Launch, list[Any]]]) -> list[Any]:
    """Side by side: Triton's passes and the assembler leave Python to others."""
    with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool, triton.AsyncCompileMode(pool):
        kernels = [each.kernel.warmup(*args, grid=each.grid, **each.options) for each, args in missing]
    # one that another thread compiles is of its pool
    return [kernel.result() if isinstance(kernel, triton.FutureKernel) else kernel for kernel in kernels]


def _kind(argument: Any, parameter: Any) -> object:
    """What Triton compiles other code for: values of compile-time constants, dtypes and alignment of addresses, and of
    integers how wide they are, whether they are 1 and whether 16 divides them, where these make a difference."""
    if parameter.is_constexpr or argument is None or isinstance(argument, bool):
        return type(argument), argument
    if isinstance(argument, _Address):
        return argument.dtype, argument.data_ptr() % ALIGNMENT == 0
    if isinstance(argument, float):
        return float
    wide = not -(2**31) <= argument < 2**31
    return (int, wide) if parameter.do_not_specialize else (int, wide, argument == 1, argument % ALIGNMENT == 0)


def _slice(arrays: Mapping[str, Tensor], value: object) -> object:
    if not isinstance(value, Pointer):
        return value
    array = arrays[value.name]
    if value.offset or value.dtype:
        array = array.view(-1)[value.offset :].view(value.dtype or array.dtype)
    return array
