"""A call's kernel launches as data: built once for a problem, compiled once for the arrays' dtypes, then replayed with
new addresses.

Triton's own launch path looks at every argument of every launch to pick a compiled kernel, which took longer on the
host than the kernels on the GPU. Here only dtypes and alignment of the call's arrays are looked at, once a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..plan.problem import interprets
from ..plan.tiles import Work

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
    """A launch ready to go: argument values in order, and which of them are addresses: (index, array, bytes)."""

    run: Callable[..., None]
    values: list[Any]
    addresses: list[tuple[int, int, int]]


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
        self._names = tuple(dict.fromkeys(pointer.name for pointer in pointers))
        self._compiled: dict[object, list[_Compiled]] = {}

    def run(self, arrays: Mapping[str, Tensor]) -> None:
        """Launch on the current device and stream; compiles at the first call for these dtypes and alignments."""
        if interprets():
            for each in self.launches:
                arguments = {name: _slice(arrays, value) for name, value in each.arguments.items()}
                each.kernel[each.grid](**arguments, **each.options)
            return
        used = [arrays[name] for name in self._names]
        addresses = [array.data_ptr() for array in used]
        for compiled in self._ready(used, addresses):
            values = compiled.values.copy()
            for index, array, offset in compiled.addresses:
                values[index] = addresses[array] + offset
            compiled.run(*values)

    def compile(self, dtypes: Mapping[str, torch.dtype]) -> None:
        """Compile for arrays of these dtypes at aligned addresses on the current device, and launch nothing."""
        used = [_Address(dtypes[name], 0) for name in self._names]
        self._ready(used, [0] * len(used))

    def _ready(self, used: list[Any], addresses: list[int]) -> list[_Compiled]:
        aligned = not any(address % ALIGNMENT for address in addresses)
        alignments = None if aligned else tuple(address % ALIGNMENT for address in addresses)
        key = (torch.cuda.current_device(), alignments, *(array.dtype for array in used))
        ready = self._compiled.get(key)
        if ready is None:
            ready = self._compiled[key] = [self._compile(each, used, addresses) for each in self.launches]
        return ready

    def _compile(self, each: Launch, used: list[Any], addresses: list[int]) -> _Compiled:
        values = list(each.arguments.values())
        places = []
        stand_ins = values.copy()
        for index, value in enumerate(values):
            if isinstance(value, Pointer):
                array = self._names.index(value.name)
                offset = value.offset * used[array].dtype.itemsize
                places.append((index, array, offset))
                stand_ins[index] = _Address(value.dtype or used[array].dtype, addresses[array] + offset)
        return _Compiled(_compiled(each, stand_ins)[each.grid], values, places)


_variants: dict[object, Any] = {}


def _compiled(each: Launch, arguments: list[Any]) -> Any:
    """The compiled kernel for arguments of these kinds; another number of rows needs no look by Triton."""
    parameters = zip(each.kernel.params, arguments, strict=True)
    key = (
        each.kernel,
        torch.cuda.current_device(),
        *each.options.values(),
        *(_kind(argument, parameter) for parameter, argument in parameters),
    )
    if key not in _variants:
        _variants[key] = each.kernel.warmup(*arguments, grid=each.grid, **each.options)
    return _variants[key]


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
